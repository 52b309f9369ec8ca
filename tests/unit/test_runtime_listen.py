"""Listening: it is relied on only where it is certain to be heard, and given up and taken up again as things change."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from recorder import eventually

from bus_runtime import UnavailableError
from bus_runtime import listen as module
from bus_runtime.listen import Listener


class Connection:
    """A connection that hears what the test says."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.listeners: dict[str, Callable[..., None]] = {}
        self.on_end: list[Callable[..., None]] = []
        self.checks = 0

    async def add_listener(self, name: str, callback: Callable[..., None]) -> None:
        if self.world.refusals:
            raise self.world.refusals.pop(0)
        self.listeners[name] = callback

    async def remove_listener(self, name: str, callback: Callable[..., None]) -> None:
        self.listeners.pop(name, None)

    def add_termination_listener(self, callback: Callable[..., None]) -> None:
        self.on_end.append(callback)

    def remove_termination_listener(self, callback: Callable[..., None]) -> None:
        self.on_end.remove(callback)

    async def fetchval(self, sql: str, *, timeout: float) -> int:
        self.checks += 1
        if self.world.silent:
            raise TimeoutError
        return 1

    def terminate(self) -> None:
        self.end()

    def end(self) -> None:
        for callback in list(self.on_end):
            callback(self)


class World:
    """A server, what stands before it, and a listener."""

    def __init__(self) -> None:
        self.direct = True
        self.heard = True
        self.silent = False
        self.refusals: list[Exception] = []
        self.connections: list[Connection] = []
        self.in_use = 0
        self.notified = 0
        self.woken = 0
        self.changes: list[tuple[bool, bool]] = []
        self.listener = Listener(self.connect, "name", notify=self.notify, wake=self.wake, on_change=self.changed)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        self.connections.append(Connection(self))
        self.in_use += 1
        try:
            yield self.connections[-1]
        finally:
            self.in_use -= 1

    async def notify(self) -> None:
        self.notified += 1
        if self.heard:
            self.arrive()

    def arrive(self) -> None:
        for callback in self.connections[-1].listeners.values():
            callback(None, 0, "name", "")

    def wake(self) -> None:
        self.woken += 1

    def changed(self) -> None:
        self.changes.append((self.listener.listening, self.listener.deaf))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = World()

    async def is_direct(_: Any) -> bool:
        return world.direct

    monkeypatch.setattr(module, "is_direct", is_direct)
    monkeypatch.setattr(module, "_ECHO_TIMEOUT", 0.02)
    yield world
    await world.listener.close()
    assert world.in_use == 0


async def test_a_direct_connection_needs_no_proof(world: World) -> None:
    world.listener.start()
    await eventually(lambda: world.listener.listening)
    assert world.notified == 0
    assert world.woken == 1, "for what came before"
    world.arrive()
    assert world.woken == 2


async def test_behind_a_pooler_a_notification_must_come_back(world: World) -> None:
    world.direct = False
    world.listener.start()
    await eventually(lambda: world.listener.listening)
    assert world.notified == 1
    assert world.changes == [(True, False)]


async def test_where_nothing_comes_back_it_is_tried_again_rarely(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "_DEAF_PAUSE", (0.02, 0.02))
    world.direct = world.heard = False
    world.listener.start()
    await eventually(lambda: world.notified == 3)
    assert world.listener.deaf
    assert not world.listener.listening
    assert world.in_use <= 1
    assert len(caplog.records) == 1
    world.heard = True
    await eventually(lambda: world.listener.listening)
    assert not world.listener.deaf


async def test_the_connection_is_given_back_while_it_is_deaf(world: World) -> None:
    world.direct = world.heard = False
    world.listener.start()
    await eventually(lambda: world.listener.deaf)
    assert world.in_use == 0
    assert world.connections[0].listeners == {}


async def test_a_doubted_connection_is_proven_again(world: World) -> None:
    world.listener.start()
    await eventually(lambda: world.listener.listening)
    world.listener.suspect()
    await eventually(lambda: world.notified == 1)
    assert world.listener.listening
    world.heard = False
    world.listener.suspect()
    await eventually(lambda: world.listener.deaf)
    assert not world.listener.listening


async def test_a_lost_connection_is_replaced(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.listener.start()
    await eventually(lambda: world.listener.listening)
    world.connections[0].end()
    await eventually(lambda: not world.listener.listening)
    await eventually(lambda: world.listener.listening)
    assert len(world.connections) == 2
    assert not world.listener.deaf
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_silent_connection_is_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK_INTERVAL", 0.01)
    world.listener.start()
    await eventually(lambda: world.listener.listening and world.connections[0].checks >= 2)
    world.silent = True
    await eventually(lambda: len(world.connections) >= 2)


@pytest.mark.parametrize(
    "refusal",
    [
        UnavailableError("away"),
        OSError("broken"),
        TimeoutError(),
        # Of a session that the server has just ended; see tests/database/test_login_sessions.py.
        asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
async def test_failures_are_tried_again(world: World, refusal: Exception) -> None:
    world.refusals = [refusal]
    world.listener.start()
    await eventually(lambda: world.listener.listening)
    assert len(world.connections) == 2


async def test_closing_stops_listening(world: World) -> None:
    world.listener.start()
    await eventually(lambda: world.listener.listening)
    await world.listener.close()
    assert world.connections[0].listeners == {}
    assert not world.listener.listening
