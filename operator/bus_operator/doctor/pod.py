"""A pod: whether it was given the bindings that it asks for, and uses them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bus_operator.doctor.findings import Checks, Finding, UnseenError
from bus_operator.peer_view import PeerView
from bus_operator.pod_requests import CHANNELS_ANNOTATION, LABEL, shown
from bus_operator.pods import Pod, without_runtime

SETTLED = timedelta(minutes=2)
"""How long a pod may take to join: its image is pulled, and its Secret mounted."""

_STUCK = re.compile(r"(^|:)([A-Z]\w*BackOff|ErrImage\w+|InvalidImageName|[A-Z]\w+Error)$")
"""States that do not pass by themselves: CrashLoopBackOff, Init:ImagePullBackOff, CreateContainerConfigError."""


@dataclass(frozen=True)
class PodFacts:
    """What the checks of a pod judge."""

    pod: Pod
    state: str
    """As kubectl prints it: Running, ContainerCreating, CrashLoopBackOff, ..."""
    existing: Collection[str]
    """The BusChannels of its namespace."""
    peers: Sequence[PeerView] | None
    """Those of its channels and of hosts of its name; None where they could not be read."""
    now: datetime
    overlooked: Sequence[str] = ()
    """The BusChannels that it asks for without the label, so that nobody looks at it."""
    unbound: Mapping[str, str] = field(default_factory=dict)
    """The BusChannels of its namespace that have no binding yet, with the Secret that they will write."""
    out_of_reach: bool = False
    """Whether from elsewhere, or with other rights, the peers could have been read."""

    @property
    def title(self) -> str:
        """What users call it."""
        return f"pod {self.pod.namespace}/{self.pod.name}"

    @property
    def own_peers(self) -> list[PeerView]:
        """Those in it that are there. Raises UnseenError."""
        return [peer for peer in self.known_peers if peer.is_there]

    @property
    def known_peers(self) -> list[PeerView]:
        """With those that are not heard of any more, of a former process or of a former pod of its name."""
        if self.peers is None:
            raise UnseenError("the databases of its channels could not be looked into", out_of_reach=self.out_of_reach)
        owners = {f"{self.pod.namespace}/{name}" for name in self.pod.channels}
        return [peer for peer in self.peers if peer.is_live and peer.host == self.pod.name and peer.owner in owners]


CHECKS: Checks[PodFacts] = Checks()


@CHECKS.check("request")
def _request(facts: PodFacts) -> Iterator[Finding]:
    """Without the label, nothing named, or BusChannels that there are not."""
    if facts.overlooked and not facts.pod.injected:
        yield Finding(
            "RequestInvalid",
            f"{facts.title} asks for BusChannel {shown(facts.overlooked)} by the annotation {CHANNELS_ANNOTATION}, and"
            f' nobody looks at it without the label {LABEL}: "true". Add that, in its template if it has one, and'
            " create the pod anew",
        )
    elif not facts.pod.channels and not facts.pod.warnings:
        raise UnseenError("it asks for no BusChannel, and none selects it")
    for warning in facts.pod.warnings:
        yield Finding("RequestInvalid", f"{facts.title}: {warning}")
    if unknown := [name for name in facts.pod.channels if name not in facts.existing]:
        yield Finding(
            "ChannelNotFound",
            f"{facts.title} asks for BusChannel {shown(unknown)}, and there is none in namespace"
            f" {facts.pod.namespace}: create it, or correct the annotation {CHANNELS_ANNOTATION} and recreate the pod",
        )


@CHECKS.check("binding", "request")
def _binding(facts: PodFacts) -> Iterator[Finding]:
    """Created without it."""
    if facts.pod.without and not facts.pod.deleting:
        yield Finding(
            "BindingMissing",
            f"{facts.title} was created without the binding of BusChannel {shown(facts.pod.without)}, as happens while"
            " the webhook cannot be reached, or before a BusChannel selects it: recreate it (kubectl delete pod, or"
            " kubectl rollout restart of what owns it)",
        )
    elif waits := [name for name in facts.pod.channels if name in facts.unbound]:
        # What keeps the operator from writing it is the channel's finding.
        what = "; ".join(
            f"Secret {facts.unbound[name]} is not there yet: see BusChannel {facts.pod.namespace}/{name}"
            for name in waits
        )
        raise UnseenError(what)


@CHECKS.check("runtime", "request")
def _runtime(facts: PodFacts) -> Iterator[Finding]:
    """Asked for and not there."""
    if facts.pod.lacks_runtime and not facts.pod.deleting:
        yield Finding("RuntimeNotInjected", f"{facts.title}: {without_runtime()}")


@CHECKS.check("running", "request", "binding", "runtime")
def _running(facts: PodFacts) -> Iterator[Finding]:
    """Nobody can have joined in one that does not run."""
    if _STUCK.search(facts.state):
        namespace, name = facts.pod.key
        yield Finding(
            "PodNotRunning",
            f"{facts.title} has its bindings and does not run: it is {facts.state}. kubectl describe pod {name} -n"
            f" {namespace} and kubectl logs {name} -n {namespace} --previous say why",
        )
    elif facts.state != "Running":
        raise UnseenError(f"the pod is {facts.state}")


@CHECKS.check("joined", "running")
def _joined(facts: PodFacts) -> Iterator[Finding]:
    """Nobody in it has joined."""
    joined = {peer.owner for peer in facts.own_peers}
    absent = [name for name in facts.pod.channels if f"{facts.pod.namespace}/{name}" not in joined]
    if not absent:
        return
    if facts.now - facts.pod.created <= SETTLED:
        raise UnseenError("the pod is new, and may join yet")
    known = {peer.owner for peer in facts.known_peers}
    was_there = all(f"{facts.pod.namespace}/{name}" in known for name in absent)
    yield Finding(
        "NotJoined",
        f"nobody in {facts.title} {'is heard of any more in' if was_there else 'has joined'} {shown(absent)}: does its"
        " program start a bus, and does it reach the database?"
        f" kubectl exec -n {facts.pod.namespace} {facts.pod.name} -- python -m bus_runtime.doctor",
        advice=True,
    )


@CHECKS.check("credential", "joined")
def _credential(facts: PodFacts) -> Iterator[Finding]:
    """A replaced one."""
    for peer in facts.own_peers:
        if peer.is_retired:
            yield Finding("CredentialStillUsed", f"{facts.title}, a peer of {peer.owner}, {peer.credential_advice}")
