"""What `python -m chaos` does around its runs: what it plans, how it measures recovery, what it writes."""

import random
import time
from pathlib import Path

import orjson
import pytest
from chaos import report
from chaos.__main__ import parse, plan
from chaos.history import Recorder
from chaos.layout import Layout, merge
from chaos.nemeses.catalog import FAMILIES, NEMESES, combination, find
from chaos.recovery import Watch
from chaos.run import Outcome
from chaos.verdict import Broken, Verdict


def test_each_nemesis_has_a_name_of_its_own_and_says_what_it_is() -> None:
    assert len(NEMESES) == sum(len(family) for family in FAMILIES.values())
    assert len({nemesis.title for nemesis in NEMESES.values()}) == len(NEMESES)


def test_all_strike_alone_and_then_together() -> None:
    planned = list(plan(None, 40, random.Random(1)))
    assert [nemeses[0] for nemeses in planned if len(nemeses) == 1] == list(NEMESES.values())
    together = planned[len(NEMESES) :]
    assert len(together) == 40
    assert all(2 <= len(nemeses) <= 3 for nemeses in together)
    assert together == list(plan(None, 40, random.Random(1)))[len(NEMESES) :]


def test_what_strikes_together_breaks_different_things() -> None:
    for seed in range(200):
        nemeses = combination(random.Random(seed))
        touched = [what for nemesis in nemeses for what in nemesis.touches.split()]
        assert len(touched) == len(set(touched))
        merge(nemesis.layout for nemesis in nemeses)


@pytest.mark.parametrize("names", ["nonsense", "restart+nonsense", "restart+server-killed", "long-outage+cut", ""])
def test_what_cannot_strike_is_refused(names: str) -> None:
    with pytest.raises(ValueError, match=r"nemesis|together"):
        find(names)


def test_some_can_be_chosen() -> None:
    wanted = parse(["--only", "cut+restart,refused"])
    assert list(plan(wanted.only, wanted.rounds, random.Random(1))) == [find("cut+restart"), find("refused")]


def test_layouts_that_contradict_each_other_do_not_merge() -> None:
    assert merge([Layout(clock=True), Layout(disk=5)], version=15) == Layout(clock=True, disk=5, version=15)
    with pytest.raises(ValueError, match="standby"):
        merge([Layout(standby="synchronous"), Layout(standby="asynchronous")])


async def test_recovery_is_measured_by_what_was_published_after_the_fault(tmp_path: Path) -> None:
    directory = tmp_path / "Sync"
    directory.mkdir()
    with Recorder(directory / "shop.jsonl") as shop, Recorder(directory / "ledger.jsonl") as ledger:
        shop.write("publish", "shop-1")
        watch = Watch([directory / "shop.jsonl", directory / "ledger.jsonl"])
        shop.write("publish", "shop-2")
        over = time.monotonic_ns()
        for message in ("shop-1", "shop-2"):
            shop.write("received", message)
            ledger.write("received", message)
        shop.write("publish", "shop-3")
        shop.write("received", "shop-3")
        assert (await watch.delivered(over, 0.0))["Sync/ledger"] is None
        ledger.write("received", "shop-3")
        delays = await watch.delivered(over, 0.0)
    assert set(delays) == {"Sync/shop", "Sync/ledger"}
    assert all(delay is not None and 0 < delay < 60 for delay in delays.values())


def outcome(**changes: object) -> Outcome:
    verdicts = {durability: Verdict() for durability in ("Sync", "Async", "Unlogged")}
    given: dict[str, object] = {"recovery": {"Sync/shop": 0.2, "Sync/ledger": 1.26}, "verdicts": verdicts}
    return Outcome(("restart",), 12.0, **(given | changes))  # type: ignore[arg-type]


def test_an_outcome_is_good_if_all_was_kept_and_in_time() -> None:
    assert outcome()
    assert not outcome(recovery={"Sync/shop": 10.1})
    assert not outcome(recovery={"Sync/shop": None})
    assert not outcome(error="RuntimeError: no")
    broken = outcome()
    broken.verdicts["Sync"].add(Broken.LOST, "it is gone")
    assert not broken
    assert "it is gone" in str(broken)


def test_results_replace_those_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nformer\n{report.END}\nafter\n")
    for _ in range(2):
        report.write_table(page, [outcome()], seed=7)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "former" not in text
    cells = " | ".join(["0, none missed"] * 3)
    assert text.count(f"| PostgreSQL restarted (fast shutdown) | {cells} | 1.3 s |") == 1
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no place"):
        report.write_table(page, [outcome()], seed=7)


def test_results_are_written_as_json() -> None:
    written = orjson.loads(report.to_json([outcome(), outcome(error="no")], seed=7))
    assert [run["error"] for run in written["runs"]] == ["", "no"]
    assert written["runs"][0]["recovery_seconds"] == {"Sync/shop": 0.2, "Sync/ledger": 1.26}
