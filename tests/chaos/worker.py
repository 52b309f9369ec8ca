"""A process that publishes and subscribes with a real client, and writes down what it did and was told.

    python -m chaos.worker --history FILE --binding ROOT [--peer NAME] [--publish-rate N] [--acknowledge MODE] ...

It writes the line `ready` when it has joined. On SIGUSR1 it publishes no more and goes on receiving; when all it had
begun to publish has an outcome, it writes the line `quiet`. With `--relay`, SIGUSR2 has all rings of its doorbell lost,
and `DELIVER` has them arrive again. On SIGTERM it leaves the channel and ends with status 0. When its place is taken
by another process it ends with status 3.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import asyncpg
from chaos.history import Recorder
from chaos.promises import Acknowledge, Client
from relay import Network, block, deliver

from bus_runtime import BusJobUpdateRequestMessage, BusSubscriber, PgmqBus, PublishError, find_binding, log_peer
from bus_runtime.doorbell import open_doorbell
from bus_runtime.stats import BusStats

REFUSED = 3

#: A signal with a higher number than SIGUSR2: who was stopped meanwhile gets both, in the order of their numbers.
DELIVER = signal.SIGRTMIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a worker does.

    Attributes:
        history: File to append its history to.
        binding: Directory of bindings, as `SERVICE_BINDING_ROOT` names it.
        channel_binding: The binding to use, where there are several.
        process: Name in the history; each start of a worker has its own.
        peer: Durable name, or None.
        client: Which client to use.
        acknowledge: When `bus_runtime` acknowledges.
        publish_rate: Messages a second; 0: none.
        outstanding: How many publishes do not wait for each other.
        payload_bytes: Size of what a message carries.
        handle_seconds: How long its handler takes.
        max_in_flight: Messages that its subscriber may hold.
        publish_timeout: Seconds that a publish is tried again while the server certainly did not take it.
        relay: Whether its doorbell is rung through something that can lose rings.
    """

    history: Path
    binding: Path
    process: str
    channel_binding: str | None = None
    peer: str | None = None
    client: Client = "bus_runtime"
    acknowledge: Acknowledge = "on_handled"
    publish_rate: float = 0.0
    outstanding: int = 8
    payload_bytes: int = 100
    handle_seconds: float = 0.0
    max_in_flight: int = 1000
    publish_timeout: float = 30.0
    relay: bool = False

    def arguments(self) -> list[str]:
        """The same as a command line."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return [
            text
            for name, value in given.items()
            if value is not None and value is not False
            for text in (f"--{name.replace('_', '-')}", *(() if value is True else (str(value),)))
        ]


class NotPublishedError(Exception):
    """A message was certainly not published."""


class OutcomeUnknownError(Exception):
    """Nobody can tell whether a message was published."""


class Bus(ABC):
    """One of the clients, with the little of it that a worker needs.

    Args:
        options: What to do with it.
        recorder: Where to write down what it delivers and tells.
        stop: Called when it should be stopped, because its place is another's.
    """

    def __init__(self, options: Options, recorder: Recorder, stop: Callable[[], None]) -> None:
        self.options = options
        self.recorder = recorder
        self.refused = False
        self._stop = stop

    def refuse(self) -> None:
        """The server does not accept this peer any more."""
        self.recorder.write("refused")
        self.refused = True
        self._stop()

    @abstractmethod
    async def start(self) -> None:
        """Join the channel and begin to receive."""

    @abstractmethod
    async def publish(self, name: str, payload: str) -> None:
        """Publish a message of this name.

        Raises:
            NotPublishedError: It was certainly not taken.
            OutcomeUnknownError: It may have been taken.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Leave the channel."""


class RuntimeBus(Bus):
    """`bus_runtime`."""

    def __init__(self, options: Options, recorder: Recorder, stop: Callable[[], None]) -> None:
        super().__init__(options, recorder, stop)
        self._bus = PgmqBus.from_binding(
            options.channel_binding,
            root=options.binding,
            peer=options.peer,
            acknowledge=options.acknowledge,
            max_in_flight=options.max_in_flight,
            publish_timeout=options.publish_timeout,
            on_lost=lambda count: recorder.write("lost", count=count),
            on_redelivered=lambda msg_id: recorder.write("redelivered", id=msg_id),
            on_refused=lambda _: self.refuse(),
        )
        self._subscriber = Subscriber(recorder, options.handle_seconds)

    async def start(self) -> None:
        """Join, and deliver to the subscriber."""
        await self._bus.subscribe(self._subscriber)
        await self._bus.start()

    async def publish(self, name: str, payload: str) -> None:
        """Publish with `raise_on_error`."""
        message = BusJobUpdateRequestMessage(source=payload, target="all", job_id=name)
        try:
            await self._bus.publish(message, raise_on_error=True)
        except PublishError as exc:
            raise (OutcomeUnknownError if exc.outcome_unknown else NotPublishedError)(str(exc)) from exc

    async def stop(self) -> None:
        """Have handled what was received, acknowledge, leave."""
        await self._bus.stop()

    def stats(self) -> BusStats:
        """What the client says of itself."""
        return self._bus.stats()


class Subscriber(BusSubscriber):
    """Writes down what it is handed, before and after it takes its time."""

    def __init__(self, recorder: Recorder, seconds: float) -> None:
        self._recorder = recorder
        self._seconds = seconds

    @property
    def name(self) -> str:
        """The only subscriber of its process."""
        return "worker"

    async def on_bus_message(self, message: Any) -> None:
        """Handle a message."""
        self._recorder.write("received", message.job_id)
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self._recorder.write("handled", message.job_id)


class PipecatBus(Bus):
    """pipecat's own client, unmodified, with its IsolatedPgmqBackend on a pool.

    Its `publish` swallows every failure. What became of a message is learnt from the backend that it calls.
    """

    def __init__(self, options: Options, recorder: Recorder, stop: Callable[[], None]) -> None:
        super().__init__(options, recorder, stop)
        self._pool: asyncpg.Pool | None = None
        self._bus: Any = None
        self._failures: dict[str, Exception] = {}

    async def start(self) -> None:
        """Join, and deliver to the subscriber."""
        with warnings.catch_warnings():
            # Its dependencies warn when they are imported.
            warnings.simplefilter("ignore")
            from loguru import logger
            from pipecat.bus import BusSubscriber as TheirSubscriber
            from pipecat.bus.network.pgmq import PgmqBus as TheirBus
            from pipecat.bus.network.pgmq_backends import IsolatedPgmqBackend
            from pipecat.utils.asyncio.task_manager import TaskManager
        logger.remove()
        logger.add(sys.stderr, level="WARNING")
        failures = self._failures

        class Backend(IsolatedPgmqBackend):  # type: ignore[misc]
            async def publish(self, channel: str, my_queue: str, payload: dict[str, Any]) -> None:
                try:
                    await super().publish(channel, my_queue, payload)
                except Exception as exc:
                    failures[payload["__data__"]["job_id"]] = exc
                    raise

        subscriber = type("TheirsAndOurs", (Subscriber, TheirSubscriber), {})(
            self.recorder, self.options.handle_seconds
        )
        binding = find_binding(self.options.channel_binding, root=self.options.binding)
        self._pool = await asyncpg.create_pool(binding.uri, min_size=2, max_size=2 + self.options.outstanding)
        self._bus = TheirBus(backend=Backend(self._pool), channel=binding.channel)
        await self._bus.setup(TaskManager(loop=asyncio.get_running_loop()))
        await self._bus.subscribe(subscriber)
        await self._bus.start()

    async def publish(self, name: str, payload: str) -> None:
        """Publish, and ask the backend how it went."""
        from pipecat.bus import BusJobUpdateRequestMessage as TheirMessage

        await self._bus.publish(TheirMessage(source=payload, target="all", job_id=name))
        failure = self._failures.pop(name, None)
        if isinstance(failure, asyncpg.PostgresError) and not _ends_the_session(failure):
            raise NotPublishedError(str(failure)) from failure
        if failure is not None:
            raise OutcomeUnknownError(str(failure)) from failure

    async def stop(self) -> None:
        """Leave the channel."""
        await self._bus.stop()
        if self._pool is not None:
            self._pool.terminate()


def _ends_the_session(error: asyncpg.PostgresError) -> bool:
    """Whether the server said this on its way out: a commit may have been under way. Classes 57 and 08."""
    return error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))


class Publishing:
    """Publishes at a steady rate until it is told to stop."""

    def __init__(self, bus: Bus, recorder: Recorder, options: Options) -> None:
        self._bus = bus
        self._recorder = recorder
        self._options = options
        self._slots = asyncio.Semaphore(options.outstanding)
        self._under_way: set[asyncio.Task[None]] = set()
        self._number = 0
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Begin no other publish."""
        self._over.set()

    async def run(self) -> None:
        """Publish; returns when all that was begun has an outcome."""
        options, loop = self._options, asyncio.get_running_loop()
        due = loop.time()
        while options.publish_rate and not self._over.is_set():
            # Behind after an outage, it does not catch up: that would be another load than it was told to make.
            due = max(due + 1 / options.publish_rate, loop.time())
            await self._sleep(due - loop.time())
            await self._slots.acquire()
            if self._over.is_set():
                break
            self._begin()
        await asyncio.gather(*self._under_way)

    def _begin(self) -> None:
        """Begin the next publish, in a slot that was acquired."""
        self._number += 1
        task = asyncio.create_task(self._publish(f"{self._options.process}-{self._number}"))
        self._under_way.add(task)
        task.add_done_callback(self._finished)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass

    async def _publish(self, name: str) -> None:
        self._recorder.write("publish", name)
        try:
            await self._bus.publish(name, "x" * self._options.payload_bytes)
        except NotPublishedError:
            self._recorder.write("failed", name)
        except OutcomeUnknownError:
            self._recorder.write("unknown", name)
        else:
            self._recorder.write("published", name)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            # Not an outcome that a client tells: end, and be noticed.
            logging.critical("publishing failed in a way that no client promises", exc_info=task.exception())
            os._exit(1)


