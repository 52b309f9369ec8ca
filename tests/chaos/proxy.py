"""A TCP proxy that stands between clients and a server, and breaks what passes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from bus_operator.render import TRANSPORT_SETTINGS

#: Towards the server, or towards the client.
Direction = Literal["up", "down"]

_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_CHUNK = 65536

#: How a client whose machine is gone is noticed: as the server would, whose own socket leads to this proxy.
_KEEPALIVES = {
    socket.TCP_KEEPIDLE: "tcp_keepalives_idle",
    socket.TCP_KEEPINTVL: "tcp_keepalives_interval",
    socket.TCP_KEEPCNT: "tcp_keepalives_count",
}


@dataclass(eq=False, slots=True)
class _Pair:
    """A client's connection and the server's.

    Attributes:
        port: The client's.
        writers: By the direction that they write in.
        aside: It came by the side door.
        left: Bytes after which it is cut; None: it is not.
    """

    port: int
    writers: dict[Direction, asyncio.StreamWriter]
    aside: bool
    left: int | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        """Reset both connections: what was not sent yet is lost."""
        for writer in self.writers.values():
            writer.transport.abort()


class Proxy:
    """Listens on two ports of loopback: by which of them clients come makes a difference only where it is asked for.

    Args:
        target: The port of loopback that connections are passed on to. May be changed: for connections from then on.

    Attributes:
        port: Where it listens.
        side_port: The side door.
        delay: Seconds that everything takes longer, in each direction.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.side_port = 0
        self.delay = 0.0
        self._servers: list[asyncio.Server] = []
        self._pairs: set[_Pair] = set()
        self._silenced: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._silent = False
        self._cut_within: tuple[random.Random, int] | None = None
        self._cut_in_between = 0
        self._flows = {(way, aside): asyncio.Event() for way in _DIRECTIONS for aside in (False, True)}
        self.thaw()

    @property
    def client_ports(self) -> list[int]:
        """The clients' ends of the connections there are."""
        return [pair.port for pair in self._pairs]

    def cut(self, *, only_aside: bool = False) -> int:
        """Reset all connections, or those of the side door; how many there were."""
        pairs = [pair for pair in self._pairs if pair.aside or not only_aside]
        for pair in pairs:
            pair.abort()
        for writer in tuple(self._silenced):
            writer.transport.abort()
        return len(pairs)

    def cut_within(self, rng: random.Random, count: int) -> None:
        """Reset each connection, also each that is made from now on, within so many more bytes, whoever sends them."""
        self._cut_within, self._cut_in_between = (rng, count), 0
        for pair in self._pairs:
            pair.left = rng.randrange(count)

    def cut_no_more(self) -> int:
        """Connections last again; how many were cut."""
        self._cut_within = None
        for pair in self._pairs:
            pair.left = None
        return self._cut_in_between

    def freeze(self, *directions: Direction, only_aside: bool = False) -> None:
        """Hold back what is sent in these directions, or by the side door. It is not lost."""
        for (direction, aside), flow in self._flows.items():
            if direction in directions and (aside or not only_aside):
                flow.clear()

    def thaw(self) -> None:
        """Pass on what was held back."""
        for flow in self._flows.values():
            flow.set()

    def silence(self) -> None:
        """Accept connections and never answer: those that were accepted meanwhile not afterwards either."""
        self._silent = True

    def speak(self) -> None:
        """Serve new connections."""
        self._silent = False

    async def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        while self._servers:
            self._servers.pop().close()
        self.cut()

    async def listen(self) -> None:
        """Accept connections, at the same ports as before."""
        if not self._servers:
            self._servers = [
                await asyncio.start_server(self._accept, "127.0.0.1", port, backlog=1000)
                for port in (self.port, self.side_port)
            ]
            self.port, self.side_port = (server.sockets[0].getsockname()[1] for server in self._servers)

    async def close(self) -> None:
        """End everything."""
        await self.refuse()
        self.thaw()
        while self._serving:
            # Also those that were still connecting to the server.
            self.cut()
            await asyncio.wait(self._serving, timeout=0.1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        _keep_alive(writer)
        try:
            await self._serve(reader, writer)
        finally:
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._silent:
            self._silenced.add(writer)
            with contextlib.suppress(OSError):
                while await reader.read(_CHUNK):
                    pass
            self._silenced.discard(writer)
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        aside = writer.get_extra_info("sockname")[1] == self.side_port
        pair = _Pair(writer.get_extra_info("peername")[1], {"up": server_writer, "down": writer}, aside)
        if self._cut_within is not None:
            rng, count = self._cut_within
            pair.left = rng.randrange(count)
        self._pairs.add(pair)
        pair.tasks = [
            asyncio.create_task(self._pass_on(pair, reader, "up")),
            asyncio.create_task(self._pass_on(pair, server_reader, "down")),
        ]
        try:
            # An end of one direction ends the other: neither PostgreSQL nor its clients half-close.
            await asyncio.wait(pair.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pair.tasks:
                task.cancel()
            await asyncio.gather(*pair.tasks, return_exceptions=True)
            for end in pair.writers.values():
                end.close()
            self._pairs.discard(pair)

    async def _pass_on(self, pair: _Pair, reader: asyncio.StreamReader, direction: Direction) -> None:
        writer = pair.writers[direction]
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flows[direction, pair.aside].wait()
                if pair.left is not None:
                    pair.left -= len(data)
                    if pair.left < 0:
                        # The beginning of it arrives, as when a machine dies in the middle of a message.
                        writer.write(data[: pair.left])
                        await writer.drain()
                        pair.abort()
                        self._cut_in_between += 1
                        return
                writer.write(data)
                await writer.drain()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, setting in _KEEPALIVES.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, int(TRANSPORT_SETTINGS[setting]))


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy before a port of loopback, which is gone afterwards."""
    made = Proxy(target)
    await made.listen()
    try:
        yield made
    finally:
        await made.close()
