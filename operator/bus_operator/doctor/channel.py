"""A channel: whether it is ready, and whether somebody reads what is published."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bus_operator.channel_view import ChannelView, brief_age
from bus_operator.doctor.database import DatabaseLook, key_of, of_conditions
from bus_operator.doctor.findings import Checks, Finding, UnseenError
from bus_operator.peer_view import STALLED_SECONDS, PeerView


@dataclass(frozen=True)
class ChannelFacts:
    """What the checks of a channel judge."""

    view: ChannelView
    look: DatabaseLook | None
    """Into its database; None where nobody could."""
    release: str
    """This version, as `0.1.0`."""
    out_of_reach: bool = False
    """Whether from elsewhere, or with other rights, somebody could look into its database."""
    gone: Collection[str] = ()
    """Pods of which peers may have ended, and that are not in its namespace any more."""

    @property
    def title(self) -> str:
        """What users call it."""
        return f"{self.view.namespace}/{self.view.name}" if self.view.name else str(self.view.channel)

    @property
    def peers(self) -> Sequence[PeerView]:
        """Those of the channel. Raises UnseenError."""
        if self.look is None or self.look.schema_version is None:
            raise UnseenError("its database could not be looked into", out_of_reach=self.out_of_reach)
        return self.look.peers_by_channel.get(self.view.channel or "", ())

    def is_gone(self, peer: PeerView) -> bool:
        """Whether it was not heard of for some time, and its pod is not there any more."""
        return peer.may_have_ended and peer.host in self.gone

    def is_there(self, peer: PeerView) -> bool:
        """Whether it still runs, as far as one can tell."""
        return peer.is_there and not self.is_gone(peer)


CHECKS: Checks[ChannelFacts] = Checks()

DELETING = "Deleting"


@CHECKS.check("ready")
def _ready(facts: ChannelFacts) -> Iterator[Finding]:
    """What the operator says, or the registry."""
    view = facts.view
    if view.reason == DELETING:
        raise UnseenError(view.message)
    told = list(of_conditions(view.conditions, facts.title))
    if not view.is_healthy and view.reason not in {finding.code for finding in told}:
        yield Finding(view.reason, f"{facts.title}: {view.message}")
    yield from told


@CHECKS.check("readers")
def _readers(facts: ChannelFacts) -> Iterator[Finding]:
    """Peers that are stalled, slow or silent, and messages that nobody reads."""
    live = [peer for peer in facts.peers if peer.is_live]
    for peer in live:
        if peer.state != "Stalled" or facts.is_gone(peer):
            continue
        if facts.look is not None and key_of(peer) in facts.look.progressing:
            yield Finding(
                "BacklogGrowing",
                f"{facts.title}: {_named(peer)} is slower than what is published, and behind by {_behind(peer)}: look"
                " at its CPU and its handlers; more peers do not help, since each gets every message",
            )
        elif peer.silent_seconds > STALLED_SECONDS:
            # A live peer may say nothing for as long as a third of peerTimeout.
            yield Finding(
                "PeerStalled",
                f"{facts.title}: {_named(peer)} acknowledges nothing, behind by {_behind(peer)}, and was not heard of"
                f" for {_brief(peer.silent_seconds)}: a handler hangs, or it ended without leaving. If it still runs,"
                " look at its log, or restart it",
            )
        else:
            yield Finding(
                "PeerStalled",
                f"{facts.title}: {_named(peer)} is there and acknowledges nothing, behind by {_behind(peer)}: a handler"
                " hangs, or is tried again for ever; look at its log, or restart it",
            )
    yield from _silent(facts, [peer for peer in live if peer.state == "Silent" or _has_ended(facts, peer)])
    yield from _nobody(facts, live)


def _silent(facts: ChannelFacts, silent: Sequence[PeerView]) -> Iterator[Finding]:
    unnamed = [peer for peer in silent if not peer.durable and not _has_ended(facts, peer)]
    if ended := [peer for peer in silent if not peer.durable and _has_ended(facts, peer)]:
        rest = _brief(max(peer.timeout_seconds - peer.silent_seconds for peer in ended))
        yield Finding(
            "PeerSilent",
            f"{facts.title}: ended without leaving: {_listed(ended, lambda peer: _former(facts, peer))}. It counts"
            f" until peerTimeout is over, for {rest} more, and nothing needs to be done",
            advice=True,
        )
    if unnamed:
        since = _brief(min(peer.silent_seconds for peer in unnamed))
        rest = _brief(max(peer.timeout_seconds - peer.silent_seconds for peer in unnamed))
        yield Finding(
            "PeerSilent",
            f"{facts.title}: not heard of for {since}: {_listed(unnamed)}. What ended without leaving needs nothing: it"
            f" counts no more when peerTimeout is over, within {rest}. What still runs hangs, or does not reach the"
            " database",
            advice=True,
        )
    for peer in silent:
        if peer.durable:
            how = "is gone" if facts.is_gone(peer) else f"was not heard of for {_brief(peer.silent_seconds)}"
            yield Finding(
                "PeerSilent",
                f"{facts.title}: {_named(peer)} {how} and is expected"
                f" back: {_behind(peer) if peer.behind else 'what is published'} is kept for it until peerTimeout is"
                f" over, for {_brief(peer.timeout_seconds - peer.silent_seconds)} more. Start its workload. If it is"
                " never to come back there is nothing to remove: from then on it holds nothing back",
                advice=not peer.behind,
            )


def _has_ended(facts: ChannelFacts, peer: PeerView) -> bool:
    """Whether that is as good as known, so that there is nothing to look at or to restart."""
    return facts.is_gone(peer) or (peer.is_former and peer.state == "Silent")


def _former(facts: ChannelFacts, peer: PeerView) -> str:
    if facts.is_gone(peer) or peer.succeeded_seconds is None:
        return f"pod {peer.host}, which is gone"
    return f"a former process of pod {peer.host} (a later one joined {_brief(peer.succeeded_seconds)} ago)"


def _nobody(facts: ChannelFacts, live: Sequence[PeerView]) -> Iterator[Finding]:
    if live:
        return
    away = [peer for peer in facts.peers if peer.durable and peer.behind]
    unread = facts.look.unread.get(facts.view.channel or "") if facts.look is not None else None
    if away:
        waiting = "; ".join(f"{_named(peer)} by {_behind(peer)}" for peer in away)
        yield Finding(
            "NobodyReads",
            f"{facts.title}: nobody has joined, and messages wait for durable peers that are away: {waiting}. Start"
            " their workload, or drop what is not needed any more with spec.retention",
        )
    elif unread:
        yield Finding(
            "NobodyReads",
            f"{facts.title}: nobody has joined, and {unread} messages are in it that nobody will get, for"
            " whoever joins begins with the next one. Is the workload down, or was it never bound?",
            advice=True,
        )


@CHECKS.check("doorbells")
def _doorbells(facts: ChannelFacts) -> Iterator[Finding]:
    """Pods to which other pods' datagrams do not get through; elsewhere that is nothing to wonder at."""
    deaf = [peer for peer in facts.peers if facts.is_there(peer) and peer.is_deaf and peer.host]
    if deaf:
        yield Finding(
            "DoorbellUnheard",
            f"{facts.title}: {_listed(deaf)} did not hear other peers' doorbells, and had the server notify them"
            " instead, which is slower: does a NetworkPolicy let UDP through between the channel's pods, and does each"
            " advertise its own address (docs/network-policy.md)?",
            advice=True,
        )


