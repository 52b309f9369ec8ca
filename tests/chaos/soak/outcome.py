"""What came of a soak, and whether that is what was promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.recovery import GOAL
from chaos.soak.capacity import Step
from chaos.soak.control import Activity
from chaos.soak.flatness import MEBIBYTE, MEMORY, Allowance, Trend, trend
from chaos.soak.pages import Account
from chaos.soak.plan import Plan
from chaos.soak.samples import Series
from chaos.soak.world import Quiet

#: Of tables, in bytes: autovacuum lets them have some room, and faults leave dead rows.
_TABLES = Allowance(0.10, 16 * MEBIBYTE)

#: What is judged of whom, and how much of it may come on top.
_JUDGED: Mapping[str, tuple[tuple[str, Allowance], ...]] = {
    "runtime": (("private", MEMORY),),
    "pipecat": (),
    "operator": (("private", MEMORY),),
    "server": (
        ("private", MEMORY),
        ("logs_bytes", _TABLES),
        ("registry_bytes", _TABLES),
        ("catalog_bytes", _TABLES),
    ),
}

#: Seconds of a load after which something can be said of each kind.
_LONG_ENOUGH = 1200.0


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault, and what came after it.

    Attributes:
        name: Which.
        at: Seconds from the beginning of the load.
        recovery: Seconds from its end until each process was delivered to, or the operator was at work; None: never.
        error: What was not as it should be.
        within: Seconds that it may be at most.
    """

    name: str
    at: float
    recovery: Mapping[str, float | None] = field(default_factory=dict)
    error: str = ""
    within: float = GOAL

    @property
    def slowest(self) -> float | None:
        """Seconds until the last one; None: there was none, or it never came to that."""
        delays = [delay for delay in self.recovery.values() if delay is not None]
        return max(delays) if delays and len(delays) == len(self.recovery) else None

    @property
    def problem(self) -> str:
        """What is wrong with it; empty: nothing."""
        late = [name for name, delay in self.recovery.items() if delay is None or delay > self.within]
        return self.error or (f"not within {self.within:.0f} s: {', '.join(late)}" if late else "")


@dataclass(slots=True)
class Outcome:
    """All that was measured.

    Attributes:
        plan: What was wanted.
        steps: On the way to the maximum.
        seconds: How long the load lasted.
        wanted: Messages a second during the load: half of the maximum.
        published: What really was published during it.
        account: What the checker said.
        strikes: The faults.
        evidence: What showed that faults of the data plane struck.
        quiets: The quiet moments.
        activity: Of the control plane.
        series: What was looked at, over time.
        cpu: Seconds of processor time, by whom.
        leaks: What was left over, or missing.
        checked: What was counted for that, at the end.
        errors: What should not have happened.
        interrupted: Whether it was ended early.
    """

    plan: Plan
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    wanted: float = 0.0
    published: int = 0
    account: Account = field(default_factory=Account)
    strikes: list[Strike] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    quiets: list[Quiet] = field(default_factory=list)
    activity: Activity = field(default_factory=Activity)
    series: Sequence[Series] = ()
    cpu: Mapping[str, float] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def maximum(self) -> float:
        """The most messages a second that were sustained."""
        return max((step.published for step in self.steps if step.sustained), default=0.0)

    def trends(self) -> dict[tuple[str, str], Trend]:
        """What became of what, for all that lived long enough to tell: by series and by what was looked at."""
        found = {}
        for series in self.series:
            for what, allowance in _JUDGED[series.kind]:
                became = trend(series.values["seconds"], series.values[what], allowance)
                if became is not None:
                    found[series.name, what] = became
        return found

    def problems(self) -> list[str]:
        """All that is not as promised."""
        found = [*self.errors]
        found += [f"{broken} ({count})" for broken, count in self.account.broken.items()]
        found += [
            f"{strike.name} after {strike.at:.0f} s: {strike.problem}" for strike in self.strikes if strike.problem
        ]
        found += [f"stuck: {stuck}" for stuck in self.activity.stuck]
        found += [f"left over: {leak}" for leak in self.leaks]
        trends = self.trends()
        found += [
            f"grows: {what} of {name}, by {became.growth / MEBIBYTE:.1f} MiB in {became.seconds / 60:.0f} min "
            f"({became.low / MEBIBYTE:.1f} to {became.high / MEBIBYTE:.1f}, allowed {became.allowed / MEBIBYTE:.1f})"
            for (name, what), became in trends.items()
            if not became.flat
        ]
        kinds = {series.name: series.kind for series in self.series}
        judged = {kinds[name] for name, _ in trends}
        if self.seconds >= _LONG_ENOUGH:
            missing = {kind for kind, what in _JUDGED.items() if what} - judged
            found += [f"nothing can be said of the memory of: {kind}" for kind in sorted(missing)]
        return found
