"""What is measured: a command from its start to its end, or to the line that says that it has begun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_BUSCTL = Path(sys.executable).parent / "busctl"
_INTERVAL = 0.1
"""Seconds for which `top` measures; they are not counted."""


@dataclass(frozen=True)
class Command:
    """What is typed.

    Attributes:
        name: What the table says.
        arguments: After `busctl`; CHANNEL stands for the name of a channel, MANIFEST for that of a file with a new one.
        until: It has answered when this is in a line of standard error; None: when it has ended.
        waits: Seconds that it is asked to wait; they are not counted.
        statuses: Those of a run that counts. 3: something would change. 130: interrupted.
    """

    name: str
    arguments: tuple[str, ...]
    until: str | None = None
    waits: float = 0.0
    statuses: tuple[int, ...] = (0,)


ALL = (
    Command("--help", ("--help",)),
    Command("status", ("status",)),
    Command("status CHANNEL", ("status", "CHANNEL")),
    Command("peers", ("peers",)),
    Command("peers CHANNEL", ("peers", "CHANNEL")),
    Command("top", ("top", "--once", "--interval", str(_INTERVAL)), waits=_INTERVAL),
    Command("tail CHANNEL", ("tail", "CHANNEL"), until="following ", statuses=(130,)),
    # It finds in the cluster that there is no operator.
    Command("doctor", ("doctor",), statuses=(0, 1)),
    Command("doctor CHANNEL", ("doctor", "CHANNEL"), statuses=(0, 1)),
    Command("plan -f FILE", ("plan", "-f", "MANIFEST"), statuses=(3,)),
)


@dataclass(frozen=True)
class Cost:
    """What one run took, in seconds: by the clock, and of processors of busctl and of each server."""

    wall: float
    client: float
    servers: Mapping[str, float]


class CommandFailedError(Exception):
    """It was not done, so its time says nothing."""


def measure(
    command: Command,
    places: Mapping[str, str],
    environment: Mapping[str, str],
    server_seconds: Callable[[], Mapping[str, float]],
) -> Cost:
    """Runs it once.

    Args:
        command: Which.
        places: What stands for the words in capitals.
        environment: Where it reads.
        server_seconds: Processor time of the servers until now.

    Raises:
        CommandFailedError: Its exit status is that of a failure.
    """
    before = server_seconds()
    arguments = [places.get(argument, argument) for argument in command.arguments]
    begun = time.monotonic()
    process = subprocess.Popen(
        [_BUSCTL, *arguments], env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = ""
    if command.until is not None:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if command.until in line:
                break
        wall = time.monotonic() - begun
        process.send_signal(signal.SIGINT)
    used = os.times()
    rest = process.communicate()
    if command.until is None:
        wall = time.monotonic() - begun
    after = os.times()
    if process.returncode not in command.statuses:
        raise CommandFailedError(f"busctl {' '.join(arguments)}: {said}{''.join(rest)[-2000:]}")
    # Of children that have been waited for: there was one.
    client = after.children_user - used.children_user + after.children_system - used.children_system
    servers = {name: seconds - before[name] for name, seconds in server_seconds().items()}
    return Cost(wall - command.waits, client, servers)
