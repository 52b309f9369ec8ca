"""The election by a clock of its own: who leads when, and that never two do."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import virtual_time
from kubernetes.aio.client.exceptions import ApiException

from bus_operator import election
from bus_operator.election import LEASE_DURATION, RENEW_DEADLINE, RENEW_INTERVAL, RETRY, Elector

WORST_TAKEOVER = LEASE_DURATION + RETRY + election.PAUSE


class Lease:
    """What the API server keeps: one object, written only by whoever has seen its latest version."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 0
        self.writes = 0

    @property
    def holder(self) -> str:
        return str(self.body["spec"]["holderIdentity"]) if self.body else ""

    def get(self) -> dict[str, Any]:
        if self.body is None:
            raise refusal(404)
        return json.loads(json.dumps(self.body))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.body is not None:
            raise refusal(409)
        return self._store({"metadata": {}, "spec": body["spec"]})

    def patch(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.body is None:
            raise refusal(404)
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise refusal(409)
        return self._store({"metadata": {}, "spec": self.body["spec"] | body["spec"]})

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.body = body
        return self.get()


def refusal(status: int) -> ApiException:
    return ApiException(status=status, reason="refused", body=json.dumps({"message": f"status {status}"}))


class Connection:
    """One replica's way to the API server. `fault` is awaited before and, with True, after each request."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self.fault: Callable[[str, bool], Awaitable[None]] | None = None

    async def get(self, path: str) -> dict[str, Any]:
        return await self._request("GET", self._lease.get)

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._request("POST", lambda: self._lease.create(body))

    async def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._request("PATCH", lambda: self._lease.patch(body))

    async def _request(self, method: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        if self.fault:
            await self.fault(method, False)
        answer = act()
        if self.fault:
            await self.fault(method, True)
        await asyncio.sleep(0.01)
        return answer


async def hangs(method: str, answered: bool) -> None:
    await asyncio.Event().wait()


async def refuses(method: str, answered: bool) -> None:
    raise refusal(500)


async def loses_answers(method: str, answered: bool) -> None:
    if answered:
        await asyncio.Event().wait()


class Replica:
    """A process that stands by or works, and knows from when to when it worked."""

    def __init__(self, world: "World", name: str, skew: float) -> None:
        self._world = world
        self.name = name
        self.connection = Connection(world.lease)
        self.working = False
        self.terms = 0
        self.last_words: Callable[[], Awaitable[None]] | None = None
        self.overrun = False
        self.skew = skew
        self.elector = Elector(
            self.connection,  # type: ignore[arg-type]
            name="operator",
            namespace="bus",
            identity=name,
            lead=self._work,
            clock=lambda: asyncio.get_running_loop().time() + self.skew,
            overrun=self._end,
        )
        self.task = asyncio.create_task(self.elector.run())

    async def _work(self) -> None:
        assert not [other.name for other in self._world.replicas if other.working], "two work at once"
        self.working = True
        self.terms += 1
        try:
            await asyncio.Event().wait()
        finally:
            if self.last_words:
                await self.last_words()
            self.working = False

    def _end(self) -> None:
        self.overrun, self.working = True, False

    def kill(self) -> None:
        """As kill -9: nothing of it runs any more, and it gives nothing back."""
        self.connection.fault = hangs
        self._world.dead.append(self.task)
        self.working = False
        self.task.get_loop().call_soon(self._world.replicas.remove, self)

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


class World:
    def __init__(self) -> None:
        self.lease = Lease()
        self.replicas: list[Replica] = []
        self.dead: list[asyncio.Task[None]] = []

    def start(self, name: str, *, skew: float = 0.0) -> Replica:
        replica = Replica(self, name, skew)
        self.replicas.append(replica)
        return replica

    def working(self) -> list[str]:
        return [replica.name for replica in self.replicas if replica.working]


@asynccontextmanager
async def world(*names: str) -> AsyncIterator[World]:
    """Replicas that are started one after the other, the first of which leads."""
    made = World()
    for name in names:
        made.start(name)
        await asyncio.sleep(1)
    if names:
        assert made.working() == [names[0]]
    yield made
    tasks = [replica.task for replica in made.replicas] + made.dead
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], Any], seconds: float) -> float:
    """Waits for the condition; returns how many seconds that took."""
    now = asyncio.get_running_loop().time
    begun = now()
    while not condition():
        assert now() < begun + seconds, f"not within {seconds} s"
        await asyncio.sleep(0.05)
    return now() - begun


def in_virtual_time(test: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        virtual_time.run(test())

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


def test_the_times_fit_together() -> None:
    """A dead leader is missed for less than 15 s; a live one has two attempts and time to end its work."""
    assert WORST_TAKEOVER < 15
    assert RENEW_INTERVAL + 2 * election.ATTEMPT <= RENEW_DEADLINE
    assert RENEW_DEADLINE + 2 < LEASE_DURATION


@in_virtual_time
async def test_one_of_three_leads_and_goes_on_leading() -> None:
    async with world("a", "b", "c") as w:
        await asyncio.sleep(3600)
        assert w.working() == ["a"]
        assert w.replicas[0].terms == 1
        assert w.lease.writes <= 3600 / RENEW_INTERVAL + 2


@in_virtual_time
async def test_a_killed_leader_is_replaced() -> None:
    """Whenever it is killed."""
    for delay in range(20):
        async with world("a", "b", "c") as w:
            await asyncio.sleep(30 + delay / 5)
            w.replicas[0].kill()
            await until(w.working, WORST_TAKEOVER)


@in_virtual_time
async def test_a_leader_that_stops_is_replaced_at_once() -> None:
    async with world("a", "b") as w:
        await asyncio.sleep(60)
        await w.replicas[0].stop()
        assert w.lease.holder == ""
        await until(lambda: w.working() == ["b"], RETRY + 0.1)


@in_virtual_time
async def test_the_lease_is_kept_until_the_work_has_ended() -> None:
    async with world("a", "b") as w:
        first = w.replicas[0]
        first.last_words = lambda: asyncio.sleep(5)
        first.task.cancel()
        await asyncio.sleep(4)
        assert w.working() == ["a"]
        await until(lambda: w.working() == ["b"], 4)


@in_virtual_time
async def test_a_container_that_is_started_again_need_not_wait() -> None:
    async with world("a") as w:
        w.replicas[0].kill()
        await asyncio.sleep(0.01)
        w.start("a")
        await until(w.working, 0.1)


@pytest.mark.parametrize("fault", [hangs, refuses, loses_answers])
def test_a_leader_without_an_api_server_stops_before_another_leads(fault: Any) -> None:
    """Replica checks that the one has ended when the other begins."""

    async def test() -> None:
        async with world("a", "b") as w:
            first = w.replicas[0]
            # To the very end of the time it has.
            first.last_words = lambda: asyncio.sleep(LEASE_DURATION - RENEW_DEADLINE - 0.1)
            await asyncio.sleep(RENEW_INTERVAL - 1)
            first.connection.fault = fault
            await until(lambda: not first.elector.leading, RENEW_INTERVAL + LEASE_DURATION)
            await until(lambda: w.working() == ["b"], WORST_TAKEOVER)
            assert not first.overrun
            first.connection.fault = None
            await w.replicas[1].stop()
            # It may be in the middle of an attempt that still hangs.
            await until(lambda: w.working() == ["a"], election.ATTEMPT + RETRY + 0.1)

    virtual_time.run(test())


@in_virtual_time
async def test_a_short_failure_goes_unnoticed() -> None:
    async with world("a", "b") as w:
        first = w.replicas[0]
        for fault in (hangs, refuses, loses_answers) * 20:
            first.connection.fault = fault
            await asyncio.sleep(RENEW_DEADLINE - RENEW_INTERVAL - election.ATTEMPT - election.PAUSE - 0.1)
            first.connection.fault = None
            await asyncio.sleep(10)
        assert first.working
        assert first.terms == 1


@in_virtual_time
async def test_without_an_api_server_nobody_leads_and_then_one_does() -> None:
    async with world("a", "b") as w:
        for replica in w.replicas:
            replica.connection.fault = refuses
        await until(lambda: not w.working(), RENEW_DEADLINE + 1)
        await asyncio.sleep(3600)
        assert not w.working()
        for replica in w.replicas:
            replica.connection.fault = None
        await until(w.working, RETRY + 0.1)


@in_virtual_time
async def test_a_leader_that_was_frozen_knows_at_once_that_it_leads_no_longer() -> None:
    """The clock has gone on while nothing of it ran."""
    async with world("a", "b") as w:
        first = w.replicas[0]
        assert first.elector.leading
        first.skew = LEASE_DURATION + 1
        assert not first.elector.leading
        await until(lambda: not first.working, RENEW_INTERVAL + 0.1)


@in_virtual_time
async def test_work_that_does_not_end_ends_the_process() -> None:
    async with world("a", "b") as w:
        first = w.replicas[0]
        first.last_words = lambda: asyncio.sleep(1000)
        first.connection.fault = hangs
        await until(lambda: first.overrun, RENEW_INTERVAL + LEASE_DURATION)
        assert w.lease.holder == "a"
        await until(lambda: w.working() == ["b"], WORST_TAKEOVER)


@in_virtual_time
async def test_a_lease_that_is_deleted_is_made_again() -> None:
    async with world("a") as w:
        w.lease.body = None
        await asyncio.sleep(60)
        assert w.working() == ["a"]
        assert w.lease.holder == "a"


@in_virtual_time
async def test_a_lease_that_is_given_to_another_by_hand() -> None:
    async with world("a") as w:
        assert w.lease.body is not None
        w.lease.patch({"metadata": {"resourceVersion": str(w.lease.version)}, "spec": {"holderIdentity": "somebody"}})
        await until(lambda: not w.working(), RENEW_INTERVAL + 0.1)
        # Who never renews it loses it.
        await until(lambda: w.working() == ["a"], WORST_TAKEOVER)


@in_virtual_time
async def test_clocks_that_disagree_do_not_matter() -> None:
    """The time that a Lease bears is never compared with any."""
    async with world("a") as w:
        w.start("b", skew=1e6)
        await asyncio.sleep(60)
        assert w.working() == ["a"]
        w.replicas[0].kill()
        await until(lambda: w.working() == ["b"], WORST_TAKEOVER)


@in_virtual_time
async def test_the_times_of_the_record() -> None:
    async with world("a", "b") as w:
        await asyncio.sleep(20)
        spec = w.lease.get()["spec"]
        assert spec["leaseDurationSeconds"] == LEASE_DURATION
        assert spec["leaseTransitions"] == 0
        assert spec["renewTime"] > spec["acquireTime"]
        await w.replicas[0].stop()
        await until(lambda: w.working() == ["b"], RETRY + 0.1)
        assert w.lease.get()["spec"]["leaseTransitions"] == 1
        assert w.lease.get()["spec"]["acquireTime"] > spec["acquireTime"]


@in_virtual_time
async def test_a_failure_of_the_work_is_raised_and_the_lease_given_back() -> None:
    lease = Lease()

    async def fail() -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError

    elector = Elector(
        Connection(lease),  # type: ignore[arg-type]
        name="operator", namespace="bus", identity="a", lead=fail, clock=asyncio.get_running_loop().time,
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        await elector.run()
    assert lease.holder == ""
    assert not elector.leading


def test_a_standby_complains_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with world("a", "b") as w:
            w.replicas[1].connection.fault = refuses
            await asyncio.sleep(60)

    caplog.set_level(logging.WARNING)
    virtual_time.run(test())
    assert [record.getMessage() for record in caplog.records] == ["Lease operator: status 500"]
