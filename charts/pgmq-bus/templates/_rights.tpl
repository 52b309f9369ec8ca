{{/* What the operator may do in each namespace that it serves. Secrets are not here: see rbac-secrets.yaml. */}}
{{- define "pgmq-bus.rights" -}}
# patch: the finalizer. What users specified is never changed.
- apiGroups: [pgmqbus.dev]
  resources: [busdatabases, buschannels]
  verbs: [get, list, watch, patch]
- apiGroups: [pgmqbus.dev]
  resources: [busdatabases/status, buschannels/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
# The metadata of pods that ask for bindings or are selected for them: those that did not get them are named in an Event.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- end }}