@CHECKS.check("credentials in use")
def _credentials(facts: ChannelFacts) -> Iterator[Finding]:
    """Peers with a replaced credential."""
    for peer in facts.peers:
        if facts.is_there(peer) and peer.is_retired:
            yield Finding("CredentialStillUsed", f"{facts.title}: {_named(peer)} {peer.credential_advice}")


@CHECKS.check("versions")
def _versions(facts: ChannelFacts) -> Iterator[Finding]:
    """Runtimes of another release than the schema's."""
    others: dict[str, list[PeerView]] = {}
    for peer in facts.peers:
        library, _, version = (peer.runtime or "").partition("/")
        if facts.is_there(peer) and library == "bus_runtime" and _series(version) != _series(facts.release):
            others.setdefault(version, []).append(peer)
    for version, peers in others.items():
        newer = _series(version) > _series(facts.release)
        remedy = "upgrade the operator first" if newer else "it goes on working; build its image with the newer one"
        yield Finding(
            "VersionSkew",
            f"{facts.title}: {_listed(peers)} run"
            f" bus_runtime {version}, {'newer' if newer else 'older'} than this release, {facts.release}: {remedy}",
            advice=not newer,
        )


def _series(version: str) -> tuple[int, ...]:
    """What may differ without anybody having to care is left out."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _named(peer: PeerView) -> str:
    names = [f"pod {peer.host}" if peer.host else None, f"durable peer {peer.durable!r}" if peer.durable else None]
    return ", ".join(filter(None, names)) or f"a peer ({peer.application or peer.client or 'without a name'})"


def _listed(peers: Sequence[PeerView], called: Callable[[PeerView], str] = _named, most: int = 3) -> str:
    return "; ".join(map(called, peers[:most])) + (f" and {len(peers) - most} more" if len(peers) > most else "")


def _behind(peer: PeerView) -> str:
    return f"{peer.behind} messages, the oldest {_brief(peer.behind_seconds or 0)} old"


def _brief(seconds: float) -> str:
    return brief_age(timedelta(seconds=seconds))
