"""A pod: whether it was given the bindings that it asks for, and uses them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus_operator.doctor.findings import Checks, Finding, UnseenError
from bus_operator.peer_view import PeerView
from bus_operator.pod_requests import CHANNELS_ANNOTATION, shown
from bus_operator.pods import Pod, without_runtime

SETTLED = timedelta(minutes=2)
"""How long a pod may take to join: its image is pulled, and its Secret mounted."""


@dataclass(frozen=True)
class PodFacts:
    """What the checks of a pod judge."""

    pod: Pod
    phase: str | None
    """Pending, Running, ...; None where only its metadata was read."""
    existing: Collection[str]
    """The BusChannels of its namespace."""
    peers: Sequence[PeerView] | None
    """Those of its channels and of hosts of its name; None where they could not be read."""
    now: datetime

    @property
    def title(self) -> str:
        """What users call it."""
        return f"pod {self.pod.namespace}/{self.pod.name}"

    @property
    def own_peers(self) -> list[PeerView]:
        """Those in it that are alive. Raises UnseenError."""
        if self.peers is None:
            raise UnseenError("the databases of its channels could not be looked into")
        owners = {f"{self.pod.namespace}/{name}" for name in self.pod.channels}
        return [peer for peer in self.peers if peer.is_live and peer.host == self.pod.name and peer.owner in owners]


CHECKS: Checks[PodFacts] = Checks()


@CHECKS.check("request")
def _request(facts: PodFacts) -> Iterator[Finding]:
    """Nothing named, or BusChannels that there are not."""
    for warning in facts.pod.warnings:
        yield Finding("RequestInvalid", f"{facts.title}: {warning}")
    if unknown := [name for name in facts.pod.channels if name not in facts.existing]:
        yield Finding(
            "ChannelNotFound",
            f"{facts.title} asks for BusChannel {shown(unknown)}, and there is none in namespace"
            f" {facts.pod.namespace}: create it, or correct the annotation {CHANNELS_ANNOTATION} and recreate the pod",
        )


@CHECKS.check("binding")
def _binding(facts: PodFacts) -> Iterator[Finding]:
    """Created without it."""
    if facts.pod.without and not facts.pod.deleting:
        yield Finding(
            "BindingMissing",
            f"{facts.title} was created without the binding of BusChannel {shown(facts.pod.without)}, as happens while"
            " the webhook cannot be reached, or before a BusChannel selects it: recreate it (kubectl delete pod, or"
            " kubectl rollout restart of what owns it)",
        )


@CHECKS.check("runtime")
def _runtime(facts: PodFacts) -> Iterator[Finding]:
    """Asked for and not there."""
    if facts.pod.lacks_runtime and not facts.pod.deleting:
        yield Finding("RuntimeNotInjected", f"{facts.title}: {without_runtime()}")


@CHECKS.check("joined", "request", "binding", "runtime")
def _joined(facts: PodFacts) -> Iterator[Finding]:
    """Nobody in it has joined."""
    peers = facts.own_peers
    if not facts.pod.channels:
        return
    joined = {peer.owner for peer in peers}
    absent = [name for name in facts.pod.channels if f"{facts.pod.namespace}/{name}" not in joined]
    if absent and facts.now - facts.pod.created > SETTLED and facts.phase in (None, "Running", "Pending"):
        yield Finding(
            "NotJoined",
            f"nobody in {facts.title} has joined {shown(absent)}: does its program start a bus, and does it reach the"
            f" database? kubectl exec -n {facts.pod.namespace} {facts.pod.name} -- python -m bus_runtime.doctor",
            advice=True,
        )


@CHECKS.check("credential", "joined")
def _credential(facts: PodFacts) -> Iterator[Finding]:
    """A replaced one."""
    for peer in facts.own_peers:
        if peer.is_retired:
            yield Finding(
                "CredentialStillUsed",
                f"{facts.title} uses generation {peer.credential} of the credentials of {peer.owner}, which was"
                " replaced, and ends with the overlap: restart it before",
            )
