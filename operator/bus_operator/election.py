"""Leader election on a Lease: of several replicas one reconciles, the others stand by.

A standby never compares the holder's clock with its own: it takes the Lease when the record has not changed for the
time that it promises, measured here. The holder counts from before it sent the renewal that succeeded, and stops its
work at `RENEW_DEADLINE`, well before anybody may take the Lease. If the work does not end by then, the process does.

A process that was frozen cannot stop in time. When it wakes, `FencedApi` writes nothing for it any more, and its open
transactions are gone: the server ends those that wait longer than `database.IDLE_IN_TRANSACTION`.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, NoReturn

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from bus_operator.errors import TransientError
from bus_operator.kube_api import KubeApi, unless_missing, words_of

logger = logging.getLogger(__name__)

LEASE_DURATION = 10.0
"""Seconds that a Lease holds after its renewal. With RETRY it bounds how long a dead leader is missed: 12 s."""

RENEW_DEADLINE = 7.0
"""Seconds after a renewal at which the leader stops when no other one succeeded; the rest is for ending the work."""

RENEW_INTERVAL = 3.0
"""Seconds between renewals: 20 writes a minute, whatever the number of replicas."""

ATTEMPT = 2.0
"""Seconds that the API server has to answer: a connection that has died must not use up the whole deadline."""

RETRY = 2.0
"""Seconds between a standby's looks at the Lease, at most; each is up to a quarter sooner, so that they spread."""

PAUSE = 0.5
"""Seconds between a renewal that failed and the next attempt."""

_UNREACHABLE = (ApiException, aiohttp.ClientError, TimeoutError)


def uninterrupted_clock() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class NotLeadingError(TransientError):
    """Another replica may lead by now: what was begun here is left to it."""

    reason = "NotLeading"


class LostLeaseError(Exception):
    """The Lease was not renewed in time, or is somebody else's."""


@dataclass(frozen=True)
class _Record:
    """What a Lease says."""

    version: str
    holder: str
    renewed: str
    duration: float
    transitions: int

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "_Record":
        spec = body.get("spec") or {}
        return cls(
            version=body["metadata"]["resourceVersion"],
            holder=spec.get("holderIdentity") or "",
            renewed=spec.get("renewTime") or "",
            duration=float(spec.get("leaseDurationSeconds") or LEASE_DURATION),
            transitions=spec.get("leaseTransitions") or 0,
        )


