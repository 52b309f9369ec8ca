"""Why this process cannot use its channel: `python -m bus_runtime.doctor` does what a bus does, step by step, and says.

Each step needs those before it; where one fails, the others are not looked at, and nothing is said to be wrong with
them. It joins as a peer without a name, reads and publishes nothing, and leaves: nobody else notices.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bus_runtime._version import __version__
from bus_runtime.address import ADDRESS_VARIABLE, advertised_ip
from bus_runtime.backend import JoinOptions
from bus_runtime.binding import Binding, find_binding
from bus_runtime.connection import Database, is_direct
from bus_runtime.doorbell import open_doorbell
from bus_runtime.driver import DRIVER_ERRORS, connect_error
from bus_runtime.errors import POOLER_IN_TRANSACTION_MODE, BusError, UnavailableError
from bus_runtime.isolated import IsolatedPgmqBackend

#: Codes of what only this module finds.
HOST_NOT_FOUND = "HostNotFound"
NO_ROUTE = "NoRoute"
DOORBELL_UNHEARD = "DoorbellUnheard"

#: Seconds until packets that nobody answers count as lost.
ROUTE_TIMEOUT = 3.0
#: Seconds within which a datagram to this host itself is heard, if it is at all.
RING_TIMEOUT = 1.0

State = Literal["ok", "advice", "failed", "skipped"]

_MARKS: dict[State, str] = {"ok": "✓", "advice": "!", "failed": "✗", "skipped": "–"}  # noqa: RUF001
_NOT_ONE_HOST = "the uri of the binding does not name one host: the login says more"
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one step.

    Attributes:
        title: Which.
        state: `advice`: it works, and could work better.
        message: What was found, and what to do about it.
        code: Of what is wrong, as docs/errors.md explains it.
    """

    title: str
    state: State
    message: str
    code: str | None = None


class StepError(BusError):
    """What only this module finds out."""


class AdviceError(StepError):
    """It works all the same."""


async def examine(name: str | None = None, *, root: str | Path | None = None) -> list[Step]:
    """Goes through the steps; arguments as those of `find_binding`. Raises nothing."""
    steps: list[Step] = []
    failed: str | None = None
    async with AsyncExitStack() as stack:
        examination = _Examination(name, root, stack)
        for title, action in examination.steps():
            if failed is not None:
                steps.append(Step(title, "skipped", f"not looked at, because of {failed}"))
                continue
            try:
                steps.append(Step(title, "ok", await action()))
            except AdviceError as error:
                steps.append(Step(title, "advice", error.message, error.code))
            except BusError as error:
                steps.append(Step(title, "failed", error.message, error.code))
                failed = title
    return steps