def lose_rings() -> None:
    """On SIGUSR2 all, on `DELIVER` none; logs how many were lost."""
    network = Network(open_doorbell)
    mock.patch.object(log_peer, "open_doorbell", network.open_doorbell).start()
    lost = 0

    def lose(datagram: bytes) -> Iterable[tuple[float, bytes]]:
        nonlocal lost
        lost += 1
        return block(datagram)

    def lose_none() -> None:
        logging.info("%d rings lost", lost)
        network.become(deliver)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, network.become, lose)
    loop.add_signal_handler(DELIVER, lose_none)


def open_history(recorder: Recorder, options: Options, channel: str) -> None:
    """Write down who this is."""
    recorder.write("opened", process=options.process, channel=channel, client=options.client)


def write_joining(recorder: Recorder, options: Options) -> None:
    """Write down that it is about to join, and as what."""
    acknowledge: Acknowledge = options.acknowledge if options.client == "bus_runtime" else "on_dispatch"
    recorder.write("joining", peer=options.peer, acknowledge=acknowledge, in_hand=options.max_in_flight)


async def run(options: Options) -> int:
    """Work until told to stop; the exit status."""
    stopping = asyncio.Event()
    binding = find_binding(options.channel_binding, root=options.binding)
    with Recorder(options.history) as recorder:
        if options.relay:
            lose_rings()
        open_history(recorder, options, binding.channel)
        bus = (RuntimeBus if options.client == "bus_runtime" else PipecatBus)(options, recorder, stopping.set)
        publishing = Publishing(bus, recorder, options)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, publishing.stop)
        write_joining(recorder, options)
        await bus.start()
        recorder.write("joined")
        print("ready", flush=True)
        task = asyncio.create_task(publishing.run())
        task.add_done_callback(lambda _: print("quiet", flush=True))
        await stopping.wait()
        publishing.stop()
        # Also those that are tried again get their outcome then.
        await asyncio.gather(bus.stop(), task)
        recorder.write("ended", how="left")
        # A signal that comes when the loop and its handlers are gone would be taken for its end.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, DELIVER})
    return REFUSED if bus.refused else 0


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options on a command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos.worker", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--history", type=Path, required=True, help="file to append the history to")
    add("--binding", type=Path, required=True, help="directory of bindings, as SERVICE_BINDING_ROOT")
    add("--channel-binding", help="the binding to use, where there are several")
    add("--process", help="name in the history; default: the file's name")
    add("--peer", help="durable name; default: none")
    add("--client", choices=get_args(Client), default="bus_runtime")
    add("--acknowledge", choices=get_args(Acknowledge), default="on_handled")
    add("--publish-rate", type=float, default=0.0, metavar="N", help="messages a second; default: none")
    add("--outstanding", type=int, default=8, metavar="N", help="publishes that do not wait for each other")
    add("--payload-bytes", type=int, default=100, metavar="N")
    add("--handle-seconds", type=float, default=0.0, metavar="S", help="how long a handler takes")
    add("--max-in-flight", type=int, default=1000, metavar="N")
    add("--publish-timeout", type=float, default=30.0, metavar="S")
    add("--relay", action="store_true", help="lose rings of doorbells on SIGUSR2")
    given = vars(parser.parse_args(arguments))
    given["process"] = given["process"] or given["history"].stem
    given["peer"] = given["peer"] or None
    return Options(**given)


def main() -> int:
    """Run a worker."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return asyncio.run(run(parse()))


if __name__ == "__main__":
    sys.exit(main())
