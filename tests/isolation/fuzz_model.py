"""What the client-callable functions must do, in memory: the fuzzer compares every answer and every audit with it.

Each function is a generator in two phases. Before its `yield` it says what must become of the call: it raises Refusal,
or Blocked where the call has to wait for another session's lock. After it, with the rows that the server answered, it
raises Mismatch, or writes what the call has changed.

What only the server knows is taken from it where it can be checked: ids must grow, queue names must be new, and how far
the log is trimmed (readers do it, at most twice a second) must lie between what is known and what every peer has
acknowledged.
"""

import json
import re
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from fuzz_calls import Call, Message, is_address
from fuzz_state import (
    Actor,
    Channel,
    Entry,
    Key,
    Layer,
    Mismatch,
    Peer,
    Refusal,
    Transaction,
    Unpredictable,
    View,
)

Row = tuple[str | None, ...]
Steps = Generator[None, list[Row], None]

BIGGEST = 2**63 - 1
MINUTE, DAY = 60_000_000, 86_400_000_000
DENIED = ("42501", "bus: access denied")
TAKEN = ("BUS01", "bus: a later process took the place of this durable peer")


def _require(what: bool, told: object) -> None:
    if not what:
        raise Mismatch(told)


def _deny() -> NoReturn:
    raise Refusal(*DENIED)


def _require_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is None or not low <= value <= high:
        got = "null" if value is None else value
        raise Refusal("22023", f"bus: {name} must be between {low} and {high}, got {got}")


OPTIONS = Refusal(
    "22023", "bus: peer, application, host, runtime and address must be texts, since digits, listens a boolean"
)


class Server(Protocol):
    """What only the server knows."""

    def head(self, channel: int) -> int:
        """The highest id that the channel's log ever gave."""

    def trimmed(self, channel: int) -> int:
        """Up to where its messages are gone."""


