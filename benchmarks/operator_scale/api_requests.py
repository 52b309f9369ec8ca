"""How much is written to the API server, as it counts itself."""

import re
from collections import Counter

import urllib3
from control_plane import KubeClient

_SAMPLE = re.compile(r"^apiserver_request_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}
_REVIEWS = {"tokenreviews", "subjectaccessreviews"}
"""Questions that are asked by POST and write nothing."""


def writes(kube: KubeClient) -> Counter[str]:
    """Requests that write, since the API server was started, by resource (`buschannels/status`)."""
    found: Counter[str] = Counter()
    for labels, value in _SAMPLE.findall(_metrics(kube)):
        label = dict(_LABEL.findall(labels))
        if label.get("verb") in _WRITES and label.get("resource") not in _REVIEWS:
            parts = (label.get("resource", ""), label.get("subresource", ""))
            found["/".join(part for part in parts if part)] += int(float(value))
    return found


def _metrics(kube: KubeClient) -> str:
    answer: urllib3.BaseHTTPResponse = kube.raw("/metrics")
    return answer.data.decode()
