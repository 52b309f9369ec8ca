"""1,000 peers join one channel at once, and then are idle: what does the server do about them?"""

import time

from benchmarks.bench import Bench, Clock
from benchmarks.clients.notify import NotifyEndpoint
from benchmarks.clients.ours import BusEndpoint
from benchmarks.commands import Connect, Connected
from benchmarks.cpu import server_seconds
from benchmarks.errors import BenchmarkError
from benchmarks.fleet import Fleet

PEERS = 1000
_PROCESSES = 8
_DATABASE = "thousand"
#: What DDL leaves behind, wherever it is.
_CATALOG = """
select (select count(*) || '/' || max(oid::bigint) from pg_class),
       (select count(*) || '/' || max(oid::bigint) from pg_proc),
       (select count(*) || '/' || max(oid::bigint) from pg_authid),
       (select count(*) || '/' || max(oid::bigint) from pg_namespace)
"""


def _connect_only(bench: Bench, fleet: Fleet, endpoint: BusEndpoint) -> None:
    """As many sessions of the same login, and nothing else: what joining cannot be faster than on this machine."""
    session = NotifyEndpoint((endpoint.root / endpoint.binding / "uri").read_text(), "nobody")
    members = fleet.spawn(_PROCESSES, "sessions")
    fleet.ask(members, Connect((), receive=False), Connected, timeout=60)
    clock, before = Clock(), server_seconds(bench.world.large_postgres.pid)
    answers = fleet.ask(members, Connect((session,) * (PEERS // _PROCESSES), receive=False), Connected, timeout=120)
    bench.record(
        {"what": "connecting only"},
        {
            "seconds": clock.seconds,
            "failures": float(PEERS - sum(answer.joined for answer in answers)),
            "server_cpu_seconds": server_seconds(bench.world.large_postgres.pid) - before,
        },
    )
    fleet.stop(members)


def run(bench: Bench) -> None:
    """One round. Each peer has its own connections, as if it were a pod; 125 of them share a process."""
    server = bench.world.large_postgres
    endpoint = bench.world.channel(server, _DATABASE, "everybody")
    catalog = server.query(_CATALOG, database=_DATABASE)
    with bench.fleet() as fleet:
        _connect_only(bench, fleet, endpoint)
        members = fleet.spawn(_PROCESSES, "peers")
        # Answered when the imports are done, so that those are not part of joining.
        fleet.ask(members, Connect((), receive=False), Connected, timeout=60)
        clock, before = Clock(), server_seconds(server.pid)
        connect = Connect((endpoint,) * (PEERS // _PROCESSES), receive=True)
        answers = fleet.ask(members, connect, Connected, timeout=120)
        joining, used = clock.seconds, server_seconds(server.pid) - before
        failures = [failure for answer in answers for failure in answer.failures]
        bench.record(
            {"what": "joining"},
            {
                "seconds": joining,
                "failures": float(len(failures)),
                "catalog_changes": float(catalog != server.query(_CATALOG, database=_DATABASE)),
                "server_cpu_seconds": used,
                "connections": float(
                    server.query("select count(*) from pg_stat_activity where usename like 'bus%'")[0][0]
                ),
            },
        )
        if failures:
            raise BenchmarkError(
                f"{len(failures)} of {PEERS} did not join, so being idle was not measured: {failures[0]}"
            )
        # Who does not publish looks at the changed roster within 20 s, and at the log ever more rarely.
        time.sleep(bench.pick(60.0, 30.0))
        seconds = bench.pick(30.0, 10.0)
        before = server_seconds(server.pid)
        time.sleep(seconds)
        used = server_seconds(server.pid) - before
        bench.record({"what": "idle"}, {"cpu_percent_of_a_core": used / seconds * 100})
