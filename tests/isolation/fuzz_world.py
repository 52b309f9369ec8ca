"""What the fuzzer attacks: a real database with channels that hold secrets, and the sessions of their logins.

The sessions speak libpq directly: it is the fastest way to make one call after the other and shows everything that
reaches a client: rows, all fields of errors, notices and notifications.
"""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import postgres
from fuzz_calls import NO_UTF8
from fuzz_model import Model, Row
from fuzz_state import Actor, Channel, Counts, Mismatch, Peer
from psycopg import pq

from bus_operator import render, sql

EXPECTED_SQLSTATES = {
    "22003": "a number that its type does not hold",
    "22021": "text that is no UTF-8",
    "22023": "an argument that a function refuses",
    "22P02": "text that is no number, or no JSON",
    "22P05": "JSON with a NUL",
    "25006": "a write in a transaction that was begun read only",
    "25P01": "a savepoint outside of a transaction",
    "25P02": "a call in a transaction that failed before",
    "3B001": "a savepoint that is not there",
    "40001": "a transaction that was begun serializable",
    "42501": "no member, or no right to execute",
    "42883": "a channel's function that is not there",
    "54000": "a message that is too large, or a peer too many",
    "54001": "JSON that is nested too deeply",
    "55P03": "a lock that another session of the same channel holds",
    "57014": "the same, and the caller's own time limit is up",
    "BUS01": "a later process has taken the durable peer's place",
}
"""Every error that a client may meet, and what for. Any other is a finding."""

_FIELDS = (
    pq.DiagnosticField.SEVERITY, pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_DETAIL,
    pq.DiagnosticField.MESSAGE_HINT, pq.DiagnosticField.CONTEXT, pq.DiagnosticField.INTERNAL_QUERY,
    pq.DiagnosticField.SCHEMA_NAME, pq.DiagnosticField.TABLE_NAME, pq.DiagnosticField.COLUMN_NAME,
    pq.DiagnosticField.DATATYPE_NAME, pq.DiagnosticField.CONSTRAINT_NAME,
)  # fmt: skip


_QUEUE = re.compile("(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def _field(result: pq.abc.PGresult, which: pq.DiagnosticField) -> str:
    return (result.error_field(which) or b"").decode(errors="surrogateescape")


@dataclass(frozen=True)
class Answer:
    """What the server answered: rows, or an error with all that it says."""

    rows: list[Row] = field(default_factory=list)
    sqlstate: str | None = None
    message: str = ""
    #: All fields of the error.
    error: str = ""
    #: Everything that reached the client, for the search for secrets.
    text: str = ""


class Session:
    """One session of a login, with the notices and notifications that it got."""

    def __init__(self, actor: Actor, uri: str) -> None:
        self.actor = actor
        self._uri = uri
        self._notices: list[str] = []
        self.connect()

    def connect(self) -> None:
        """Opens a new session in the place of the former one."""
        self.wire = pq.PGconn.connect(self._uri.encode())
        self._prepared: dict[str, bytes] = {}
        if self.wire.status != pq.ConnStatus.OK:
            raise ConnectionError(self.wire.error_message.decode())
        self.wire.notice_handler = self._noticed
        # As who wants to hold a transaction open would.
        self.run("set idle_in_transaction_session_timeout = 0")

    def _noticed(self, result: pq.abc.PGresult) -> None:
        self._notices.append(" ".join(_field(result, which) for which in _FIELDS))

    def run(self, statement: str, *args: str | None) -> Answer:
        """Executes one statement. Raises Mismatch when the session ends over it."""
        values = [None if arg is None else arg.encode(errors="surrogateescape") for arg in args]
        result = self._execute(statement, values)
        if self.wire.status != pq.ConnStatus.OK:
            raise Mismatch(f"the session ended: {result.error_message.decode(errors='replace')}")
        notices, self._notices = self._notices, []
        heard = []
        while (notification := self.wire.notifies()) is not None:
            heard.append(f"{notification.relname.decode()} {notification.extra.decode()}")
        if result.status == pq.ExecStatus.FATAL_ERROR:
            told = [_field(result, which) for which in _FIELDS]
            text = "\n".join([*told, *notices, *heard])
            return Answer([], _field(result, pq.DiagnosticField.SQLSTATE), told[1], "\n".join(told), text)
        columns = range(result.nfields)
        rows: list[Row] = []
        for number in range(result.ntuples):
            cells = [result.get_value(number, column) for column in columns]
            rows.append(tuple(None if cell is None else cell.decode() for cell in cells))
        cells_text = [cell for row in rows for cell in row if cell is not None]
        return Answer(rows, text="\n".join([*cells_text, *notices, *heard]))

    def _execute(self, statement: str, values: list[bytes | None]) -> pq.abc.PGresult:
        """Calls are prepared once a session, as drivers do: it halves their time."""
        if not values:
            return self.wire.exec_params(statement.encode(), None)
        name = self._prepared.get(statement)
        if name is None:
            name = f"s{len(self._prepared)}".encode()
            result = self.wire.prepare(name, statement.encode())
            if result.status != pq.ExecStatus.COMMAND_OK:
                return result
            self._prepared[statement] = name
        return self.wire.exec_prepared(name, values)  # type: ignore[arg-type]  # None is null there, too

    def close(self) -> None:
        self.wire.finish()


@dataclass
class Victim:
    """One channel as the fuzzer knows it: whatever contains one of its secrets came from it."""

    provisioned: postgres.Channel
    channel: Channel
    role: str
    marker: str
    network: str

    @property
    def secrets(self) -> list[str]:
        channel = self.channel
        return [self.marker, channel.name, channel.token, channel.wake, channel.key, self.network + "."]


AUDIT = {path.stem: path.read_text() for path in (Path(__file__).parent / "audit").glob("*.sql")}
"""What a superuser looks at: peers and channels after each burst, the others after each run."""

SPECS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sync", {"durability": "Sync", "limits": {"maxPeers": 9, "maxMessageBytes": 2048}}),
    ("quiet", {"durability": "Async", "selfDelivery": False, "limits": {"maxPeers": 9, "maxMessageBytes": 2048}}),
    (
        "bounded",
        {
            "durability": "Unlogged",
            "retention": {"maxMessages": 30},
            "limits": {"maxPeers": 9, "maxMessageBytes": 2048},
        },
    ),
)