class _Examination:
    """The steps, and what one leaves for the next."""

    def __init__(self, name: str | None, root: str | Path | None, stack: AsyncExitStack) -> None:
        self._name = name
        self._root = root
        self._stack = stack
        self._binding: Binding | None = None
        self._database: Database | None = None
        self._ip: str | None = None

    def steps(self) -> Sequence[tuple[str, Callable[[], Awaitable[str]]]]:
        return (
            ("binding", self._find),
            ("host name", self._resolve),
            ("route", self._reach),
            ("login", self._log_in),
            ("pooler", self._notice_pooler),
            ("channel", self._join),
            ("doorbell", self._ring),
        )

    @property
    def binding(self) -> Binding:
        assert self._binding is not None  # noqa: S101 - the first step
        return self._binding

    @property
    def database(self) -> Database:
        assert self._database is not None  # noqa: S101 - the step before
        return self._database

    async def _find(self) -> str:
        self._binding = binding = find_binding(self._name, root=self._root)
        generation = f", generation {binding.generation} of the credentials" if binding.generation else ""
        return f"{binding.directory}: channel {binding.channel!r}{generation}"

    async def _resolve(self) -> str:
        if self.binding.server is None:
            return _NOT_ONE_HOST
        host, port = self.binding.server
        if host.startswith("/"):
            return f"a socket on this host: {host}"
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise StepError(
                f"{host} is not found: {exc}. Does a NetworkPolicy let this process ask the DNS, and is the host of"
                " the BusDatabase's Secret, or its spec.clientEndpoint, what pods can resolve?",
                code=HOST_NOT_FOUND,
            ) from exc
        return f"{host} is {', '.join(dict.fromkeys(str(address[4][0]) for address in found))}"

    async def _reach(self) -> str:
        if self.binding.server is None:
            return _NOT_ONE_HOST
        host, port = self.binding.server
        began = time.monotonic()
        if host.startswith("/"):
            return "no network in between"
        try:
            async with asyncio.timeout(ROUTE_TIMEOUT):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as exc:
            raise _unreachable(self.binding, exc) from exc
        writer.close()
        return f"port {port} answers in {(time.monotonic() - began) * 1000:.0f} ms"

    async def _log_in(self) -> str:
        self._database = Database(binding=self.binding)
        self._stack.push_async_callback(self._database.close)
        rows = await self._database.fetch(
            "select session_user::text as login, current_setting('server_version') as server"
        )
        self._ip = await self._database.local_ip()
        return f"as {rows[0]['login']}, PostgreSQL {rows[0]['server'].split()[0]}"

    async def _notice_pooler(self) -> str:
        async with self.database.connection() as first:
            try:
                if await is_direct(first):
                    return "none"
                async with self.database.connection() as second:
                    shared = await hands_sessions_around(first, second)
            except (UnavailableError, *DRIVER_ERRORS):
                return "one; whether it is in session mode could not be found out"
        if shared:
            raise AdviceError(
                "one in transaction mode: it works; statements take more round trips, and nothing can be listened to."
                " Its session mode, or the server itself, is quicker",
                code=POOLER_IN_TRANSACTION_MODE,
            )
        return "one in session mode"

    async def _join(self) -> str:
        backend = IsolatedPgmqBackend(binding=self.binding)
        channel = self.binding.channel
        options = JoinOptions(
            application="bus_runtime doctor", host=os.environ.get("HOSTNAME"), runtime=f"bus_runtime/{__version__}"
        )
        try:
            membership = await backend.join_channel(channel, options)
            await backend.leave_channel(channel, membership.queue, forget=True)
        finally:
            await backend.close()
        return f"joined {channel!r} as a peer, and left; the last message is {membership.head or membership.position}"

    async def _ring(self) -> str:
        if os.environ.get(ADDRESS_VARIABLE, "on").strip().lower() in ("", "off"):
            return f"switched off by {ADDRESS_VARIABLE}: new messages are listened or looked for"
        ip = advertised_ip(self._ip)
        heard = asyncio.Event()
        mine = open_doorbell(ip, lambda *_: heard.set(), lambda: None)
        hand = open_doorbell(ip, lambda *_: None, lambda: None)
        if mine is None or hand is None:
            raise AdviceError(
                f"none can be had at {ip or os.environ.get(ADDRESS_VARIABLE)}: new messages are listened or looked for",
                code=DOORBELL_UNHEARD,
            )
        try:
            key = secrets.token_bytes(32)
            mine.set_roster(key, ())
            hand.set_roster(key, (mine.address,))
            hand.ring(1, 1)
            async with asyncio.timeout(RING_TIMEOUT):
                await heard.wait()
        except TimeoutError:
            raise AdviceError(
                f"what this host sends to itself at {ip} is not heard, so other peers are not either: new messages are"
                f" listened or looked for. Is {ADDRESS_VARIABLE} this pod's address, and does a NetworkPolicy let UDP"
                " through?",
                code=DOORBELL_UNHEARD,
            ) from None
        finally:
            mine.close()
            hand.close()
        return f"heard at {ip}; whether other pods' datagrams arrive, a NetworkPolicy may decide otherwise"


async def hands_sessions_around(first: Any, second: Any) -> bool:
    """Whether what stands before the server is in transaction mode: an idle client has lent its session to another.

    Args:
        first: A connection through it.
        second: Another one.
    """
    # Poolers hand out the session that was used last; others may have taken it meanwhile.
    for _ in range(5):
        if await _process(first) == await _process(second):
            return True
    return False


async def _process(connection: Any) -> int:
    """The server's process that ran this, without a name that would meet others' in its session."""
    async with connection.transaction():
        statement = await connection.prepare("select pg_backend_pid()", name="")
        return int(await statement.fetchval())


def _unreachable(binding: Binding, exc: OSError) -> BusError:
    if isinstance(exc, TimeoutError) or exc.errno in _UNREACHABLE:
        return StepError(
            f"{binding.address} does not answer: packets get lost on the way. Most often a NetworkPolicy, a security"
            " group or a firewall does not let this process reach it",
            code=NO_ROUTE,
        )
    return connect_error(exc, binding)


def report(steps: Sequence[Step]) -> str:
    """The steps as text, a line each."""
    width = max(len(step.title) for step in steps)
    return "\n".join(
        f"{_MARKS[step.state]} {step.title:{width}}  {step.message}{f' [{step.code}]' if step.code else ''}"
        for step in steps
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit status: 0 the bus can be used, 1 it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m bus_runtime.doctor", description="Find out why this process cannot use its channel."
    )
    parser.add_argument("binding", nargs="?", help="name of the BusChannel; not needed where there is one binding")
    parser.add_argument("--root", type=Path, help="the directory of bindings; default: SERVICE_BINDING_ROOT")
    parser.add_argument("-o", "--output", choices=["json"], help="print JSON")
    options = parser.parse_args(arguments)
    steps = asyncio.run(examine(options.binding, root=options.root))
    if options.output == "json":
        shown = [{"title": s.title, "state": s.state, "code": s.code, "message": s.message} for s in steps]
        print(json.dumps({"steps": shown}, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        print(report(steps))  # noqa: T201
    return 1 if any(step.state == "failed" for step in steps) else 0


if __name__ == "__main__":
    sys.exit(main())
