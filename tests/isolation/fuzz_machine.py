"""The state machine that hypothesis drives: bursts of calls on interleaved sessions, and what happens around them.

A burst is a list of eight bytes each: what is done, by which session, and the seed of its arguments. Eight zeros are
nothing, so that hypothesis shrinks a failure to the few calls that it takes.
"""

import random
import re
from collections.abc import Callable, Iterable
from typing import Any

from fuzz_calls import Call, Inventor, Seen
from fuzz_state import Actor, Blocked, Layer, Mismatch, Refusal, Transaction, Unpredictable, View
from fuzz_world import Answer, Session, World
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

WEIGHTS = {
    "publish": 28, "read": 34, "bus_subscribe": 24, "bus_archive": 18, "bus_publish": 14, "join_channel": 16,
    "bus_join": 8, "leave": 5, "bus_leave": 5, "roster": 6, "notify": 4, "wake_by": 6, "v1_publish": 7, "v1_read": 8,
    "begin": 8, "commit": 8, "rollback": 5, "savepoint": 7, "rollback_to": 5, "release": 3, "declare": 7, "fetch": 10,
    "listen": 2, "lose": 1, "come_back": 1,
}  # fmt: skip
_KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
_CALLS = [kind for kind in list(WEIGHTS)[:14] for _ in range(WEIGHTS[kind])]
_CALL_KINDS = frozenset(_CALLS)
#: A call that would wait for another session of its channel is seldom made: it takes this long.
_PATIENCE = "15ms"
_ISOLATION = ("", "", "", "", "", "isolation level repeatable read", "isolation level serializable", "read only")
_SAVEPOINTS = ("s0", "s1", "s2")


