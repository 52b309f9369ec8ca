"""The local cluster's daemons: known by process id and start time, ended only when they are ours."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hack.cluster.console import ClusterError
from hack.cluster.process import Processes, Program, boot_id, start_time


@pytest.fixture
def processes(tmp_path: Path):
    found = Processes(tmp_path / "records", tmp_path / "logs")
    yield found
    for name in found.names():
        found.stop(name, grace_seconds=0)


SLEEPER = Program("sleeper", ["sleep", "600"])


def pid_of(processes: Processes, name: str) -> int:
    record = processes.record(name)
    assert record is not None
    return record.pid


def test_start_and_stop(processes: Processes) -> None:
    assert processes.ensure(SLEEPER)
    pid = pid_of(processes, "sleeper")
    assert processes.running("sleeper")
    assert start_time(pid) is not None

    processes.stop("sleeper")

    assert not processes.running("sleeper")
    assert processes.names() == []
    assert start_time(pid) is None


def test_a_running_daemon_is_left_alone(processes: Processes) -> None:
    processes.ensure(SLEEPER)
    pid = pid_of(processes, "sleeper")

    assert not processes.ensure(SLEEPER)
    assert pid_of(processes, "sleeper") == pid


def test_another_command_replaces_a_daemon(processes: Processes) -> None:
    processes.ensure(SLEEPER)
    before = pid_of(processes, "sleeper")

    assert processes.ensure(Program("sleeper", ["sleep", "601"]))
    assert start_time(before) is None
    assert processes.running("sleeper")


def test_another_configuration_replaces_a_daemon(processes: Processes, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("one")
    program = Program("sleeper", ["sleep", "600"], [config])
    processes.ensure(program)
    before = pid_of(processes, "sleeper")
    assert not processes.ensure(program)

    config.write_text("two")

    assert processes.ensure(program)
    assert pid_of(processes, "sleeper") != before


def test_a_killed_daemon_is_started_again(processes: Processes) -> None:
    processes.ensure(SLEEPER)
    os.kill(pid_of(processes, "sleeper"), signal.SIGKILL)
    processes.wait_until(lambda: not processes.running("sleeper"), "its end", 5)

    assert processes.ensure(SLEEPER)
    assert processes.running("sleeper")


@pytest.mark.parametrize(
    "fields", [{"start_time": 1}, {"boot_id": "another boot"}], ids=["a reused process id", "another boot"]
)
def test_a_stranger_under_our_process_id_is_never_ended(
    processes: Processes, tmp_path: Path, fields: dict[str, object]
) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            identity = {"pid": stranger.pid, "start_time": start_time(stranger.pid), "boot_id": boot_id()}
            records = tmp_path / "records"
            records.mkdir()
            (records / "sleeper.json").write_text(json.dumps({**identity, **fields}))

            assert not processes.running("sleeper")
            processes.stop("sleeper", grace_seconds=0)

            assert processes.names() == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_daemon_that_ignores_the_request_to_end_is_killed(processes: Processes, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    source = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(ready)!r}).touch()
time.sleep(600)
"""
    processes.ensure(Program("stubborn", [sys.executable, "-c", source]))
    processes.wait_until(ready.exists, "the daemon to be ready", 10, needs=["stubborn"])
    pid = pid_of(processes, "stubborn")

    processes.stop("stubborn", grace_seconds=0.1)

    assert start_time(pid) is None


def test_a_daemon_outlives_the_command_that_started_it(processes: Processes, tmp_path: Path) -> None:
    source = f"""
import os, pathlib
from hack.cluster.process import Processes, Program
here = pathlib.Path({str(tmp_path)!r})
Processes(here / "records", here / "logs").ensure(Program("sleeper", ["sleep", "600"]))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", source], check=False)

    assert done.returncode == -signal.SIGKILL
    assert processes.running("sleeper")


def test_waiting_ends_with_the_daemon_and_shows_its_log(processes: Processes) -> None:
    processes.ensure(Program("failing", ["sh", "-c", "echo address already in use >&2; exit 1"]))

    with pytest.raises(ClusterError, match=r"(?s)failing has ended while waiting for it.*address already in use"):
        processes.wait_until(lambda: False, "it", 10, needs=["failing"])
