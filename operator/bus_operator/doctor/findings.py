"""Checks, in the order in which they depend on each other, and what comes of them. Pure: no I/O."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Facts = TypeVar("Facts")
State = Literal["ok", "advice", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or that could be better."""

    code: str
    """As docs/errors.md and `busctl explain` explain it."""
    message: str
    """What it is, of which object, and what to do."""
    advice: bool = False
    """Whether everything works all the same."""

    @property
    def explain(self) -> str:
        """The command that says more about it."""
        return f"busctl explain {self.code}"

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape."""
        return {"code": self.code, "message": self.message, "advice": self.advice, "explain": self.explain}


class UnseenError(Exception):
    """A check cannot be made; the text says what is in the way.

    Args:
        reason: That text.
        out_of_reach: Whether it cannot be made from here, or by this user; elsewhere, or by another, it can.
    """

    def __init__(self, reason: str, *, out_of_reach: bool = False) -> None:
        super().__init__(reason)
        self.out_of_reach = out_of_reach


@dataclass(frozen=True)
class Outcome:
    """What came of one check."""

    title: str
    findings: tuple[Finding, ...] = ()
    unseen: str | None = None
    """Why it was not made."""
    out_of_reach: bool = False
    """Whether elsewhere, or by another user, it could have been made."""

    @property
    def state(self) -> State:
        """The worst of its findings."""
        if self.unseen is not None:
            return "skipped"
        if any(not finding.advice for finding in self.findings):
            return "failed"
        return "advice" if self.findings else "ok"

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape."""
        findings = [finding.as_json for finding in self.findings]
        return {"title": self.title, "state": self.state, "notLookedAt": self.unseen, "findings": findings}


@dataclass(frozen=True)
class Examined:
    """One object, and all that was looked at of it."""

    kind: str
    name: str
    """With its namespace, where it has one."""
    outcomes: Sequence[Outcome]

    @property
    def state(self) -> State:
        """The worst; what was not looked at alone is no finding."""
        states = {outcome.state for outcome in self.outcomes}
        return next((state for state in ("failed", "advice", "skipped") if state in states), "ok")

    @property
    def out_of_reach(self) -> int:
        """How many checks could not be made from here."""
        return sum(outcome.out_of_reach for outcome in self.outcomes)

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape."""
        namespace, _, name = self.name.rpartition("/")
        checks = [outcome.as_json for outcome in self.outcomes]
        return {
            "kind": self.kind,
            "namespace": namespace or None,
            "name": name,
            "state": self.state,
            "checks": checks,
        }


@dataclass(frozen=True)
class _Check(Generic[Facts]):
    title: str
    needs: tuple[str, ...]
    run: Callable[[Facts], Iterable[Finding]]


class Checks(Generic[Facts]):
    """The checks of one kind of object, in order."""

    def __init__(self) -> None:
        self._checks: list[_Check[Facts]] = []

    def check(
        self, title: str, *needs: str
    ) -> Callable[[Callable[[Facts], Iterable[Finding]]], Callable[[Facts], Iterable[Finding]]]:
        """Registers a function that yields findings, or raises UnseenError.

        Args:
            title: What is looked at.
            needs: Titles of checks before, without whose success this one means nothing.
        """

        def register(run: Callable[[Facts], Iterable[Finding]]) -> Callable[[Facts], Iterable[Finding]]:
            self._checks.append(_Check(title, needs, run))
            return run

        return register

    def examine(self, facts: Facts) -> list[Outcome]:
        """What all of them find."""
        outcomes: dict[str, Outcome] = {}
        for check in self._checks:
            broken = next((need for need in check.needs if outcomes[need].state in ("failed", "skipped")), None)
            if broken is None:
                outcomes[check.title] = _made(check, facts)
            else:
                lost = outcomes[broken].out_of_reach
                outcomes[check.title] = Outcome(check.title, unseen=f"because of {broken}", out_of_reach=lost)
        return list(outcomes.values())


def _made(check: _Check[Facts], facts: Facts) -> Outcome:
    try:
        return Outcome(check.title, tuple(check.run(facts)))
    except UnseenError as exc:
        return Outcome(check.title, unseen=str(exc), out_of_reach=exc.out_of_reach)