class Elector:
    """Takes part in the election for as long as it runs, and leads when it is its turn.

    Args:
        api: The Kubernetes API.
        name: Of the Lease.
        namespace: Of the Lease.
        identity: The pod's name. The same identity takes its own Lease over at once: a container that is started again
            need not wait for its predecessor, which is dead. So no two running processes may share one.
        lead: The work. It is cancelled when the Lease is lost and must not end by itself.
        overrun: Ends the process, called when cancelled work does not end before the Lease does.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        name: str,
        namespace: str,
        identity: str,
        lead: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = uninterrupted_clock,
        overrun: Callable[[], None] | None = None,
    ) -> None:
        self._api = api
        self._name = name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._identity = identity
        self._lead = lead
        self._clock = clock
        self._overrun = overrun or _exit
        self._record: _Record | None = None
        self._seen_at = 0.0
        self._held_since: float | None = None
        self._complaint = ""

    @property
    def leading(self) -> bool:
        """Whether nobody else can lead now."""
        return self._held_since is not None and self._clock() < self._held_since + LEASE_DURATION

    async def run(self) -> None:
        """Stands by and leads in turn until it is cancelled, and gives the Lease back. Raises what `lead` raises."""
        while True:
            await self._acquire()
            logger.info("%s leads", self._identity)
            try:
                await self._lead_while_held()
            except LostLeaseError as exc:
                logger.warning("%s leads no longer: %s", self._identity, exc)
            else:
                raise RuntimeError("the leader's work ended by itself")

    async def _acquire(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ATTEMPT):
                    if await self._try_to_acquire():
                        return
            except _UNREACHABLE as exc:
                self._complain(words_of(exc))
            else:
                self._complaint = ""
            await asyncio.sleep(self._until_next_look())

    async def _try_to_acquire(self) -> bool:
        begun = self._clock()
        record = await self._read()
        if record is not None and not self._is_free(record):
            return False
        try:
            await self._write(record, begun, acquired=True)
        except ApiException as exc:
            if exc.status == HTTPStatus.CONFLICT:
                return False
            raise
        return True

    async def _lead_while_held(self) -> None:
        work = asyncio.ensure_future(self._lead())
        try:
            while True:
                done, _ = await asyncio.wait({work}, timeout=RENEW_INTERVAL)
                if done:
                    return
                await self._renew()
        finally:
            try:
                await self._end(work)
            finally:
                # Kept until now: what the work did while it ended was done as the leader.
                await self._release()

    async def _renew(self) -> None:
        """Raises LostLeaseError when it did not succeed by the deadline."""
        assert self._held_since is not None  # noqa: S101  only the leader renews
        failure = "not renewed in time"
        deadline = self._held_since + RENEW_DEADLINE
        while (left := deadline - self._clock()) > 0:
            try:
                async with asyncio.timeout(min(ATTEMPT, left)):
                    await self._try_to_renew()
                    return
            except _UNREACHABLE as exc:
                failure = f"not renewed in time: {words_of(exc)}"
            await asyncio.sleep(max(0.0, min(PAUSE, deadline - self._clock())))
        raise LostLeaseError(failure)

    async def _try_to_renew(self) -> None:
        begun = self._clock()
        try:
            await self._write(self._record, begun)
        except ApiException as exc:
            if exc.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            # Changed or deleted by hand, or by an attempt of ours whose answer never came.
            record = await self._read()
            if record is not None and record.holder != self._identity:
                raise LostLeaseError(f"{record.holder or 'nobody'} holds the Lease") from exc
            await self._write(record, begun)

    async def _end(self, work: "asyncio.Future[None]") -> None:
        """Cancels the work, which has until the Lease ends; what it raised before is raised here."""
        work.cancel()
        assert self._held_since is not None  # noqa: S101  only the leader works
        left = self._held_since + LEASE_DURATION - self._clock()
        # One that was frozen is late already. It gets time all the same, since the fences hold.
        await asyncio.wait({work}, timeout=left if left > 0 else LEASE_DURATION - RENEW_DEADLINE)
        if not work.done():
            logger.critical("the work of the leader did not end in time: the process does")
            self._overrun()
        elif not work.cancelled():
            work.result()

    async def _release(self) -> None:
        """Lets a standby take over at once. That it is not possible, as without an API server, does no harm."""
        record, held, self._held_since = self._record, self.leading, None
        if record is None or not held:
            return
        body = {"metadata": {"resourceVersion": record.version}, "spec": {"holderIdentity": ""}}
        with suppress(*_UNREACHABLE):
            async with asyncio.timeout(ATTEMPT):
                await self._api.patch(f"{self._collection}/{self._name}", body)

    def _is_free(self, record: _Record) -> bool:
        if record.holder in ("", self._identity):
            return True
        last = self._record
        if last is None or (last.holder, last.renewed) != (record.holder, record.renewed):
            self._record, self._seen_at = record, self._clock()
        return self._clock() >= self._seen_at + record.duration

    def _complain(self, text: str) -> None:
        """Once for each thing that is wrong: it is looked at every two seconds."""
        if text != self._complaint:
            self._complaint = text
            logger.warning("Lease %s: %s", self._name, text)

    def _until_next_look(self) -> float:
        pause = RETRY * random.uniform(0.75, 1.0)  # noqa: S311
        if self._record is None:
            return pause
        expiry = self._seen_at + self._record.duration - self._clock()
        # Not sooner than a failure may be tried again.
        return min(pause, max(expiry, PAUSE))

    async def _read(self) -> _Record | None:
        found = await unless_missing(self._api.get(f"{self._collection}/{self._name}"))
        return _Record.from_body(found) if found is not None else None

    async def _write(self, record: _Record | None, begun: float, *, acquired: bool = False) -> None:
        """Makes the Lease ours from `begun` on. An ApiException with CONFLICT: another was faster."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec: dict[str, Any] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(LEASE_DURATION),
            "renewTime": now,
        }
        if acquired or record is None:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = record.transitions + 1 if record is not None else 0
        if record is None:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
            written = await self._api.create(self._collection, body | {"spec": spec})
        else:
            body = {"metadata": {"resourceVersion": record.version}, "spec": spec}
            written = await self._api.patch(f"{self._collection}/{self._name}", body)
        self._record, self._seen_at, self._held_since = _Record.from_body(written), begun, begun


class FencedApi(KubeApi):
    """Reads always, writes only while `leading` says so. Raises NotLeadingError."""

    def __init__(self, api: KubeApi, leading: Callable[[], bool]) -> None:
        super().__init__(api.client)
        self._leading = leading

    async def _exchange(self, method: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        if method != "GET" and not self._leading():
            raise NotLeadingError(f"{method} {path} is left to the replica that leads now")
        return await super()._exchange(method, path, *arguments, **options)


def _exit() -> NoReturn:
    # Not sys.exit: that would wait for what does not end.
    os._exit(1)
