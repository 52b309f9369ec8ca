"""What a channel's login tries, and what the answers mean. Pure: no I/O.

A forbidden attempt is proved forbidden when PostgreSQL refuses it for want of a privilege. Every other answer is named:
an attempt that succeeds is a hole, and one that fails in another way has proved nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bus_operator import naming, render, sql

SUCCEEDED = "BUS00"
"""What probes/run.sql reports for a statement that did not fail."""

REFUSED = "42501"
"""insufficient_privilege."""

_PASSING = ("08", "40", "53", "54", "55", "57", "58")
"""Classes of errors that say something about the moment: connections, conflicts, limits, locks, a server that stops."""


@dataclass(frozen=True)
class Subject:
    """Whom the attempts are aimed at."""

    channel: str
    queue: str
    role: str
    other_queue: str | None
    other_role: str | None
    """Another channel of the same database, if there is one; its name is not needed, and would be seen by the login."""
    administrator: str
    database: str
    is_alive: bool

    def names(self, login: str) -> dict[str, str]:
        """What the placeholders of the probes stand for."""
        publish, read = naming.channel_functions(self.queue)
        names = {
            "channel": render.literal(self.channel),
            "login": render.identifier(login),
            "own_publish": render.identifier(publish),
            "own_read": render.identifier(read),
            "own_log": render.log_table(self.queue),
            "own_archive": render.identifier(f"a_{self.queue}"),
            "own_sequence": render.log_sequence(self.queue),
            "administrator": render.identifier(self.administrator),
            "database": render.identifier(self.database),
        }
        if self.other_queue is not None and self.other_role is not None:
            publish, read = naming.channel_functions(self.other_queue)
            names |= {
                "other_publish": render.identifier(publish),
                "other_read": render.identifier(read),
                "other_log": render.log_table(self.other_queue),
                "other_role": render.identifier(self.other_role),
            }
        return names


@dataclass(frozen=True)
class Probe:
    """One attempt."""

    name: str
    title: str
    """What succeeding would mean: a completion of "it could ..."."""
    statement: str


def attempts(subject: Subject, login: str) -> list[Probe]:
    """All that must be refused."""
    names = subject.names(login)
    alone = subject.other_queue is None
    return [
        Probe(name, title, render.probe(statement, names))
        for name, title, statement in sql.denied_probes()
        if not (alone and "{{other_" in statement)
    ]


def allowed(subject: Subject, login: str) -> str | None:
    """What a peer does; None while even trying that would leave a trace."""
    return render.probe(sql.allowed_probe(), subject.names(login)) if subject.is_alive else None


@dataclass(frozen=True)
class Verdict:
    """What the attempts have shown."""

    refused: int = 0
    """How many were refused as they should be."""
    succeeded: tuple[Probe, ...] = ()
    broken: str | None = None
    """Why what is allowed does not work."""
    unclear: str | None = None
    """Why nothing was shown this time."""

    @property
    def reason(self) -> str:
        """The cause in one CamelCase word: `MayReadPeers`; Verified, or Unclear."""
        if self.succeeded:
            return "May" + "".join(part.capitalize() for part in self.succeeded[0].name.split("_"))
        if self.broken is not None:
            return "AllowedCallFailed"
        return "Unclear" if self.unclear is not None else "Verified"

    @property
    def message(self) -> str:
        """What was shown, and what to do about it."""
        if self.succeeded:
            return (
                f"the channel's login could {'; '.join(probe.title for probe in self.succeeded)}: take back what was"
                " granted to it, to its roles or to PUBLIC"
            )
        if self.broken is not None:
            return f"the channel's login cannot do what a peer does: {self.broken}"
        return self.unclear or ""


def judge(probes: Sequence[Probe], answers: Sequence[tuple[str, str]], peer: tuple[str, str] | None) -> Verdict:
    """The verdict on SQLSTATEs and messages.

    Args:
        probes: What was tried.
        answers: What came of each.
        peer: What came of the allowed calls, if they were made.
    """
    succeeded = tuple(probe for probe, (state, _) in zip(probes, answers, strict=True) if state == SUCCEEDED)
    odd = [
        f"it could not be shown that it cannot {probe.title}: {message} (SQLSTATE {state})"
        for probe, (state, message) in zip(probes, answers, strict=True)
        if state not in (SUCCEEDED, REFUSED)
    ]
    broken = unclear = None
    if peer is not None and peer[0] != SUCCEEDED:
        text = f"{peer[1]} (SQLSTATE {peer[0]})"
        if peer[0].startswith(_PASSING):
            unclear = text
        else:
            broken = text
    if odd:
        unclear = "; ".join(odd)
    return Verdict(len(probes) - len(succeeded) - len(odd), succeeded, broken, unclear)
