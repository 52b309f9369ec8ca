{{- define "pgmq-bus.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/*
The name of nearly all objects, and the stem of the others. 40 characters leave room for the longest suffix in the 63 of a
Service's name.
*/}}
{{- define "pgmq-bus.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "pgmq-bus.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pgmq-bus.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pgmq-bus.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* A label of the chart's own pods: no podSelector selects them, and they are not even shown to the webhook. */}}
{{- define "pgmq-bus.noBinding" -}}
pgmqbus.dev/inject: "false"
{{- end }}

{{- define "pgmq-bus.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "pgmq-bus.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The operator's image. */}}
{{- define "pgmq-bus.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Names shared by several templates. */}}
{{- define "pgmq-bus.secretsRole" -}}
{{ include "pgmq-bus.fullname" . }}-secrets
{{- end }}

{{- define "pgmq-bus.webhookService" -}}
{{ include "pgmq-bus.fullname" . }}-webhook
{{- end }}

{{- define "pgmq-bus.metricsService" -}}
{{ include "pgmq-bus.fullname" . }}-metrics
{{- end }}

{{- define "pgmq-bus.webhookTLSSecret" -}}
{{ include "pgmq-bus.fullname" . }}-webhook-tls
{{- end }}

{{- define "pgmq-bus.devPostgres" -}}
{{ include "pgmq-bus.fullname" . }}-dev-postgres
{{- end }}

{{/* What Pod Security's restricted profile asks of every container. */}}
{{- define "pgmq-bus.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A hook before anything of the release is made or changed. The argument is its weight: lower ones are made first. */}}
{{- define "pgmq-bus.definitionsHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
# One that failed stays, so that it can be looked at.
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* A hook after everything of the release was deleted. The argument is its weight: lower ones are made first. */}}
{{- define "pgmq-bus.uninstallHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
# One that failed stays, so that it can be looked at.
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/*
Refuses a listed namespace that does not exist: nothing can be made in it, and the release would be left half-made. Where
there is no cluster to ask (helm template, Argo CD) nothing is found, not even kube-system. The release namespace may
be made with the release (--create-namespace), and any other by a chart that this one is part of.
*/}}
{{- define "pgmq-bus.requireNamespaces" -}}
{{- if and .Chart.IsRoot (lookup "v1" "Namespace" "" "kube-system") }}
{{- $list := empty .Values.scope.namespaces | ternary "secretNamespaces" "scope.namespaces" }}
{{- range without (.Values.scope.namespaces | default .Values.secretNamespaces) .Release.Namespace }}
{{- if not (lookup "v1" "Namespace" "" .) }}
{{- fail (printf "namespace %s of %s does not exist: kubectl create namespace %s, or leave it out" . $list .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The namespaces in which the operator may use Secrets. */}}
{{- define "pgmq-bus.secretNamespaces" -}}
{{- append (.Values.scope.namespaces | default .Values.secretNamespaces) .Release.Namespace | uniq | sortAlpha | join "," }}
{{- end }}
