"""The parts of the soak that decide: what is flat, what is left over, what is broken; and the report."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from chaos import kubernetes
from chaos.history import Recorder
from chaos.nemeses.server import Restarted
from chaos.report import replace
from chaos.soak import report
from chaos.soak.capacity import Search, Step, rates
from chaos.soak.flatness import MEBIBYTE, Allowance, slope, trend
from chaos.soak.inventory import Inventory
from chaos.soak.outcome import Outcome, Strike
from chaos.soak.pages import Account
from chaos.soak.plan import Plan, deck, next_fault, possible
from chaos.soak.samples import Series, Subject, look_at
from chaos.soak.world import PROMISES

TIMES = [10.0 * number for number in range(361)]


def noisy(level: float, noise: float, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [level + rng.gauss(0, noise) for _ in TIMES]


def test_the_slope_is_that_of_most_points() -> None:
    times = [float(number) for number in range(20)]
    values = [2 * time + 5 for time in times]
    assert slope(times, values) == (2, 2, 2)
    # A few that are far off change it by nothing.
    values[3], values[11] = 1000, -1000
    assert slope(times, values)[0] == 2


def test_of_one_point_there_is_no_slope() -> None:
    with pytest.raises(ValueError, match="two points"):
        slope([1.0], [1.0])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.1, 2.0])
def test_what_stays_is_flat(noise: float, seed: int) -> None:
    became = trend(TIMES, noisy(40 * MEBIBYTE, noise * MEBIBYTE, seed))
    assert became is not None
    assert became.flat
    assert became.seconds == 1800
    assert became.allowed == 4 * MEBIBYTE


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.1, 2.0])
def test_what_leaks_is_not(noise: float, seed: int) -> None:
    """Six mebibytes in half an hour."""
    values = [
        value + 6 * MEBIBYTE / 1800 * time for time, value in zip(TIMES, noisy(40e6, noise * 1e6, seed), strict=True)
    ]
    became = trend(TIMES, values)
    assert became is not None
    assert not became.flat
    assert became.low <= became.growth <= became.high


def test_warming_up_and_peaks_are_no_leak() -> None:
    warm = [20 * MEBIBYTE + min(time, 900) / 900 * 30 * MEBIBYTE for time in TIMES]
    peaks = [value + (25 * MEBIBYTE if number % 6 == 0 else 0) for number, value in enumerate(warm)]
    became = trend(TIMES, peaks)
    assert became is not None
    assert became.flat
    assert abs(became.growth) < 1


def test_a_leak_beneath_a_saw_is_found() -> None:
    values = [40 * MEBIBYTE + (time % 300) / 300 * MEBIBYTE + time / 1800 * 8 * MEBIBYTE for time in TIMES]
    became = trend(TIMES, values)
    assert became is not None
    assert not became.flat


def test_what_cannot_be_told_is_not_flat() -> None:
    became = trend(TIMES, noisy(40 * MEBIBYTE, 100 * MEBIBYTE))
    assert became is not None
    assert not became.flat


@pytest.mark.parametrize("count", [0, 1, 30, 80])
def test_of_a_short_time_nothing_is_said(count: int) -> None:
    assert trend(TIMES[:count], [1.0] * count) is None


def test_more_is_allowed_to_what_is_large() -> None:
    assert Allowance(0.05, 4).of(1000) == 50
    assert Allowance(0.05, 4).of(10) == 4


def test_the_maximum_is_closed_in_on() -> None:
    tried: list[float] = []
    search = Search(first=100, factor=2, halvings=3)
    tried.extend(rates(search, lambda rate: rate <= 500))
    assert tried == [100, 200, 400, 800, 600, 500, 550]


def test_a_rate_that_not_all_keep_up_with_is_not_sustained() -> None:
    assert Step(1000, 990, 0.99).sustained
    assert not Step(1000, 900, 1.0).sustained
    assert not Step(1000, 1000, 0.8).sustained


def test_all_faults_strike_before_one_does_again() -> None:
    faults = possible()
    assert len(faults) > 25
    first = list(islice(deck(faults, random.Random(3)), len(faults)))
    assert Counter(first) == Counter(faults)
    assert first == list(islice(deck(faults, random.Random(3)), len(faults)))


def test_the_operator_is_not_ended_late() -> None:
    cards = iter([kubernetes.operator_killed, kubernetes.webhook_down, Restarted])
    assert next_fault(cards, 0.2) is kubernetes.operator_killed
    assert next_fault(cards, 0.9) is Restarted


def test_what_is_left_over_is_named() -> None:
    before = Inventory({"roles": Counter(a=1, b=1), "queues": Counter()})
    after = Inventory({"roles": Counter(a=2), "queues": Counter(q=1)})
    assert before.beyond(before) == []
    assert after.beyond(before) == ["roles: 1 too many of a", "roles: 1 too few of b", "queues: 1 too many of q"]


def test_pages_add_up() -> None:
    account = Account()
    for page in (0, 1):
        verdict = {"tally": {"published": 5, "received": 15}, "broken": {"lost": 2}, "violations": ["it is gone"]}
        account.add(page, {"seconds": 0.5, "verdicts": {"Sync": verdict, "Async": verdict}})
    assert account.pages == 2
    assert account.published == {0: 10, 1: 10}
    assert account.total("received") == 60
    assert account.broken == {"lost": 8}
    assert account.violations[0] == "page 0, Sync: it is gone"


def test_a_broken_page_is_told_by_the_process_that_checks(tmp_path: Path) -> None:
    for channel in PROMISES:
        (tmp_path / channel).mkdir()
    with Recorder(tmp_path / next(iter(PROMISES)) / "shop.jsonl") as recorder:
        recorder.write("opened", process="shop", channel="orders", client="bus_runtime")
        recorder.write("joining", peer=None, acknowledge="on_handled", in_hand=1000)
        recorder.write("joined")
        recorder.write("received", "from-nowhere")
    command = [sys.executable, "-m", "chaos.soak.checking", tmp_path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment).stdout
    account = Account()
    account.add(0, json.loads(said))
    assert list(account.broken.values()) == [1]
    assert "from-nowhere" in account.violations[0]


def test_a_process_is_looked_at(tmp_path: Path) -> None:
    before = look_at(Subject("self", "runtime", os.getpid(), 3))
    assert before is not None
    with (tmp_path / "file").open("w"):
        after = look_at(Subject("self", "runtime", os.getpid(), 3))
    assert after is not None
    assert after["files"] == before["files"] + 1
    assert after["tasks"] == 3
    assert 0 < after["private"] <= after["resident"]


def outcome(grown: float = 0.0) -> Outcome:
    series = []
    for kind in ("runtime", "operator", "server"):
        made = Series(kind, kind)
        for time in TIMES:
            seen = dict.fromkeys(("private", "logs_bytes", "registry_bytes", "catalog_bytes"), 30.0 * MEBIBYTE)
            made.add(time, seen | {"private": 30.0 * MEBIBYTE + grown * time / 1800 * MEBIBYTE})
        series.append(made)
    found = Outcome(Plan(seed=7), [Step(1000, 1000, 1.0), Step(1500, 1200, 0.9)], seconds=3600, published=1_750_000)
    found.account.tally = {"Sync": {"published": 1_750_000, "received": 5_250_000}}
    found.strikes = [Strike("restart", 60.0, {"orders/shop": 1.5, "orders/ledger": 2.5})]
    found.series = series
    return found


def test_a_good_outcome_has_no_problems() -> None:
    assert outcome().problems() == []
    assert "486 messages/s, 49% of that" in report.table(outcome())
    assert "slowest delivery again | 2.5 s" in report.table(outcome())


def test_growth_is_a_problem() -> None:
    problems = outcome(grown=6.0).problems()
    assert [problem.split(",")[0] for problem in problems] == [
        f"grows: private of {kind}" for kind in ("runtime", "operator", "server")
    ]


def test_every_problem_is_told() -> None:
    found = outcome()
    found.errors.append("the operator ended by itself")
    found.account.broken["lost"] = 1
    found.strikes.append(Strike("cut", 90.0, {"orders/shop": 11.0}))
    found.strikes.append(Strike("silent", 95.0, {"orders/shop": None}))
    found.activity.stuck.append("channel churn-3")
    found.leaks.append("1 sessions of bus_login_x")
    assert len(found.problems()) == 6
    assert "**Not as promised:**" in report.table(found)


def test_memory_that_nobody_looked_at_is_a_problem() -> None:
    found = outcome()
    found.series = []
    assert found.problems() == [
        f"nothing can be said of the memory of: {kind}" for kind in ("operator", "runtime", "server")
    ]


def test_the_report_is_whole(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- soak:begin -->\nold\n<!-- soak:end -->\nafter\n")
    replace(page, report.NAME, report.table(outcome()))
    assert page.read_text().startswith("before\n<!-- soak:begin -->\nOne run with seed 7")
    assert page.read_text().endswith("|\n<!-- soak:end -->\nafter\n")
    assert b'"flat": true' in report.to_json(outcome())
