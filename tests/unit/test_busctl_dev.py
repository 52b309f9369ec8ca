"""The parts of `busctl dev` that need no server."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from recorder import eventually

from bus_operator.cli import messages
from bus_operator.cli.dev import files, leftovers, programs
from bus_operator.cli.dev.workers import commands
from bus_operator.cli.printing import Printer
from bus_operator.errors import BusError, SpecError, StartError
from bus_runtime import BusEndMessage, JSONMessageSerializer


def test_names_of_workers() -> None:
    texts = [
        "python -u shop/worker.py --fast",
        "python -m shop.billing",
        "uv run python worker.py",
        "./bin/run.sh",
        "celery -A x",
    ]
    assert [command.name for command in commands(texts, ["env", "A=1", "python", "main.py"])] == [
        "worker.1", "billing", "worker.2", "run", "celery", "main",
    ]  # fmt: skip
    (alone,) = commands([], ["python", "a b.py"])
    assert (alone.arguments, alone.takes_input, str(alone)) == (("python", "a b.py"), True, "python 'a b.py'")


@pytest.mark.parametrize("text", ["", "python 'worker.py"])
def test_commands_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="--worker"):
        commands([text], [])


def test_a_message_is_shown_in_one_line() -> None:
    payload = JSONMessageSerializer().serialize(BusEndMessage(source="main", target=None, reason="über\x1b[2J\n"))
    message = messages.read(7, payload)
    assert (message.short_type, message.type) == ("BusEndMessage", "pipecat.bus.messages.BusEndMessage")
    assert (message.route, message.body) == ("main → all", {"reason": "über\x1b[2J\n"})
    assert message.shortened(200) == '{"reason":"über\\u001b[2J\\n"}'
    assert message.shortened(12) == '{"reason":"…'


@pytest.mark.parametrize(
    "payload", [b"[1, 2]", b'"text"', b'{"a": 1e400}', b'{"__type__": 1, "__data__": {}}', b"null"]
)
def test_json_that_is_no_bus_message(payload: bytes) -> None:
    message = messages.read(1, payload)
    assert (message.type, message.short_type, message.route) == (None, "-", "")
    assert message.body == json.loads(payload)


class Stuck(io.StringIO):
    """A terminal that takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.asked = threading.Event()

    def write(self, text: str) -> int:
        self.asked.set()
        self.released.wait()
        return super().write(text)


async def test_a_terminal_that_takes_nothing() -> None:
    """Lines are left out, counted, and told of where they are missing; some are never left out."""
    terminal = Stuck()
    printer = Printer(terminal, skipped=lambda count: f"{count} missing", capacity=25)
    assert printer.offer("0123456789")
    await eventually(terminal.asked.is_set)
    assert [printer.offer(f"line {n:05d}") for n in range(1, 5)] == [True, False, False, False]
    printer.offer("important", always=True)
    terminal.released.set()
    await printer.put("waited for")
    await printer.close()
    assert terminal.getvalue().splitlines() == ["0123456789", "line 00001", "3 missing", "important", "waited for"]
    assert printer.skipped == 3


async def test_nobody_reads_any_more() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    os.close(reading)
    printer = Printer(stream)
    printer.offer("line")
    await eventually(printer.gone.is_set)
    await printer.put("line")
    await printer.close()
    stream.close()


def test_manifests_of_a_folder(tmp_path: Path) -> None:
    """Files of others are left alone, whatever is in them."""
    (tmp_path / "chart.yaml").write_text("{{ no yaml")
    (tmp_path / "deep").mkdir()
    (tmp_path / "notes.md").write_text("apiVersion: pgmqbus.dev/v1alpha1")
    ours = "apiVersion: pgmqbus.dev/v1alpha1\nkind: BusChannel\nmetadata: {name: orders}\n"
    (tmp_path / "bus.yml").write_text(ours)
    assert files.manifest_files([tmp_path]) == [tmp_path / "bus.yml"]
    assert [str(channel) for channel in files.manifests([tmp_path], "shop").channels] == ["BusChannel shop/orders"]
    (tmp_path / "bus.yml").unlink()
    with pytest.raises(BusError, match=r"there is no BusChannel in .* write bus.yaml: (.*)") as told:
        files.manifests([tmp_path], "shop")
    (tmp_path / "bus.yaml").write_text(str(told.value).partition("write bus.yaml: ")[2])
    assert len(files.manifests([tmp_path], "shop").channels) == 1


def test_code_that_is_watched(tmp_path: Path) -> None:
    for name in ("main.py", "shop/a.py", "venv/lib/b.py", ".hidden/c.py", "shop/__pycache__/d.py", "shop/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    assert sorted(files.code_files(tmp_path)) == [tmp_path / "main.py", tmp_path / "shop" / "a.py"]


def test_recovering_ends_only_what_was_started(tmp_path: Path) -> None:
    """A process that has a noted number and is another one is left alone."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours, others = (subprocess.Popen(sleep, start_new_session=True) for _ in range(2))
    noted = [
        {"pid": ours.pid, "kind": "worker", "started": leftovers.started(ours.pid)},
        {"pid": others.pid, "kind": "worker", "started": "before the last boot"},
    ]
    (tmp_path / "run.json").write_text(json.dumps({"busctl": 1, "processes": noted}))
    (tmp_path / "run").mkdir()
    threading.Thread(target=ours.wait).start()
    try:
        assert leftovers.recover(tmp_path)
        assert ours.wait(1) == -15
        assert others.poll() is None
        assert list(tmp_path.iterdir()) == []
        assert not leftovers.recover(tmp_path)
    finally:
        others.kill()
        others.wait()


def test_a_link_to_something_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "precious")
    leftovers.remove_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def write_programs(directory: Path, version: str) -> Path:
    directory.mkdir()
    (directory / "initdb").touch()
    (directory / "postgres").write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
    (directory / "postgres").chmod(0o755)
    return directory


def test_which_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert programs.find(write_programs(tmp_path / "15", "15.10")).major == 15
    with pytest.raises(StartError, match=r"PostgreSQL 14\.2 .* is older than 15: pip install '\.\[dev\]'"):
        programs.find(write_programs(tmp_path / "14", "14.2"))
    monkeypatch.setattr(programs, "_places", lambda: [tmp_path / "14", tmp_path / "15"])
    assert programs.find(None).version == "15.10"
    monkeypatch.setattr(programs, "_places", list)
    with pytest.raises(StartError, match=r"there is no PostgreSQL here: pip install '\.\[dev\]'"):
        programs.find(None)
