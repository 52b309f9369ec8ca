"""What `python -m chaos` does around its runs: what it plans, how it measures recovery, what it writes."""

import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from chaos import report
from chaos.__main__ import choose, parse, plan
from chaos.evidence import NotStruckError, latency, published, standstill
from chaos.history import Recorder
from chaos.layout import Layout, merge
from chaos.nemeses.catalog import FAMILIES, NEMESES, combination, find
from chaos.nemeses.nemesis import Nemesis
from chaos.recovery import Watch
from chaos.run import Outcome
from chaos.verdict import Broken, Verdict
from chaos.world import World


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
        watch = Watch([directory / "shop.jsonl", directory / "ledger.jsonl"], [directory / "shop.jsonl"])
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


async def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_bytes(b'{"event":"joined","time":1}\n{"event":"publish",')
    watch = Watch([path], [path])
    with path.open("ab") as file:
        file.write(b'"time":2,"message":"shop-1"}\n{"event":"received","time":3000000001,"message":"shop-1"}\n{"ev')
    assert await watch.delivered(1, 0.0) == {f"{tmp_path.name}/shop": 3.0}


async def test_a_publisher_that_nobody_hears_of_has_not_recovered(tmp_path: Path) -> None:
    with Recorder(tmp_path / "shop.jsonl") as shop, Recorder(tmp_path / "billing.2.jsonl") as billing:
        histories = [tmp_path / "shop.jsonl", tmp_path / "billing.2.jsonl"]
        watch = Watch(histories, histories)
        over = time.monotonic_ns()
        shop.write("publish", "shop-1")
        billing.write("publish", "billing.2-1")
        for process in (shop, billing):
            process.write("received", "shop-1")
        shop.write("received", "billing.2-1")
        delays = await watch.delivered(over, 0.0)
    name = tmp_path.name
    assert delays[f"{name}/shop"] is not None
    assert delays[f"{name}/billing.2"] is None


def test_what_a_fault_did_to_clients_is_read_from_their_histories(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    second = 1_000_000_000
    events = [("publish", 1, 1.0), ("published", 1, 1.5), ("publish", 2, 2.0), ("publish", 3, 2.1), ("failed", 2, 4.0)]
    lines = [
        orjson.dumps({"event": kind, "time": int(when * second), "message": f"shop-{number}"})
        for kind, number, when in [*events, ("published", 3, 5.1), ("publish", 4, 6.0), ("published", 4, 6.1)]
    ]
    path.write_bytes(b"\n".join([*lines, b""]))
    assert standstill([path], 0, 7 * second) == pytest.approx(3.6)
    assert standstill([path], 2 * second, 5 * second) == pytest.approx(3.0)
    assert published([path], 2 * second, 7 * second) == 2
    assert latency([path], 2 * second, 7 * second) == pytest.approx(1.55)
    with pytest.raises(NotStruckError):
        latency([path], 3 * second, 5 * second)


async def test_a_fault_that_did_not_strike_is_noticed(tmp_path: Path) -> None:
    class Idle(Nemesis):
        standstill = 1.0

        async def begin(self, world: World) -> None:
            pass

    class Boasting(Idle):
        standstill = 0.0

    path = tmp_path / "shop.jsonl"
    with Recorder(path) as shop:
        begin = time.monotonic_ns()
        shop.write("publish", "shop-1")
        shop.write("published", "shop-1")
    world: Any = SimpleNamespace(histories=lambda *_: [path])
    second = 1_000_000_000
    assert await Idle().evidence(world, begin, begin + 3 * second) == "nothing published for 3.0 s"
    with pytest.raises(NotStruckError, match="published all the same"):
        await Idle().evidence(world, begin, begin + second // 2)
    with pytest.raises(NotStruckError):
        await Boasting().evidence(world, begin, begin + 3 * second)


def test_a_run_can_be_repeated_alone() -> None:
    nemeses = find("cut+restart")
    chosen = [choose(nemeses, None, random.Random(f"{seed} cut+restart")) for seed in range(30)]
    assert chosen == [choose(nemeses, None, random.Random(f"{seed} cut+restart")) for seed in range(30)]
    assert {each["version"] for each in chosen} == {15, 16, 17, 18}
    assert {each["pipecat"] for each in chosen} == {True, False}
    assert {choose(find("failover-synchronous+cut"), None, random.Random(n))["version"] for n in range(30)} == {15, 18}
    assert choose(nemeses, 15, random.Random(1))["version"] == 15
    assert not any(choose(find("forgotten+restart"), None, random.Random(n))["pipecat"] for n in range(30))
    assert choose(find("restart"), None, random.Random(1)) == {"version": 18, "pipecat": True}


def outcome(**changes: object) -> Outcome:
    verdicts = {durability: Verdict() for durability in ("Sync", "Async", "Unlogged")}
    given: dict[str, object] = {"recovery": {"Sync/shop": 0.2, "Sync/ledger": 1.26}, "verdicts": verdicts}
    return Outcome(("restart",), Layout(), 12.0, **(given | changes))  # type: ignore[arg-type]


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
    page.write_text("before\n<!-- chaos:begin -->\nformer\n<!-- chaos:end -->\nafter\n")
    for _ in range(2):
        report.write_table(page, [outcome()], seed=7)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- chaos:end -->\nafter\n")
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
