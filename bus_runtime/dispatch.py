"""Delivery to one subscriber: two tasks and the order between them.

Each subscriber has its own queues and tasks, so neither its errors nor its slowness reach another one.
The *router* task handles system messages itself, always before it looks at waiting data messages, and
hands data messages to the *data* task, which handles them one after the other. Hence:

- a system message overtakes every data message that has not begun, and does not wait for one that has;
- a data message published after a system message begins only when that system message has been handled
  (the reference client gives the same guarantee, and worker registration relies on it);
- each kind is first in, first out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from bus_runtime.messages import BusMessage, BusSystemMessage
from bus_runtime.subscriber import BusSubscriber

logger = logging.getLogger(__name__)

#: Handlers that never wait would keep the event loop to themselves; after this many the data task yields.
_YIELD_EVERY = 32

#: What the application's code raises to end the program or a coroutine: passed on. Whatever else it raises is a failure
#: of its own, also what is no `Exception`, as a panic in an extension written in Rust.
PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)


#: What a subscriber of that name handles a message in.
Around = Callable[[str], AbstractContextManager[None]]


class Load(Protocol):
    """Told what a subscription holds: what waits for its handlers and what they are at."""

    def take(self, size: int) -> None:
        """One message more, of `size` bytes."""
        ...

    def release(self, size: int) -> None:
        """One of them is handled."""
        ...

    def reset(self) -> None:
        """All of them are forgotten."""
        ...


class Delivery:
    """One message on its way to subscribers.

    Args:
        message: The message.
        subscribers: How many it is put to.
        on_handled: Called when the last of them is through with it.
        size: Bytes of its JSON; 0 for a message that never left the process.
        around: What each of them handles it in, if there is something to do around that.
    """

    __slots__ = ("_on_handled", "_outstanding", "around", "message", "size")

    def __init__(
        self,
        message: BusMessage,
        subscribers: int,
        on_handled: Callable[[], None] | None,
        size: int = 0,
        around: Around | None = None,
    ) -> None:
        self.message = message
        self.size = size
        self.around = around
        self._outstanding = subscribers
        self._on_handled = on_handled

    def finish(self) -> None:
        """One subscriber handled, declined or failed the message."""
        self._outstanding -= 1
        if self._outstanding == 0 and self._on_handled is not None:
            self._on_handled()


class _Rest:
    """Where a task sleeps until it is woken: an `asyncio.Event` for one, at a fraction of the cost."""

    __slots__ = ("_sleeper",)

    def __init__(self) -> None:
        self._sleeper: asyncio.Future[None] | None = None

    def wake(self) -> bool:
        """Wake the task; False when it is awake already and will look at the queues before it sleeps."""
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None or sleeper.done():
            return False
        sleeper.set_result(None)
        return True

    async def sleep(self) -> None:
        """Sleep until woken."""
        self._sleeper = asyncio.get_running_loop().create_future()
        await self._sleeper


class _Run:
    """One start of a subscription: its two tasks, where they sleep, and whether a system message is being handled."""

    __slots__ = ("data", "router", "tasks", "urgent")

    def __init__(self) -> None:
        self.router = _Rest()
        self.data = _Rest()
        self.urgent = False
        self.tasks: tuple[asyncio.Task[None], ...] = ()


class Subscription:
    """One subscriber's queues and tasks.

    Args:
        subscriber: Whom to deliver to.
        on_error: Called for each exception of the subscriber.
    """

    def __init__(self, subscriber: BusSubscriber, on_error: Callable[[], None]) -> None:
        self.subscriber = subscriber
        #: Told what is held; set before anything is put.
        self.load: Load | None = None
        self._on_error = on_error
        self._arrived: deque[Delivery] = deque()
        self._urgent: deque[Delivery] = deque()
        self._data: deque[Delivery] = deque()
        self._handling: set[Delivery] = set()
        self._run: _Run | None = None

    def put(self, delivery: Delivery) -> None:
        """Queue a message; it is handled once the subscription is started."""
        run = self._run
        if self.load is not None:
            self.load.take(delivery.size)
        if isinstance(delivery.message, BusSystemMessage):
            self._urgent.append(delivery)
            if run is not None:
                run.router.wake()
            return
        self._arrived.append(delivery)
        # A data task that sleeps takes the message by itself; while it handles another one, the router decides
        # whether this one comes before the next system message.
        if run is not None and not run.urgent and not self._urgent and not run.data.wake():
            run.router.wake()

    def start(self) -> None:
        """Begin to deliver what is and will be queued."""
        name = self.subscriber.name
        run = self._run = _Run()
        run.tasks = (
            asyncio.create_task(self._route(run), name=f"bus_router_{name}"),
            asyncio.create_task(self._handle_data(run), name=f"bus_data_{name}"),
        )

    def runs_current_task(self) -> bool:
        """Whether the caller is one of this subscription's tasks, say a handler that stops the bus."""
        return self._run is not None and asyncio.current_task() in self._run.tasks

    async def stop(self) -> None:
        """Stop delivering; a handler under way is cancelled, unless it is the caller. The queue stays."""
        run, self._run = self._run, None
        if run is not None:
            await _cancel(task for task in run.tasks if task is not asyncio.current_task())

    def clear(self) -> None:
        """Forget what is queued, unhandled."""
        for queue in (self._urgent, self._arrived, self._data):
            queue.clear()
        self._handling.clear()
        if self.load is not None:
            self.load.reset()

    async def close(self) -> None:
        """End the subscription: what it has not handled, it will not, and nothing waits for it."""
        await self.stop()
        abandoned = [*self._handling, *self._urgent, *self._data, *self._arrived]
        self.clear()
        for delivery in abandoned:
            delivery.finish()

    async def _route(self, run: _Run) -> None:
        while self._run is run:
            if self._urgent:
                run.urgent = True
                await self._handle(self._urgent.popleft())
                run.urgent = False
            elif self._arrived:
                delivery = self._arrived.popleft()
                if self._accepts(delivery.message):
                    self._data.append(delivery)
                    run.data.wake()
                else:
                    self._finish(delivery)
            else:
                await run.router.sleep()

    async def _handle_data(self, run: _Run) -> None:
        handled = 0
        while self._run is run:
            if self._data:
                delivery = self._data.popleft()
            elif self._arrived and not run.urgent and not self._urgent:
                # No system message came before it that is not handled: the way through the router would only be longer.
                delivery = self._arrived.popleft()
            else:
                await run.data.sleep()
                continue
            await self._handle(delivery)
            handled += 1
            if self._urgent or handled % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _accepts(self, message: BusMessage) -> bool:
        try:
            return self.subscriber.accepts_bus_message(message)
        except PASSED_ON:
            raise
        except BaseException:  # the application's code: its failure must not end delivery
            self._failed(message)
            return False

    async def _handle(self, delivery: Delivery) -> None:
        message = delivery.message
        self._handling.add(delivery)
        # Asked again for data messages: the subscriber may have changed its mind while they waited.
        if self._accepts(message):
            try:
                if delivery.around is None:
                    await self.subscriber.on_bus_message(message)
                else:
                    with delivery.around(self.subscriber.name):
                        await self.subscriber.on_bus_message(message)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._failed(message)  # the handler awaited something that was cancelled
            except PASSED_ON:
                raise
            except BaseException:  # the application's code: its failure must not end delivery
                self._failed(message)
        if delivery in self._handling:
            self._handling.discard(delivery)
            self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        if self.load is not None:
            self.load.release(delivery.size)
        delivery.finish()

    def _failed(self, message: BusMessage) -> None:
        self._on_error()
        logger.exception("subscriber %r failed on %s; its delivery goes on", self.subscriber.name, message)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