class Model:
    """All channels of a database and all their peers."""

    def __init__(self, channels: list[Channel], server: Server) -> None:
        self.channels = {channel.id: channel for channel in channels}
        self.by_name = {channel.name: channel for channel in channels}
        self.by_token = {channel.token: channel for channel in channels}
        self._server = server
        self.reset()

    def reset(self) -> None:
        """Nobody has joined, and every log is empty."""
        self.committed: dict[Key, Any] = {}
        self.transactions: dict[str, Transaction] = {}
        self.logs: dict[int, list[Entry]] = {number: [] for number in self.channels}
        self.numbers: dict[int, list[int]] = {number: [] for number in self.channels}
        #: Every queue name that was ever given, and to which peer.
        self.queues: dict[str, int] = {}
        self.trimmed = dict.fromkeys(self.channels, 0)
        #: The highest id that a publisher was told.
        self.told = dict.fromkeys(self.channels, 0)

    # ---- who may what

    def admit(self, actor: Actor, call: Call) -> None:
        """What PostgreSQL decides before a function runs: names, the parameters' types, the right to execute."""
        own = call.function in ("publish", "read")
        if not actor.is_client and call.schema != "public":
            raise Refusal("42501")
        if own and call.token not in self.by_token:
            raise Refusal("42883")
        call.bind(Refusal)
        if not actor.is_client or (own and self.by_token[call.token].id != actor.channel):
            raise Refusal("42501")

    def member(self, actor: Actor, view: View, queue: str | None, channel: Channel | None) -> Peer | None:
        """The peer that the session may act as."""
        peer = view.get(("peer", self.queues.get(queue or "")))
        fits = peer is not None and channel is not None and peer.channel == channel.id and peer.queue == queue
        return peer if fits and actor.channel == peer.channel else None

    def require_member(self, actor: Actor, view: View, queue: str | None, channel: Channel | None) -> Peer:
        peer = self.member(actor, view, queue, channel)
        if peer is not None:
            return peer
        if actor.channel is not None and any(p.former_queue == queue for p in view.peers(actor.channel) if queue):
            raise Refusal(*TAKEN)
        _deny()

    # ---- a call

    def steps(self, actor: Actor, view: View, call: Call) -> Steps:
        """The function's generator."""
        steps: Steps = getattr(self, f"_{call.function}")(actor, view, call)
        return steps

    def _publish(self, actor: Actor, view: View, call: Call) -> Steps:
        yield from self._append(actor, view, call.args[0], self.by_token[call.token], call.messages, foreign=False)

    def _bus_publish(self, actor: Actor, view: View, call: Call) -> Steps:
        if call.args[2] is None:
            raise Refusal("22023", "bus: a message must not be null")
        channel = self.by_name.get(call.args[0] or "")
        self.require_member(actor, view, call.args[1], channel)
        assert channel is not None
        yield from self._append(actor, view, call.args[1], channel, call.messages, foreign=True)

    def _v1_publish(self, actor: Actor, view: View, call: Call) -> Steps:
        channel = self.by_name.get(call.args[0] or "")
        self.require_member(actor, view, call.args[1], channel)
        assert channel is not None
        yield from self._append(actor, view, call.args[1], channel, call.messages, foreign=True)

    def _append(
        self,
        actor: Actor,
        view: View,
        queue: str | None,
        channel: Channel,
        messages: tuple[Message | None, ...] | None,
        *,
        foreign: bool,
    ) -> Steps:
        _require_range("the number of messages", None if messages is None else len(messages), 1, 10000)
        assert messages is not None
        if view.read_only:
            raise Refusal("25006")
        peer = self.require_member(actor, view, queue, channel)
        view.lock(("channel", channel.id))
        for message in messages:
            if message is not None and message.error is not None:
                raise Refusal(message.error)
        texts = [message.stored for message in messages if message is not None]
        if len(texts) < len(messages):
            raise Refusal("22023", "bus: a message must not be null")
        largest = max(len(text.encode()) for text in texts)
        if largest > channel.max_message_bytes:
            limit = channel.max_message_bytes
            raise Refusal("54000", f"bus: message of {largest} bytes exceeds this channel's limit of {limit} bytes")
        (row,) = yield
        ids = [int(number) for number in (row[0] or "").strip("{}").split(",")]
        _require(ids == list(range(ids[0], ids[0] + len(texts))), f"ids {ids} for {len(texts)} messages")
        _require(ids[0] > self.told[channel.id], f"id {ids[0]} after {self.told[channel.id]}")
        if not foreign:
            _require(row[1] == str(view.counts(channel.id).roster), f"roster {row[1]}")
        self.told[channel.id] = ids[-1]
        marked = peer.number if peer.is_foreign or not channel.self_delivery else None
        for number, text in zip(ids, texts, strict=True):
            view.append(channel.id, Entry(number, text, marked))

    def _read(self, actor: Actor, view: View, call: Call) -> Steps:
        numbers = call.number(1), call.number(2), call.number(3)
        channel = self.by_token[call.token]
        yield from self._read_log(actor, view, channel, call.args[0], *numbers, call.args[4])

    def _v1_read(self, actor: Actor, view: View, call: Call) -> Steps:
        channel = self.by_name.get(call.args[0] or "")
        self.require_member(actor, view, call.args[1], channel)
        assert channel is not None
        roster = str(view.counts(channel.id).roster)
        numbers = call.number(2), call.number(3), call.number(5)
        reading = self._read_log(actor, view, channel, call.args[1], *numbers, roster)
        next(reading)
        rows = yield
        try:
            reading.send([(*row, None) for row in rows])
        except StopIteration:
            return

    def _read_log(
        self,
        actor: Actor,
        view: View,
        channel: Channel,
        queue: str | None,
        after: int | None,
        acknowledge: int | None,
        limit: int | None,
        roster: str | None,
    ) -> Steps:
        _require_range("p_after", after, 0, BIGGEST)
        _require_range("p_limit", limit, 0, 10000)
        assert after is not None
        assert limit is not None
        peer = self.require_member(actor, view, queue, channel)
        key = ("peer", peer.number)
        if acknowledge is not None and acknowledge > peer.acknowledged:
            view.lock(key)
            head = self._server.head(channel.id)
            peer = replace(
                peer,
                acknowledged=max(peer.acknowledged, min(acknowledge, head)),
                delivered=max(peer.delivered, min(after, head)),
                position=max(peer.position, min(after, head)),
                login=actor.login,
            )
            view.put(key, peer)
        elif channel.has_retention and view.read_only:
            raise Refusal("25006")
        highest = self._highest_trim(view, channel)
        if limit and highest > after and (view.read_only or view.locked(key)):
            raise Unpredictable  # What was lost is noted in the peer's row, if there is something.
        rows = yield
        expected: list[Row] = []
        version = view.counts(channel.id).roster
        if roster is None or int(roster) != version:
            expected.append((None, None, None, str(version)))
        lowest = after
        if limit:
            lost = next((row for row in rows if row[2] is not None), None)
            if lost is not None:
                trimmed = int(lost[0] or 0)
                _require(max(after, self.trimmed[channel.id] - 1) < trimmed <= highest, f"trimmed up to {trimmed}")
                expected.append((str(trimmed), None, str(trimmed - after), None))
                if not view.in_transaction:
                    self.trimmed[channel.id] = trimmed
                view.lock(key)
                view.put(key, replace(peer, lost=peer.lost + trimmed - after))
                lowest = trimmed
            else:
                _require(self.trimmed[channel.id] <= after, f"not told that up to {self.trimmed[channel.id]} is lost")
            for entry in view.log(channel.id, lowest, limit):
                own = not channel.self_delivery and entry.marked == peer.number
                expected.append((str(entry.id), None if own else entry.text, None, None))
        _require(rows == expected, f"read {rows}, expected {expected}")

    def _highest_trim(self, view: View, channel: Channel) -> int:
        """How far the log may be trimmed already."""
        if channel.has_retention:
            return max((self.told[channel.id], *(peer.acknowledged for peer in view.peers(channel.id))))
        acknowledged = min((peer.acknowledged for peer in view.peers(channel.id)), default=0)
        return max(self.trimmed[channel.id], acknowledged)

    def _bus_subscribe(self, actor: Actor, view: View, call: Call) -> Steps:
        queue, name = call.args[0], call.args[1]
        visibility, quantity, seconds = call.number(2), call.number(3), call.number(4)
        _require_range("p_vt", visibility, 1, 43200)
        _require_range("p_qty", quantity, 1, 10000)
        _require_range("p_max_seconds", seconds, 0, 3600)
        assert quantity is not None
        channel = self.by_name.get(name or "")
        peer = self.require_member(actor, view, queue, channel)
        assert channel is not None
        key = ("peer", peer.number)
        trimmed = self._trimmed_for(view, channel, peer.acknowledged)
        start = max(peer.acknowledged, trimmed)
        if view.log(channel.id, start, 1) or max(start, peer.position) > peer.acknowledged:
            view.lock(key)
        elif view.read_only and channel.has_retention:
            raise Refusal("25006")
        rows = yield
        while True:
            start = max(peer.acknowledged, trimmed)
            entries = view.log(channel.id, start, quantity)
            scanned = entries[-1].id if entries else start
            if max(scanned, peer.position) == peer.acknowledged:
                break
            wanted = [e for e in entries if channel.self_delivery or e.marked != peer.number]
            peer = replace(
                peer,
                position=scanned,
                delivered=max(peer.delivered, wanted[-1].id) if wanted else peer.delivered,
                acknowledged=start if wanted else scanned,
                login=actor.login,
                lost=peer.lost + start - peer.acknowledged,
                redelivered=peer.redelivered + sum(entry.id <= peer.delivered for entry in wanted),
            )
            view.put(key, peer)
            if wanted:
                _require(rows == [(str(e.id), e.text) for e in wanted], f"subscribed {rows}, expected {wanted}")
                return
            if not entries:
                break
        _require(not rows, f"subscribed {rows}, expected nothing")

    def _trimmed_for(self, view: View, channel: Channel, start: int) -> int:
        """How far the log is trimmed, where that matters to who reads after `start`: the superuser looks."""
        if self._highest_trim(view, channel) <= start:
            return self.trimmed[channel.id]
        if view.in_transaction:
            raise Unpredictable  # It may have trimmed itself, which nobody else sees yet.
        self.trimmed[channel.id] = self._server.trimmed(channel.id)
        return self.trimmed[channel.id]

    def _bus_archive(self, actor: Actor, view: View, call: Call) -> Steps:
        queue, name = call.args[0], call.args[1]
        number = call.number(2)
        peer = self.require_member(actor, view, queue, self.by_name.get(name or ""))
        key = ("peer", peer.number)
        moves = number is not None and peer.acknowledged < number <= max(peer.delivered, peer.position)
        if moves:
            view.lock(key)
        elif view.read_only:
            raise Refusal("25006")
        rows = yield
        _require(rows == [("t" if moves else "f",)], f"archive of {number} by {peer}: {rows}")
        if moves and number is not None:
            reached = max(number, peer.position) if number >= peer.delivered else number
            view.put(key, replace(peer, acknowledged=reached, position=max(peer.position, number)))

    def _bus_leave(self, actor: Actor, view: View, call: Call) -> Steps:
        yield from self._exit(actor, view, call.args[0], call.args[1], (None, None))

    def _leave(self, actor: Actor, view: View, call: Call) -> Steps:
        yield from self._exit(actor, view, call.args[1], call.args[0], ("t", "f"))

    def _exit(
        self, actor: Actor, view: View, queue: str | None, name: str | None, answers: tuple[str | None, str | None]
    ) -> Steps:
        peer = self.member(actor, view, queue, self.by_name.get(name or ""))
        if peer is not None:
            view.lock(("peer", peer.number))
            view.lock(("channel", peer.channel))
        rows = yield
        _require(rows == [(answers[0] if peer is not None else answers[1],)], f"leaving: {rows}")
        if peer is None:
            return
        view.change_roster(peer.channel)
        view.put(("peer", peer.number), None)
        counts = view.counts(peer.channel)
        lost, redelivered = counts.left_lost + peer.lost, counts.left_redelivered + peer.redelivered
        view.put(("channel", peer.channel), replace(counts, left_lost=lost, left_redelivered=redelivered))

    def _bus_join(self, actor: Actor, view: View, call: Call) -> Steps:
        yield from self._enter(actor, view, self.by_name.get(call.args[0] or ""), {}, foreign=True)

    def _join_channel(self, actor: Actor, view: View, call: Call) -> Steps:
        options = None if call.args[1] is None else json.loads(call.args[1])
        if call.args[1] is not None and not isinstance(options, dict):
            raise Refusal("22023", "bus: p_options must be an object")
        options = options or {}
        texts = ("peer", "application", "host", "runtime", "address")
        if any(not isinstance(options.get(key), str | None) for key in texts):
            raise OPTIONS
        if not isinstance(options.get("listens"), bool | None):
            raise OPTIONS
        since = options.get("since")
        if since is not None and not (isinstance(since, str) and re.fullmatch("[0-9]{1,16}", since)):
            raise OPTIONS
        _require_address(options.get("address"))
        foreign = (options.get("runtime") or "").startswith("bus_runtime/") and "address" not in options
        if foreign:
            options = {**options, "listens": True}
        channel = self.by_name.get(call.args[0] or "")
        yield from self._enter(actor, view, channel, options, foreign=foreign)

    def _enter(
        self, actor: Actor, view: View, channel: Channel | None, options: dict[str, Any], *, foreign: bool
    ) -> Steps:
        if channel is None or actor.channel != channel.id:
            _deny()
        name = options.get("peer")
        if name is not None and not 1 <= len(name) <= 200:
            raise Refusal("22023", "bus: a peer name has 1 to 200 characters")
        before = None
        since: str | None = options.get("since")
        if name is not None:
            view.lock(("name", channel.id, name))
            before = next((peer for peer in view.peers(channel.id) if peer.name == name), None)
            if before is not None:
                view.lock(("peer", before.number))
                if since is not None and int(since) < before.since:
                    raise Refusal(*TAKEN)
        view.lock(("channel", channel.id))
        others = list(view.peers(channel.id))
        count = len(others) + (before is None)
        if before is None and channel.max_peers < count:
            raise Refusal("54000", f"bus: channel has its maximum of {channel.max_peers} peers")
        head = self._server.head(channel.id)
        rows = yield
        _require(len(rows) == 1, rows)
        answer = rows[0][0] or ""
        joined: dict[str, Any] = json.loads(answer) if answer.startswith("{") else {"queue": answer}
        queue = joined["queue"]
        _require(len(queue) == 32 and queue not in self.queues, f"queue {queue!r}")
        fresh: dict[str, Any] = {
            "queue": queue,
            "login": actor.login,
            "is_foreign": foreign,
            "application": _cut(options.get("application")),
            "host": _cut(options.get("host")),
            "runtime": _cut(options.get("runtime")),
            "address": options.get("address"),
            "listens": bool(options.get("listens")),
            "since": int(joined.get("since") or 0),
        }
        again = 0 if before is None or since is not None else max(before.delivered - before.acknowledged, 0)
        if before is None:
            number = len(self.queues) + 1
            self.numbers[channel.id].append(number)
            peer = Peer(
                number=number, channel=channel.id, name=name, acknowledged=head, delivered=head, position=head, **fresh
            )
        else:
            peer = replace(
                before,
                former_queue=before.queue,
                position=before.acknowledged,
                redelivered=before.redelivered + again,
                **fresh,
            )
        self.queues[queue] = peer.number
        view.lock(("peer", peer.number))
        view.put(("peer", peer.number), peer)
        view.change_roster(channel.id)
        if len(joined) > 1:
            expected = {
                "queue": queue,
                "token": channel.token,
                "position": peer.acknowledged,
                "delivered": peer.delivered,
                "head": head,
                "since": None if name is None else self._joined_at(since, before, joined["since"]),
                "wake": channel.wake,
                "key": channel.key,
                "peers": count,
                # One without a name does not count itself, unless it is alone.
                "foreign": any(p.is_foreign for p in others if p.number != peer.number)
                or (foreign and (name is not None or not others)),
                "durability": channel.durability,
                "self_delivery": channel.self_delivery,
                "max_message_bytes": channel.max_message_bytes,
                "peer_timeout_seconds": channel.timeout_seconds,
                "schema_version": channel.schema_version,
                "resumed": before is not None,
            }
            _require(joined == expected, f"joined {joined}, expected {expected}")

    def _joined_at(self, claimed: str | None, before: Peer | None, told: str) -> str:
        """When a durable peer joined: what it claims, or now, which is later than its earlier holder."""
        now = time.time_ns() // 1000
        if claimed is not None and int(claimed) < now:
            return str(int(claimed))
        earliest = now - MINUTE if before is None else before.since + 1
        _require(earliest <= int(told) <= now + DAY + MINUTE, f"joined at {told}, not between {earliest} and now")
        return told

    def _wake_by(self, actor: Actor, view: View, call: Call) -> Steps:
        name, queue, address, listens = call.args
        _require_address(address)
        peer = self.require_member(actor, view, queue, self.by_name.get(name or ""))
        view.lock(("peer", peer.number))
        view.lock(("channel", peer.channel))
        rows = yield
        view.put(("peer", peer.number), replace(peer, address=address, listens=listens in ("true", "t", "1")))
        version = view.change_roster(peer.channel)
        _require(rows == [(str(version),)], f"roster {rows}, expected {version}")

    def _notify(self, actor: Actor, view: View, call: Call) -> Steps:
        self.require_member(actor, view, call.args[1], self.by_name.get(call.args[0] or ""))
        rows = yield
        _require(rows == [("",)], rows)

    def _roster(self, actor: Actor, view: View, call: Call) -> Steps:
        channel = self.by_name.get(call.args[0] or "")
        me = self.require_member(actor, view, call.args[1], channel)
        assert channel is not None
        rows = yield
        told = json.loads(rows[0][0] or "null")
        peers = sorted(view.peers(channel.id), key=lambda peer: peer.number)
        watcher = next((p.number for p in peers if p.address is not None and not p.is_foreign), None)
        expected = {
            "version": view.counts(channel.id).roster,
            "key": channel.key,
            "wake": channel.wake,
            "peers": len(peers),
            "foreign": any(peer.is_foreign for peer in peers),
            "watches": watcher == me.number,
            "listeners": any(peer.listens for peer in peers),
            "addresses": sorted(p.address for p in peers if p.address is not None and p.number != me.number),
        }
        told["addresses"].sort()
        _require(told == expected, f"roster {told}, expected {expected}")

    # ---- transactions

    def begin(self, actor: Actor, transaction: Transaction) -> None:
        if actor.name not in self.transactions:
            self.transactions[actor.name] = transaction

    def commit(self, actor: Actor) -> None:
        transaction = self.transactions.pop(actor.name, None)
        if transaction is not None and not transaction.aborted:
            for layer in transaction.layers:
                self.settle(layer)

    def settle(self, layer: Layer) -> None:
        """What a layer wrote is everybody's."""
        self.committed |= layer.writes
        for channel, entries in layer.log.items():
            self.logs[channel].extend(entries)

    def is_written(self, actor: Actor) -> bool:
        """Whether another session's open transaction has written to the actor's channel."""
        return any(
            (key[0] == "channel" and key[1] == actor.channel)
            or (key[0] == "peer" and self._is_of(key[1], actor.channel))
            for name, transaction in self.transactions.items()
            if name != actor.name
            for layer in transaction.layers
            for key in layer.locks
        )

    def _is_of(self, number: int, channel: int | None) -> bool:
        return channel is not None and number in self.numbers[channel]

    def names_of(self, channel: int, view: View, *, former: bool = False) -> list[str]:
        """The queue names of a channel's peers; with `former`, those of peers that are no more."""
        current = [peer.queue for peer in view.peers(channel)]
        if not former:
            return current
        return [queue for queue, number in self.queues.items() if self._is_of(number, channel) and queue not in current]

    # ---- what a superuser sees

    def owner_of(self, queue: str) -> int | None:
        """The channel to which a queue name was given."""
        number = self.queues.get(queue)
        return next((channel for channel, numbers in self.numbers.items() if number in numbers), None)

    def may_be_trimmed(self, channel: int, to: int) -> bool:
        """Whether the log may be trimmed so far: nothing that a peer has not acknowledged, but for retention."""
        committed = View(self, Actor("superuser", "", None))
        peers = list(committed.peers(channel))
        highest = self._highest_trim(committed, self.channels[channel])
        # The last to leave has trimmed up to where it stood, and nobody is left to say where that was.
        return self.trimmed[channel] <= to and (to <= highest or not peers)

    def note_trimmed(self, channel: int, to: int) -> list[Entry]:
        """The log that is left."""
        self.trimmed[channel] = to
        self.logs[channel] = [entry for entry in self.logs[channel] if entry.id > to]
        return self.logs[channel]

    def rollback(self, actor: Actor) -> None:
        self.transactions.pop(actor.name, None)

    def is_claimed(self, actor: Actor) -> bool:
        """Whether another session's transaction must not see the channel change."""
        return any(
            transaction.claims == actor.channel and name != actor.name
            for name, transaction in self.transactions.items()
        )


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:200]


def _require_address(address: str | None) -> None:
    if address is not None and not is_address(address):
        raise Refusal("22023", "bus: address must look like 10.0.0.1:12345 or [fd00::1]:12345")
