"""Stands before a server, and lets connections through, keeps silent or refuses them, as a test or a benchmark says."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from postgres import free_port

OPEN, SILENT, CLOSED = "open", "silent", "closed"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gateway:
    """A port of loopback; a thread of its own serves it.

    `open` passes everything on to the target. `silent` accepts connections and lets nothing through, neither for new
    ones nor for those that are there, as a server does that hangs or a network that swallows packets. `closed` ends all
    connections and refuses new ones, as a server does that is down.
    """

    def __init__(self, target: int | None) -> None:
        self.port = free_port()
        self.connections = 0
        """How many were accepted so far."""
        self._target = target
        self._mode = OPEN
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def become(self, mode: str) -> None:
        """For all connections, present and future; returns when it is so."""
        asyncio.run_coroutine_threadsafe(self._become(mode), self._loop).result(10)

    async def _become(self, mode: str) -> None:
        self._mode = mode
        if mode == CLOSED:
            if self._server is not None:
                self._server.close()
                self._server = None
            for writer in tuple(self._writers):
                writer.transport.abort()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1000)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self._target is None or self._mode != OPEN:
                await self._swallow(reader)
                return
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(inner_writer)
            try:
                one, other = self._ways((reader, writer), (inner_reader, inner_writer))
                there, back = asyncio.create_task(one), asyncio.create_task(other)
                await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
                there.cancel()
                back.cancel()
            finally:
                self._writers.discard(inner_writer)
                inner_writer.close()
        except (OSError, asyncio.CancelledError):
            # Cancelled at the end of the test: asyncio's own callback trips over a connection's task that says so.
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _ways(self, client: Streams, server: Streams) -> tuple[Coroutine[Any, Any, None], Coroutine[Any, Any, None]]:
        """What passes on the one way and the other, until one of them ends."""
        return self._pass_on(client[0], server[1]), self._pass_on(server[0], client[1])

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._mode != OPEN:
                    await self._swallow(reader)
                    return
                writer.write(data)
                await writer.drain()

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It is open, until the block ends."""
        self._thread.start()
        self.become(OPEN)
        try:
            yield
        finally:
            self._stop()

    def _stop(self) -> None:
        self.become(CLOSED)
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def gateway(target: int | None, mode: str = OPEN) -> Iterator[Gateway]:
    """A gateway to a port of loopback; without a target it can only be silent or closed."""
    made = Gateway(target)
    with made.running():
        made.become(mode)
        yield made
