"""Stands before a server, and lets connections through, keeps silent or refuses them, as a test or a benchmark says."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from postgres import free_port

OPEN, SILENT, CLOSED = "open", "silent", "closed"


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
                there = asyncio.create_task(self._pass_on(reader, inner_writer))
                back = asyncio.create_task(self._pass_on(inner_reader, writer))
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

    def _start(self) -> None:
        self._thread.start()
        self.become(OPEN)

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
    made._start()
    try:
        made.become(mode)
        yield made
    finally:
        made._stop()