class Driver:
    """Makes calls in a world, one after the other, and holds each against the model."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._cursors = 0
        self._turn = 0

    def burst(self, steps: Iterable[bytes]) -> None:
        """Takes these steps."""
        for step in steps:
            if any(step):
                self._step(step)

    def _step(self, step: bytes) -> None:
        sessions = self.world.sessions
        if step[2] % 2:
            # Half of the time the same goes on: a server's processes that change each time are slow.
            self._turn = step[1] % len(sessions)
        session = sessions[self._turn]
        rng = random.Random(step)
        kind = _KINDS[step[0] % len(_KINDS)]
        transaction = self.world.model.transactions.get(session.actor.name)
        if transaction is not None and transaction.aborted and kind in _CALL_KINDS and rng.random() < 0.7:
            kind = "rollback"
        if kind in _CALL_KINDS:
            self._call(session, self._invent(session, kind, rng), rng)
        else:
            getattr(self, f"_{kind}")(session, transaction, rng)

    # ---- calls

    def _invent(self, session: Session, function: str, rng: random.Random) -> Call:
        return Inventor(self._seen(session.actor, rng), rng).call(function)

    def _seen(self, actor: Actor, rng: random.Random) -> Seen:
        model, victims = self.world.model, self.world.victims
        own = next((v for v in victims if v.channel.id == actor.channel), None)
        others = [victim for victim in victims if victim is not own]
        if own is None:
            own = rng.choice(victims)  # Who belongs nowhere tries as if it did.
        view = View(model, actor)
        return Seen(
            channels=(own.channel.name, *(v.channel.name for v in others)),
            tokens=(own.channel.token, *(v.channel.token for v in others)),
            own_queues=model.names_of(own.channel.id, view, former=rng.random() < 0.1),
            other_queues=lambda: [queue for v in others for queue in model.names_of(v.channel.id, view)],
            own_ids=[entry.id for entry in view.log(own.channel.id, 0, 50)],
            other_ids=lambda: [entry.id for v in others for entry in view.log(v.channel.id, 0, 50)],
            roster=view.counts(own.channel.id).roster,
            marker=own.marker,
            network=own.network,
        )

    def _call(
        self, session: Session, call: Call, rng: random.Random, fetch: str | None = None, declared: str | None = None
    ) -> None:
        """Makes a call; or declares a cursor over it, or fetches from one."""
        model, actor = self.world.model, session.actor
        transaction = model.transactions.get(actor.name)
        if model.is_claimed(actor):
            return
        # Tried in a layer of its own, which is dropped if the call fails.
        view = View(model, actor)
        view.layers = [*view.layers, Layer()]
        refusal: Refusal | None = None
        blocked = False
        steps = None
        try:
            if transaction is not None and transaction.aborted:
                raise Refusal("25P02")
            if fetch is None:
                model.admit(actor, call)
            if declared is None:
                steps = model.steps(actor, view, call)
                next(steps)
        except Refusal as expected:
            refusal = expected
        except Blocked:
            blocked = True
            if rng.random() > 0.1:
                return
        except Unpredictable:
            return
        statement, args = (fetch, ()) if fetch is not None else (call.statement, call.args)
        if declared is not None:
            statement = f"declare {declared} cursor for {statement}"
        if blocked:
            self._run(session, f"set statement_timeout = '{_PATIENCE}'")
        self.world.calls += 1
        self.world.made[call.function] = self.world.made.get(call.function, 0) + 1
        answer = self._run(session, statement, *args)
        if blocked and transaction is None:
            self._run(session, "reset statement_timeout")
        self._judge(session, call, answer, refusal, blocked=blocked)
        if answer.sqlstate is not None:
            if transaction is not None:
                transaction.fail()
            return
        if steps is not None:
            try:
                steps.send(answer.rows)
            except StopIteration:
                pass
            else:
                raise AssertionError("a function's model yields once")
        layer = view.layers[-1]
        if transaction is not None:
            transaction.layers[-1].merge(layer)
        else:
            model.settle(layer)

    def _judge(self, session: Session, call: Call, answer: Answer, refusal: Refusal | None, *, blocked: bool) -> None:
        """Whether the call became what it had to: refused as expected, held up, or done."""
        transaction = self.world.model.transactions.get(session.actor.name)
        if answer.sqlstate == "40001" and transaction is not None and transaction.serializable:
            return
        if blocked:
            if answer.sqlstate not in ("57014", "55P03"):
                raise Mismatch(f"it did not wait for the lock that it needs: {answer}")
            return
        expected = refusal.sqlstate if refusal is not None else None
        if answer.sqlstate != expected:
            raise Mismatch(f"{answer.sqlstate or 'done'}: {answer.text[:2000]!r}, expected {refusal or 'success'}")
        if refusal is not None and refusal.message is not None and answer.message != refusal.message:
            raise Mismatch(f"{answer.message!r}, expected {refusal.message!r}")
        if answer.message == "bus: access denied":
            # Joining has two places to be denied at, by what the caller says of itself.
            told = re.sub(r"(join_channel\(text,jsonb\) line) \d+", r"\1", answer.error)
            known = self.world.denials.setdefault(call.statement, told)
            if told != known:
                raise Mismatch(f"denied in other words than others: {told!r}, {known!r}")

    def _run(self, session: Session, statement: str, *args: str | None) -> Answer:
        self.world.transcript.append((session.actor.name, statement, args))
        answer = session.run(statement, *args)
        self.world.inspect(session, statement, args, answer)
        return answer

    # ---- transactions

    def _expect(self, session: Session, statement: str, *sqlstates: str | None) -> Answer:
        answer = self._run(session, statement)
        if answer.sqlstate not in sqlstates:
            raise Mismatch(f"{statement}: {answer.sqlstate} {answer.text}, expected {sqlstates}")
        return answer

    def _begin(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        model, actor = self.world.model, session.actor
        how = rng.choice(_ISOLATION)
        if transaction is not None:
            self._expect(session, "begin", "25P02" if transaction.aborted else None)  # a warning
            return
        snapshot = how.startswith("isolation")
        if snapshot and (model.is_claimed(actor) or model.is_written(actor)):
            return
        self._expect(session, f"begin {how}", None)
        model.begin(
            actor,
            Transaction(
                read_only=how == "read only",
                serializable="serializable" in how,
                claims=actor.channel if snapshot else None,
            ),
        )

    def _commit(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        can_fail = transaction is not None and transaction.serializable
        answer = self._expect(session, "commit", None, *(["40001"] if can_fail else []))
        if answer.sqlstate is None:
            self.world.model.commit(session.actor)
        else:
            self.world.model.rollback(session.actor)

    def _rollback(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        self._expect(session, "rollback", None)
        self.world.model.rollback(session.actor)

    def _savepoint(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        name = rng.choice(_SAVEPOINTS)
        if transaction is None or transaction.aborted:
            self._expect(session, f"savepoint {name}", "25P01" if transaction is None else "25P02")
        elif len(transaction.layers) < 8:
            self._expect(session, f"savepoint {name}", None)
            transaction.layers.append(Layer(name))

    def _rollback_to(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        name = rng.choice(_SAVEPOINTS)
        at = _at(transaction, name)
        if transaction is None or at is None:
            self._expect(session, f"rollback to {name}", "25P01" if transaction is None else "3B001")
            if transaction is not None:
                transaction.fail()
            return
        self._expect(session, f"rollback to {name}", None)
        transaction.layers[at:] = [Layer(name)]
        transaction.aborted = False
        for layer in transaction.layers:
            layer.cursors.clear()

    def _release(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        name = rng.choice(_SAVEPOINTS)
        at = _at(transaction, name)
        if transaction is None or transaction.aborted or at is None:
            expected = "25P01" if transaction is None else "25P02" if transaction.aborted else "3B001"
            self._expect(session, f"release {name}", expected)
            if transaction is not None:
                transaction.fail()
            return
        self._expect(session, f"release {name}", None)
        for layer in transaction.layers[at:]:
            transaction.layers[at - 1].merge(layer)
        del transaction.layers[at:]

    def _declare(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        if transaction is None or transaction.aborted:
            return
        self._cursors += 1
        name = f"c{self._cursors}"
        call = self._invent(session, rng.choice(_CALLS), rng)
        if self.world.model.is_claimed(session.actor):
            return
        self._call(session, call, rng, declared=name)
        if not transaction.aborted:
            transaction.layers[-1].cursors[name] = call

    def _fetch(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        open_cursors = (
            [] if transaction is None else [(c, layer) for layer in transaction.layers for c in layer.cursors]
        )
        if not open_cursors:
            return
        name, layer = rng.choice(open_cursors)
        self._call(session, layer.cursors.pop(name), rng, fetch=f"fetch all {name}")

    def _listen(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        """Its own channel's name to listen to, and names that others' might have."""
        victims = self.world.victims
        own = [v.channel.wake for v in victims if v.channel.id == session.actor.channel]
        guesses = ["bus_", "bus_" + "0" * 32, "*", *(wake[:-1] for wake in own), *(v.upper() for v in own)]
        name = rng.choice([*own * 4, *guesses])
        aborted = transaction is not None and transaction.aborted
        self._expect(session, f'listen "{name}"', "25P02" if aborted else None)

    # ---- what happens around the calls

    def _lose(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        if session.actor.is_client:  # A retired login would not come back.
            self.world.transcript.append((session.actor.name, "\\connect -- killed, and there again", ()))
            self.world.model.rollback(session.actor)
            self.world.lose(session)

    def _come_back(self, session: Session, transaction: Transaction | None, rng: random.Random) -> None:
        self.world.try_retired()


def _at(transaction: Transaction | None, savepoint: str) -> int | None:
    """Where the layer of the latest savepoint of this name is."""
    layers = transaction.layers if transaction is not None else []
    return next((n for n in range(len(layers) - 1, 0, -1) if layers[n].savepoint == savepoint), None)


class Burst(tuple[bytes, ...]):
    """Steps, which a failure's SQL shows better than their bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{sum(map(any, self))} steps>"


@st.composite
def bursts(draw: st.DrawFn, groups: int) -> Burst:
    """Steps, four to a draw: drawing them one by one takes hypothesis longer than making them."""
    drawn = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=groups, max_size=groups))
    return Burst(group[at : at + 8] for group in drawn for at in range(0, 32, 8))


def machine(world: World, groups: int = 18) -> type[RuleBasedStateMachine]:
    """The state machine over this world, for `run_state_machine_as_test`; a burst has four times `groups` steps."""

    class InterleavedSessions(RuleBasedStateMachine):
        """Clients of several channels, all of them hostile."""

        def __init__(self) -> None:
            super().__init__()
            self.driver = Driver(world)

        @initialize()
        def nobody_has_joined(self) -> None:
            world.reset()

        @rule(steps=bursts(groups))
        def burst(self, steps: Burst) -> None:
            self._noting(self.driver.burst, steps)

        @invariant()
        def nothing_else_has_changed(self) -> None:
            self._noting(world.audit)

        def teardown(self) -> None:
            self._noting(world.audit_catalog)

        def _noting(self, do: Callable[..., Any], *args: Any) -> None:
            try:
                do(*args)
            except Mismatch as mismatch:
                mismatch.add_note(world.script())
                raise

    return InterleavedSessions
