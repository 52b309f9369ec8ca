"""What must be true, and whether it is: ratios within each round, then their median."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Case, Results
from benchmarks.statistics import Spread, number

Direction = Literal["at least", "at most"]


@dataclass(frozen=True)
class Goal:
    """One requirement.

    Attributes:
        what: The situation; goals of one situation belong together.
        figure: What is compared.
        direction: Whether `bound` is the smallest or the largest good value.
        bound: The value.
        unit: Written after values.
        values: The figure in each round.
    """

    what: str
    figure: str
    direction: Direction
    bound: float
    unit: str
    values: Callable[[Results], list[float]]


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured; None: nothing was."""

    goal: Goal
    measured: Spread | None

    @property
    def met(self) -> bool | None:
        """Whether the median is as good as the bound."""
        if self.measured is None:
            return None
        if self.goal.direction == "at least":
            return self.measured.median >= self.goal.bound
        return self.measured.median <= self.goal.bound

    @property
    def text(self) -> str:
        """`met`, or by how much not."""
        if self.measured is None:
            return "not measured"
        if self.met:
            return "met"
        difference = abs(self.measured.median - self.goal.bound)
        if not self.goal.bound:
            return f"missed by {number(difference)}{self.goal.unit}"
        return f"missed by {difference / self.goal.bound:.0%}"


def evaluate(results: Results) -> list[Verdict]:
    """All goals against what was measured."""
    verdicts = []
    for goal in GOALS:
        values = goal.values(results)
        verdicts.append(Verdict(goal, Spread.of(values) if values else None))
    return verdicts


def _plain(scenario: str, figure: str, case: Case) -> Callable[[Results], list[float]]:
    """The figure itself."""
    return lambda results: list(results.by_round(scenario, figure, **case).values())


def _ratio(scenario: str, over: tuple[str, Case], under: tuple[str, Case]) -> Callable[[Results], list[float]]:
    """The figure of one case divided by that of another, within each round that has both."""

    def values(results: Results) -> list[float]:
        upper = results.by_round(scenario, over[0], **over[1])
        lower = results.by_round(scenario, under[0], **under[1])
        return [upper[n] / lower[n] for n in upper if lower.get(n)]

    return values


def _latency(figure: str, over: str, under: str) -> Callable[[Results], list[float]]:
    return _ratio("latency", (figure, {"system": over}), (figure, {"system": under}))


def _delivered(over: str, under: str, subscribers: int) -> Callable[[Results], list[float]]:
    upper: Case = {"system": over, "subscribers": subscribers, "bytes": 200}
    lower: Case = {"system": under, "subscribers": subscribers, "bytes": 200}
    return _ratio("throughput", ("delivered_per_s", upper), ("delivered_per_s", lower))


def _latency_goals() -> Iterator[Goal]:
    what = "one-way latency idle, Async"
    yield Goal(what, "p50 / RedisBus' p50", "at most", 1.0, "x", _latency("p50_ms", "ours-async", "redis"))
    yield Goal(what, "p99 / RedisBus' p99", "at most", 2.0, "x", _latency("p99_ms", "ours-async", "redis"))
    what = "one-way latency idle, Sync"
    yield Goal(what, "p50 / RedisBus' p50", "at most", 1.5, "x", _latency("p50_ms", "ours-sync", "redis"))
    yield Goal(what, "pipecat Isolated's p50 / p50", "at least", 25, "x", _latency("p50_ms", "isolated", "ours-sync"))


def _throughput_goals() -> Iterator[Goal]:
    for subscribers, times in ((1, 10), (8, 50), (32, 100)):
        peers = f"{subscribers} subscriber{'s' * (subscribers > 1)}"
        what = f"delivered per peer, {peers}, Async"
        redis = _delivered("ours-async", "redis", subscribers)
        yield Goal(what, "/ RedisBus", "at least", 3, "x", redis)
        isolated = _delivered("ours-async", "isolated", subscribers)
        yield Goal(what, "/ pipecat Isolated", "at least", times, "x", isolated)
        redis = _delivered("ours-sync", "redis", subscribers)
        yield Goal(f"delivered per peer, {peers}, Sync", "/ RedisBus", "at least", 2, "x", redis)


def _server_goals() -> Iterator[Goal]:
    what = "16 publisher processes, 64 in flight each, one Sync channel, 5 ms flush"
    case: Case = {"what": "16 publishers, one channel"}
    yield Goal(what, "published", "at least", 2000, "/s", _plain("slow_flush", "published_per_s", case))
    what = "64 Sync channels publishing at once, 5 ms flush"
    channels = "channels, one publish at a time each"
    many: Case = {"what": channels, "channels": 64}
    one: Case = {"what": channels, "channels": 1}
    values = _ratio("slow_flush", ("published_per_s", many), ("published_per_s", one))
    yield Goal(what, "published / one channel", "at least", 5, "x", values)
    figure = "cpu_us_per_publish"
    values = _ratio("publish_cost", (figure, {"peers": 128}), (figure, {"peers": 1}))
    yield Goal("publish cost, 1 to 128 peers", "server CPU per publish, 128 / 1", "at most", 1.5, "x", values)
    what = "300 idle peers of other channels"
    beside: Case = {"idle_peers": 300}
    alone: Case = {"idle_peers": 0}
    values = _ratio("crowd", ("delivered_per_s", beside), ("delivered_per_s", alone))
    yield Goal(what, "throughput / without them", "at least", 0.9, "x", values)
    values = _ratio("crowd", ("p50_ms", beside), ("p50_ms", alone))
    yield Goal(what, "p50 / without them", "at most", 1.2, "x", values)
    values = _plain("thousand", "cpu_percent_of_a_core", {"what": "idle"})
    yield Goal("1,000 idle peers", "server CPU of one core", "at most", 5, "%", values)
    what = "1,000 peers joining at once"
    joining: Case = {"what": "joining"}
    yield Goal(what, "until all have joined", "at most", 5, " s", _plain("thousand", "seconds", joining))
    yield Goal(what, "failed joins", "at most", 0, "", _plain("thousand", "failures", joining))
    yield Goal(what, "changes of the catalog (DDL)", "at most", 0, "", _plain("thousand", "catalog_changes", joining))


def _lasting_goals() -> Iterator[Goal]:
    what = "sustained 5,000 msg/s, 4 peers"
    peers: Case = {"peers": 4}
    yield Goal(what, "published", "at least", 4950, "/s", _plain("soak", "published_per_s", peers))
    yield Goal(what, "received", "at least", 1, "x", _plain("soak", "received_share", peers))
    values = _ratio("soak", ("last_p99_ms", peers), ("first_p99_ms", peers))
    yield Goal(what, "p99, last minute / first minute", "at most", 1.2, "x", values)
    # A log that grows without bound has twice the size in the second half.
    values = _ratio("soak", ("log_peak_second_half_mib", peers), ("log_peak_first_half_mib", peers))
    yield Goal(what, "largest log, second half / first half", "at most", 1.5, "x", values)
    what = "100,000 messages waiting at a stalled subscriber"
    waiting: Case = {"waiting": 100_000}
    yield Goal(what, "growth of the process", "at most", 32, " MiB", _plain("memory", "growth_mib", waiting))
    yield Goal(what, "delivered once it goes on", "at least", 1, "x", _plain("memory", "received_share", waiting))


GOALS = (*_latency_goals(), *_throughput_goals(), *_server_goals(), *_lasting_goals())
