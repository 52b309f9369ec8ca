"""What a process costs, from proc(5)."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, of all its threads since it was started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mebibytes(pid: int) -> tuple[float, float]:
    """What is resident now, and at most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = {
        name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value
    }
    return kibibytes["VmRSS"] / 1024, kibibytes["VmHWM"] / 1024