class World:
    """A database with three channels, two sessions or more of the logins of each, and those who belong nowhere."""

    def __init__(self, database: postgres.Database, elsewhere: postgres.Database) -> None:
        self._database = database
        self.calls = 0
        self.made: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.transcript: list[tuple[str, str, tuple[str | None, ...]]] = []
        #: What each function says to those it denies: always the same, or it tells whether a channel exists.
        self.denials: dict[str, str] = {}
        self._admin = Session(Actor("admin", postgres.SUPERUSER, None), database.dsn)
        self.victims = asyncio.run(self._provision())
        self.model = Model([victim.channel for victim in self.victims], self)
        self.sessions = self._log_in(elsewhere)
        self._foreign = {
            victim.channel.id: re.compile(
                "|".join(
                    [
                        _QUEUE.pattern,
                        *(re.escape(text) for other in self.victims if other is not victim for text in other.secrets),
                    ]
                )
            )
            for victim in self.victims
        }
        everything = [re.escape(text) for victim in self.victims for text in victim.secrets]
        self._anybodys = re.compile("|".join([_QUEUE.pattern, *everything]))
        self.take_as_given()

    def take_as_given(self) -> None:
        """What clients can never change is from now on as it is."""
        self._fixed = {name: self._look(name) for name in ("registry", "catalog")}
        self._registry = [row[7] for row in self._look("channels")]
        self.denials.clear()

    # ---- making it

    async def _provision(self) -> list[Victim]:
        # A million statements are not worth a line each; what ends a server is still logged.
        for setting in ("log_statement = 'none'", "log_min_duration_statement = -1", "log_min_messages = 'fatal'"):
            self._admin.run(f"alter database {self._database.name} set {setting}")
        made = []
        for number, (kind, spec) in enumerate(SPECS):
            name = f"{kind}-{secrets.token_hex(6)}"
            provisioned = await self._database.create_channel(name, peerTimeout="24h", **spec)
            query = "select c.id, c.queue, c.wake, encode(c.doorbell_key, 'base64'), c.role, i.schema_version"
            row = self.ask(f"{query} from pgmq_bus.channel as c, pgmq_bus.installation as i where c.name = $1", name)[0]
            fields = [str(cell) for cell in row]
            channel = Channel(
                id=int(fields[0]), name=name, token=fields[1].removeprefix("bus_"), wake=fields[2], key=fields[3],
                durability=str(spec["durability"]), self_delivery=spec.get("selfDelivery") is not False,
                max_peers=9, max_message_bytes=2048, timeout_seconds=86_400, has_retention="retention" in spec,
                schema_version=int(fields[5]),
            )  # fmt: skip
            marker = f"secret-of-{kind}-{secrets.token_hex(6)}"
            made.append(Victim(provisioned, channel, fields[4], marker, f"10.{77 + number}"))
        return made

    def _log_in(self, elsewhere: postgres.Database) -> list[Session]:
        sessions = []

        def session(name: str, channel: postgres.Channel, number: int | None, *, is_client: bool = True) -> Session:
            made = Session(
                Actor(name, channel.username, number, is_client),
                channel.endpoint.uri(channel.username, channel.password),
            )
            sessions.append(made)
            return made

        for victim, names in zip(self.victims, (("a1", "a2"), ("b1", "b2"), ("c1",)), strict=True):
            for name in names:
                session(name, victim.provisioned, victim.channel.id)
        for victim, name in zip(self.victims[:2], ("a3", "b3"), strict=True):
            # The credential of the next generation, while the one before is still in use.
            session(name, self._reissued(victim), victim.channel.id)
        stranger = asyncio.run(elsewhere.create_channel("elsewhere"))
        here = replace(stranger, endpoint=self.victims[0].provisioned.endpoint)
        session("stranger", here, None)
        # Logins that are no members any more, and whose sessions have outlived that.
        retired, dropped = self._reissued(self.victims[0]), self._reissued(self.victims[0])
        session("retired", retired, None, is_client=False)
        session("dropped", dropped, None, is_client=False)
        for login in (retired.username, dropped.username):
            self._admin.run(render.revoke_role(self.victims[0].role, login))
            self._admin.run(sql.query("delete_login"), login)
        self._admin.run(render.forbid_login(retired.username))
        self._admin.run(render.drop_role(dropped.username))
        self._retired = retired
        return sessions

    def _reissued(self, victim: Victim) -> postgres.Channel:
        spec = dict(SPECS[self.victims.index(victim)][1])
        return asyncio.run(self._database.create_channel(victim.channel.name, peerTimeout="24h", **spec))

    def close(self) -> None:
        for session in (*self.sessions, self._admin):
            session.close()

    # ---- a superuser's view

    def ask(self, statement: str, *args: str | None) -> list[Row]:
        """Rows of a superuser's query."""
        answer = self._admin.run(statement, *args)
        if answer.sqlstate is not None:
            raise RuntimeError(f"{statement}: {answer.message}")
        return answer.rows

    def head(self, channel: int) -> int:
        """The highest id that the channel's log ever gave."""
        log = f"pgmq.q_bus_{self.model.channels[channel].token}_msg_id_seq"
        return int(self.ask("select coalesce(pg_sequence_last_value($1::text::regclass), 0)", log)[0][0] or 0)

    def trimmed(self, channel: int) -> int:
        """Up to where the channel's messages are gone."""
        query = "select trimmed from pgmq_bus.channel_state where channel_id = $1"
        return int(self.ask(query, str(channel))[0][0] or 0)

    def definition(self, name: str) -> str:
        """A statement that makes a function or view anew as it is."""
        function = self.ask("select pg_get_functiondef(to_regproc($1::text))", name)[0][0]
        view = "select format('create or replace view %s as %s', $1::text, pg_get_viewdef(to_regclass($1::text)))"
        return str(function or self.ask(view, name)[0][0])

    def _look(self, name: str) -> list[Row]:
        return self.ask(AUDIT[name])

    def reset(self) -> None:
        """Everybody has left and nothing was ever published."""
        done = {name for name, _, _ in self.transcript}
        for session in self.sessions:
            if session.actor.name in done:
                session.run("rollback")
                session.run("unlisten *")
        logs = [f"pgmq.q_bus_{victim.channel.token}" for victim in self.victims]
        self.ask("delete from pgmq_bus.peer")
        self.ask("update pgmq_bus.channel set roster = 1, left_lost = 0, left_redelivered = 0")
        self.ask(
            "update pgmq_bus.channel_state set trimmed = 0, trim_after = '-infinity', measured_to = 0,"
            " measured_messages = 0, measured_bytes = 0, dropped_lost = 0, dropped_redelivered = 0"
        )
        self.ask(f"truncate {', '.join(logs)} restart identity")
        self.model.reset()
        self.transcript.clear()

    def audit(self) -> None:
        """Compares the registry and the logs with the model. Raises Mismatch."""
        model = self.model
        expected = sorted(
            (_peer_row(peer) for key, peer in model.committed.items() if key[0] == "peer" and peer is not None),
            key=lambda row: row[0] or "",
        )
        _same("peers", self._look("peers"), expected)
        for row, registry in zip(self._look("channels"), self._registry, strict=True):
            channel = model.channels[int(row[0] or 0)]
            counts = model.committed.get(("channel", channel.id)) or Counts()
            trimmed = int(row[4] or 0)
            told = (
                str(channel.id),
                str(counts.roster),
                str(counts.left_lost),
                str(counts.left_redelivered),
                row[4],
                "0",
                "0",
                registry,
            )
            _same(f"channel {channel.name}", row, told)
            _same(f"{channel.name} is trimmed up to {trimmed}", model.may_be_trimmed(channel.id, trimmed), True)
            log = self.ask(
                f"select msg_id, message::text, headers is null from pgmq.q_bus_{channel.token} order by msg_id"
            )
            entries = [
                (str(e.id), e.text, "t" if e.marked is None else "f") for e in model.note_trimmed(channel.id, trimmed)
            ]
            _same(f"log of {channel.name}", log, entries)

    def audit_catalog(self) -> None:
        """What no call ever changes. Raises Mismatch."""
        for name, before in self._fixed.items():
            _same(name, self._look(name), before)

    def try_retired(self) -> None:
        """A login that was withdrawn does not get a new session."""
        wire = pq.PGconn.connect(self._retired.uri.encode())
        status, told = wire.status, wire.error_message.decode()
        wire.finish()
        if status == pq.ConnStatus.OK or "password authentication failed" not in told:
            raise Mismatch(f"the retired login's new session: {status} {told}")

    def lose(self, session: Session) -> None:
        """Ends a client's session as a killed process would; returns when the server has noticed."""
        pid = str(session.wire.backend_pid)
        session.close()
        deadline = time.monotonic() + 30
        while self.ask("select 1 from pg_stat_activity where pid = $1::text::integer", pid):
            if time.monotonic() > deadline:
                raise Mismatch("the session of a client that is gone is there after 30 s")
        session.connect()

    def script(self) -> str:
        """What was done since the reset, as SQL: a line for each statement, after the session that executes it."""
        logins = [f"-- {session.actor.name}: {session.actor.login}" for session in self.sessions]
        lines = [f"/* {name} */ {_literals(statement, args)};" for name, statement, args in self.transcript]
        return "\n".join(["The calls, each in its session (queue names are new in each run):", *logins, *lines])

    # ---- what an answer may contain

    def inspect(self, session: Session, statement: str, args: tuple[str | None, ...], answer: Answer) -> None:
        """Raises Mismatch for an error that nobody expects, and for what belongs to another channel."""
        if answer.sqlstate is not None:
            self.errors[answer.sqlstate] = self.errors.get(answer.sqlstate, 0) + 1
            if answer.sqlstate not in EXPECTED_SQLSTATES:
                raise Mismatch(f"{answer.sqlstate} {answer.text}")
        channel = session.actor.channel
        pattern = self._anybodys if channel is None else self._foreign[channel]
        for match in pattern.finditer(answer.text):
            text = match.group()
            if any(text in arg for arg in args if arg is not None) or text in statement:
                continue  # The caller has said it itself.
            # 32 hexadecimal digits are a queue's name, or of the caller's own; one that is new, the model checks.
            if _QUEUE.fullmatch(text) is None or self.model.owner_of(text) not in (None, channel):
                raise Mismatch(
                    f"{session.actor.name} was told {text!r}, which is none of its channel's: {answer.text[:2000]}"
                )


def _peer_row(peer: Peer) -> Row:
    values = (
        peer.queue, peer.channel, peer.name, peer.login, peer.acknowledged, peer.delivered, peer.position,
        peer.is_foreign, peer.application, peer.host, peer.runtime, peer.address, peer.listens, peer.former_queue,
        peer.lost, peer.redelivered,
    )  # fmt: skip
    return tuple(_text(value) for value in values)


def _literals(statement: str, args: tuple[str | None, ...]) -> str:
    """A statement with its arguments in it."""

    def literal(match: re.Match[str]) -> str:
        text = args[int(match.group(1)) - 1]
        if text is None:
            return "null"
        if NO_UTF8 in text:
            return "convert_from('\\xff', 'UTF8')"
        return render.literal(text) if len(text) < 5000 else f"repeat('{text[len(text) // 2 - 1]}', {len(text)})"

    return re.sub(r"\$(\d+)", literal, statement)


def _text(value: str | int | None) -> str | None:
    if isinstance(value, bool):
        return "t" if value else "f"
    return None if value is None else str(value)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Mismatch(f"{what}: {found}, expected {expected}")
