"""Processor time of a PostgreSQL server: of the postmaster and all its children, those included that have ended."""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int | str) -> list[str]:
    """The fields after the name, which may hold spaces: proc(5) counts them from 3."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _running_seconds(pid: int | str) -> float:
    """Of one process. To the nanosecond where the kernel says so: hundreds of sessions would each lose up to a tick."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / _TICKS


def server_seconds(postmaster: int) -> float:
    """Seconds of processor time, user and system, since the server was started."""
    fields = _stat(postmaster)
    ended = (int(fields[13]) + int(fields[14])) / _TICKS
    total = _running_seconds(postmaster) + ended
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if int(_stat(entry.name)[1]) == postmaster:
                total += _running_seconds(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def share_of_a_core(postmaster: int, seconds: float) -> float:
    """What the server uses of one core during the next `seconds`."""
    before = server_seconds(postmaster)
    time.sleep(seconds)
    return (server_seconds(postmaster) - before) / seconds
