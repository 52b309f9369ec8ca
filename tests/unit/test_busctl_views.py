"""What busctl makes of what it reads: channels, peers, rates, differences, statements of a plan."""

import contextlib
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus_operator import channel_view
from bus_operator.cli.output import Cell, Column, Style, print_pieces, table_lines
from bus_operator.cluster_plan import differences
from bus_operator.dry_run import Recorder
from bus_operator.peer_view import SILENT_FRACTION, STALLED_SECONDS, PeerView
from bus_operator.throughput import Sample, rate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172799, "47h"), (172800, "2d")],
)
def test_ages(seconds: int, text: str) -> None:
    assert channel_view.brief_age(timedelta(seconds=seconds)) == text


def body(**changed: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "fine", "observedGeneration": 3}
    metadata = {"namespace": "shop", "name": "orders", "generation": 3} | changed.pop("metadata", {})
    return {"metadata": metadata, "status": {"conditions": [ready]}} | changed


@pytest.mark.parametrize(
    ("changed", "ready", "reason"),
    [
        ({}, "True", "Ready"),
        ({"metadata": {"generation": 4}}, "Unknown", "NotReconciledYet"),
        ({"status": {}}, "Unknown", "NotReconciledYet"),
        ({"status": {"database": {"name": "main"}}}, "Unknown", "NotReconciledYet"),
        ({"metadata": {"deletionTimestamp": "now"}}, "False", "Deleting"),
    ],
)
def test_readiness_of_a_resource(changed: dict[str, Any], ready: str, reason: str) -> None:
    view = channel_view.from_resource(body(**changed))
    assert (view.ready, view.reason, view.is_healthy) == (ready, reason, ready == "True")


PEER = PeerView(
    channel="shop.orders", owner="shop/orders", host="web-0", application=None, durable=None, runtime=None,
    is_foreign=False, generation=2, is_retired=False, wake="doorbell", is_deaf=False, behind=0,
    behind_seconds=None, last_seen=NOW, silent_seconds=1.0, joined_at=NOW, timeout_seconds=600.0,
    is_live=True, redelivered=0, lost=0,
)  # fmt: skip


def test_states_of_a_peer() -> None:
    late = replace(PEER, behind=5, behind_seconds=STALLED_SECONDS + 1)
    assert (PEER.state, late.state, replace(late, is_live=False).state) == ("Ok", "Stalled", "Away")
    assert replace(PEER, behind=5, behind_seconds=1.0).state == "Ok"
    # A peer that runs calls each third of peerTimeout, and what it notes may be a tenth old.
    heard, silent = [replace(late, silent_seconds=600.0 * part) for part in (1 / 3 + 1 / 10, SILENT_FRACTION)]
    assert (heard.state, heard.is_there, silent.state, silent.is_there) == ("Stalled", True, "Silent", False)
    assert (replace(PEER, silent_seconds=300.0).state, replace(silent, is_live=False).state) == ("Silent", "Away")
    # A later process of its pod: whoever keeps up is there all the same.
    succeeded = replace(late, silent_seconds=31.0, succeeded_seconds=20.0)
    assert (succeeded.state, replace(succeeded, silent_seconds=1.0).state) == ("Silent", "Stalled")
    assert (replace(succeeded, behind=0, behind_seconds=None).state, succeeded.is_former) == ("Ok", True)
    assert (PEER.behind_text, late.behind_text) == ("0", "5 (31s)")
    assert (replace(PEER, is_retired=True).credential, replace(PEER, generation=None).credential) == (
        "2 (retired)", "ended",
    )  # fmt: skip


def sample(at: float, published: int, **acknowledged: int) -> Sample:
    peers = {int(peer[1:]): position for peer, position in acknowledged.items()}
    return Sample(("db", 1), "shop.orders", "shop/orders", at, published, peers, 0, None)


def test_rates() -> None:
    first = sample(10.0, 100, p1=90, p2=100)
    assert (rate(None, first).published, rate(None, first).delivered) == (None, None)
    # p3 joined at the head, which is no delivery; p2 has left.
    second = rate(first, sample(12.0, 140, p1=130, p3=140))
    assert (second.published, second.delivered) == (20.0, 20.0)
    assert second.as_json["publishedPerSecond"] == 20.0
    # A registry that was made anew counts from zero.
    anew = rate(first, sample(12.0, 3, p1=3))
    assert (anew.published, anew.delivered) == (0, 0)
    assert rate(first, sample(9.0, 140)).published is None


def test_differences_are_told_field_by_field() -> None:
    before = {"limits": {"maxPeers": 64}, "durability": "Sync"}
    after = {"limits": {"maxPeers": 128, "maxConnections": 3}, "durability": "Sync"}
    assert list(differences(before, after, "spec")) == [
        "spec.limits.maxConnections from nothing to 3", "spec.limits.maxPeers from 64 to 128",
    ]  # fmt: skip


async def test_a_recorder_keeps_what_is_not_rolled_back() -> None:
    recorder = Recorder(None)
    async with recorder.transaction():
        await recorder.execute("SELECT 1")
    savepoint = recorder.transaction()
    await savepoint.start()
    await recorder.execute("SELECT 2")
    await savepoint.rollback()
    with contextlib.suppress(RuntimeError):
        async with recorder.transaction():
            await recorder.execute("SELECT 3")
            raise RuntimeError
    await recorder.execute("ALTER ROLE x PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$a:b'", "SCRAM-SHA-256$4096:x$y:z", 5)
    first, last = recorder.statements
    assert first.text == "SELECT 1"
    assert (last.text, last.arguments) == ("ALTER ROLE x PASSWORD 'SCRAM-SHA-256$...'", ("SCRAM-SHA-256$...", 5))


def test_tables_are_plain_and_command_no_terminal() -> None:
    columns = (Column("NAME"), Column("COUNT", right=True), Column("MORE", wide=True))
    rows: list[list[Cell]] = [["ordérs", 5, None], [("evil\x1b[2J\nname", "red"), None, "x"]]
    assert table_lines(columns, rows) == [
        "NAME            COUNT",
        "ordérs              5",
        "evil\ufffd[2J\ufffdname       -",
    ]
    assert table_lines(columns, [["注文", 1, "m"]], wide=True) == ["NAME   COUNT   MORE", "注文       1   m"]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (30, "  ✗ readers  Stalled: it is\n      there and reads nothing\n"),
        (80, "  ✗ readers  Stalled: it is there and reads nothing\n"),
    ],
)
def test_a_finding_is_indented_where_a_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, shown: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    monkeypatch.setenv("NO_COLOR", "1")
    pieces: list[str | tuple[str, Style]] = ["  ", ("✗", "red"), " readers  ", ("Stalled", "red")]
    print_pieces(*pieces, ": it is there and reads nothing", indent=6)
    assert capsys.readouterr().out == shown


def test_a_command_to_paste_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((30, 24)))
    command = "kubectl exec -n pgmq-bus deploy/pgmq-bus -- busctl doctor -n shop"
    print_pieces("  it cannot be reached from here. The operator reaches it: ", command, indent=6)
    assert capsys.readouterr().out.splitlines()[-1] == f"      {command}"
