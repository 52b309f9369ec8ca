"""A soak from its beginning to its end."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos import kubernetes
from chaos.evidence import NotStruckError
from chaos.nemeses.nemesis import Nemesis
from chaos.run import Strike as Struck
from chaos.run import evidence_of, strike, tell
from chaos.seeds import seeds
from chaos.soak import capacity, leaks
from chaos.soak.control import NAMESPACE, Control, running_operator
from chaos.soak.inventory import Inventory, take
from chaos.soak.outcome import Outcome, Strike
from chaos.soak.pages import Checker
from chaos.soak.plan import Fault, Plan, deck, name_of, next_fault, possible
from chaos.soak.samples import Sampler, Subject, cpu_seconds
from chaos.soak.world import LEGACY, SoakWorld, soak_world
from control_plane import ControlPlane

from benchmarks.cpu import server_seconds

#: Seconds to wait for a delivery after a fault of the control plane, which delays none.
_NEVER = 60.0

#: Seconds to wait for channels that are to be deleted in any case.
_SLOW = 120.0


async def soak(plan: Plan, control_plane: ControlPlane, directory: Path, ending: asyncio.Event) -> Outcome:
    """Everything, on an API server of its own.

    Args:
        plan: What to do.
        control_plane: That API server.
        directory: For everything that is written; made if need be, and left.
        ending: When it is set, the load ends early.

    Returns:
        What came of it, also when something went wrong on the way: that is among the problems then.
    """
    outcome = Outcome(plan)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        async with _stage(plan, control_plane, directory, ending, outcome) as run:
            await run.run()
    # What was measured until then is worth something.
    except Exception as exc:
        outcome.errors.append(tell(exc))
    outcome.interrupted = ending.is_set()
    return outcome


@asynccontextmanager
async def _stage(
    plan: Plan, control_plane: ControlPlane, directory: Path, ending: asyncio.Event, outcome: Outcome
) -> AsyncIterator[Soak]:
    rng = random.Random(plan.seed)
    with seeds() as servers, ExitStack() as stack:
        _say("starting PostgreSQL, API server and operator")
        kube, operator = await asyncio.to_thread(stack.enter_context, running_operator(control_plane, directory))
        async with soak_world(servers, plan.version, directory, rng) as world:
            control = await asyncio.to_thread(Control, control_plane, kube, operator, world.database, world.link.port)
            outcome.activity = control.activity
            session = await world.admin()
            empty = await take(session)
            await asyncio.to_thread(control.create_channels)
            world.namespace = NAMESPACE
            await asyncio.to_thread(stack.enter_context, control.kubelets(world.bindings))
            _say("starting workers")
            temporary = directory / "temporary"
            temporary.mkdir()
            pages = directory / "pages"
            await world.populate(pages / "0", directory / "logs", temporary)
            full = await take(session)
            await session.close()
            checker = Checker()
            try:
                yield Soak(plan, control_plane, world, control, checker, ending, outcome, pages, temporary, empty, full)
            finally:
                outcome.account = checker.account
                await checker.close()


@dataclass(eq=False)
class Soak:
    """A soak whose workers have joined, and publish nothing yet."""

    plan: Plan
    control_plane: ControlPlane
    world: SoakWorld
    control: Control
    checker: Checker
    ending: asyncio.Event
    outcome: Outcome
    pages: Path
    temporary: Path
    empty: Inventory
    full: Inventory
    page: int = 0
    quiet: dict[int, Mapping[str, float]] = field(default_factory=dict)
    _shown: list[Struck] = field(default_factory=list)

    async def run(self) -> None:
        """From the maximum to the end, after which nothing is left."""
        _say("looking for the maximum")
        self.outcome.steps = await capacity.maximum(self.world, self.plan.search, self.ending)
        await self.turn()
        if not self.outcome.maximum and self.plan.load is None:
            raise RuntimeError(f"not even {self.plan.search.first:.0f} messages/s are sustained")
        self.outcome.wanted = self.plan.load or self.outcome.maximum / 2
        sampler = Sampler(self._subjects, self.world.admin, self._costs)
        first = self.page
        sampling = asyncio.create_task(sampler.run(self.plan.sample))
        try:
            async with self._churning():
                await self._load()
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            self.outcome.series = list(sampler.series.values())
            self.outcome.cpu = sampler.cpu()
        load = range(first, self.page)
        _say("winding up")
        await leaks.wind_up(self)
        if self.checker.waiting:
            _say(f"checking the last {self.checker.waiting + 1} pages")
        account = await self.checker.finish()
        self.outcome.published = sum(account.published[page] for page in load)

    async def _load(self) -> None:
        plan, outcome = self.plan, self.outcome
        rng = random.Random(f"{plan.seed} faults")
        cards = deck(list(plan.faults or possible()), rng)
        began = time.monotonic()
        _say(f"load: {outcome.wanted:,.0f} messages/s for {plan.seconds / 60:.1f} min, with seed {plan.seed}")
        await self.world.publish(outcome.wanted)
        while True:
            left = began + plan.seconds - time.monotonic()
            struck_enough = len(outcome.strikes) >= plan.at_least
            pause = rng.uniform(*plan.between)
            await self._wait(min(pause, left) if struck_enough else pause)
            passed = time.monotonic() - began
            if self.ending.is_set() or (struck_enough and passed > plan.seconds - plan.last):
                await self._wait(plan.seconds - passed)
                await self._churned()
                break
            await self._strike(next_fault(cards, passed / plan.seconds), passed)
            await self._wait(plan.calm)
            await self.turn()
            await self.world.publish(outcome.wanted)
        await self.turn()
        outcome.seconds = time.monotonic() - began

    async def _churned(self) -> None:
        """As many channels are gone again as there are to be in any case."""
        late = time.monotonic() + _SLOW
        while self.outcome.activity.deleted < self.plan.at_least and time.monotonic() < late:
            if self.ending.is_set():
                break
            await self._wait(0.5)

    async def _strike(self, fault: Fault, at: float) -> None:
        name = name_of(fault)
        error = ""
        recovery: Mapping[str, float | None] = {}
        try:
            recovery = await (self._break_data(fault()) if isinstance(fault, type) else self._break_control(fault))
        # Whatever it is: what was measured so far is worth something, and so is what comes.
        except Exception as exc:
            error = tell(exc)
        struck = Strike(name, at, recovery, error, self.plan.within)
        self.outcome.strikes.append(struck)
        left = max(self.plan.seconds - at, 0) / 60
        what = struck.problem or f"delivering again after {struck.slowest:.1f} s"
        account = self.checker.account
        broken = f"; BROKEN: {account.broken}" if account.broken else ""
        _say(
            f"{at / 60:5.1f} min, {left:4.1f} left: {name:20} {what}; "
            f"{account.total('published'):,} messages in {account.pages} pages checked{broken}"
        )

    async def _break_data(self, nemesis: Nemesis) -> Mapping[str, float | None]:
        try:
            self._shown, recovery = await strike(self.world, [nemesis])
        finally:
            await nemesis.undo(self.world)
        for each in self._shown:
            self.world.channels_fleets[LEGACY].struck(nemesis.kind, each.began)
        if not nemesis.with_pipecat:
            await self.world.restart_pipecat()
        return recovery

    async def _break_control(self, fault: kubernetes.Nemesis) -> Mapping[str, float | None]:
        struck = await asyncio.to_thread(self.control.strike, fault)
        if struck.error:
            raise AssertionError(struck.error)
        watch = self.world.watch()
        return {"operator": struck.recovery, **await watch.delivered(time.monotonic_ns(), _NEVER)}

    async def _note_evidence(self) -> None:
        """What shows that a fault struck: at a quiet moment, for much is to be read."""
        try:
            self.outcome.evidence += (await evidence_of(self.world, self._shown)).values()
        except NotStruckError as exc:
            self.outcome.errors.append(f"{self._shown[0].nemesis.name}: {exc}")
        self._shown = []

    async def turn(self) -> None:
        """A quiet moment: all is handled, and the page is complete."""
        for fleet in self.world.channels_fleets.values():
            for worker in fleet.ended():
                status = worker.process.returncode
                self.outcome.errors.append(
                    f"worker {worker.options.process} ended by itself with {status}: {worker.log[-500:]}"
                )
        if not self.control.operator.running:
            self.outcome.errors.append(f"the operator ended by itself: {self.control.operator.log[-500:]}")
            await asyncio.to_thread(self.control.operator.start)
        quiet = await self.world.quiet()
        self.outcome.quiets.append(quiet)
        self.outcome.errors += [
            f"page {self.page}: {who} has not handled and acknowledged everything: {where}"
            for who, where in quiet.behind.items()
        ]
        for pid, seen in leaks.holdings(self.world).items():
            self.quiet.setdefault(pid, seen)
        await self._note_evidence()
        page, self.page = self.pages / str(self.page), self.page + 1
        await self.world.turn(self.pages / str(self.page))
        self.checker.hand_in(page)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self.ending.wait()
        except TimeoutError:
            pass

    @asynccontextmanager
    async def _churning(self) -> AsyncIterator[None]:
        """What is done to channels all the time, in threads of its own."""
        control, plan, ended = self.control, self.plan, threading.Event()
        rng = random.Random(f"{plan.seed} churn")
        tasks = [
            asyncio.create_task(asyncio.to_thread(control.churn, ended, rng, plan.churn)),
            asyncio.create_task(asyncio.to_thread(control.rotate, ended, plan.rotation)),
        ]
        try:
            yield
        finally:
            ended.set()
            # They may still need what this event loop passes on.
            await asyncio.gather(*tasks)

    def _subjects(self) -> Sequence[Subject]:
        found = [
            Subject(
                f"{worker.options.channel_binding}/{worker.options.process}",
                "runtime" if worker.options.client == "bus_runtime" else "pipecat",
                worker.process.pid,
                state.tasks if state is not None else None,
            )
            for worker, state in self.world.states()
        ]
        operator = self.control.operator
        return [*found, Subject("operator", "operator", operator.pid)] if operator.running else found

    def _costs(self) -> Mapping[tuple[str, int], float]:
        costs = {("harness", os.getpid()): cpu_seconds(os.getpid())}
        server = self.world.server.process
        try:
            if server is not None:
                costs["server", server.pid] = server_seconds(server.pid)
            for pid in self.control_plane.pids():
                costs["API server", pid] = cpu_seconds(pid)
        except (FileNotFoundError, ProcessLookupError):
            # Just killed.
            pass
        return costs


def _say(text: str) -> None:
    print(text, flush=True)
