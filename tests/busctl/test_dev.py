"""`busctl dev`, with its own PostgreSQL: what workers get, what is shown, how it ends, and what it leaves: nothing."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from textwrap import dedent

import asyncpg
import pytest
from busctl_run import BUSCTL, BusctlRun, busctl_run, gone, is_running, manifest

MESSAGES = """
from dataclasses import dataclass
from bus_runtime import BusDataMessage

@dataclass(kw_only=True)
class OrderPlaced(BusDataMessage):
    order: str
"""

SHOP = """
import asyncio, sys
from bus_runtime import BusSubscriber, PgmqBus
from messages import OrderPlaced

class Billing(BusSubscriber):
    name = "billing"
    billed = asyncio.Event()

    async def on_bus_message(self, message):
        print("to bill:", message.order)
        self.billed.set()

async def main():
    bus = PgmqBus.from_binding()
    await bus.subscribe(Billing())
    await bus.start()
    await bus.publish(OrderPlaced(source="shop", order="A-1"), raise_on_error=True)
    await Billing.billed.wait()
    print("a word to stderr", file=sys.stderr)
    await bus.stop()
    sys.exit(3)

asyncio.run(main())
"""

LISTENER = """
import asyncio, os, signal, subprocess, sys
from bus_runtime import PgmqBus
from messages import OrderPlaced

async def main():
    stopping = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    bus = PgmqBus.from_binding("orders")
    await bus.start()
    print("joined", os.getpid())
    await stopping.wait()
    await bus.publish(OrderPlaced(source="listener", order="the last one"), raise_on_error=True)
    await bus.stop()
    print("left")

asyncio.run(main())
"""

STUBBORN = """
import os, signal, subprocess, sys, time
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("stubborn", os.getpid(), child.pid)
time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a manifest, and workers to choose from."""
    for name, text in {
        "bus.yaml": manifest(),
        "messages.py": MESSAGES,
        "shop.py": SHOP,
        "listener.py": LISTENER,
        "stubborn.py": STUBBORN,
    }.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def left_behind(project: Path) -> list[str]:
    """What is in the folder after a run, but what is always there."""
    folder = project / ".busctl"
    return sorted(path.name for path in folder.iterdir() if path.name not in ("lock", ".gitignore", "postgres.log"))


def test_a_worker_and_the_messages_that_pass(project: Path) -> None:
    """The worker finds its binding, however few peers the channel takes; its status is busctl's; nothing is left."""
    (project / "bus.yaml").write_text(manifest(limits={"maxPeers": 1, "maxConnections": 4}))
    (project / "compose.yaml").write_text("services: {web: {image: nginx}}")
    with busctl_run(project, "dev", "--", "python", "shop.py") as run:
        assert run.wait() == 3, run.output
    prints = [line.rstrip() for line in run.lines]
    assert "shop   │ to bill: A-1" in prints
    assert "shop   ┃ a word to stderr" in prints
    assert "shop   │ ended with status 3" in prints
    shown = next(line for line in prints if line.startswith("orders ▸ "))
    assert shown.endswith(' #1 OrderPlaced shop → all {"order":"A-1"}')
    assert any("BusChannel default/orders: create channel 'default.orders'" in line for line in prints)
    assert not any("compose.yaml" in line for line in prints)
    assert left_behind(project) == []


def test_ending_it(project: Path) -> None:
    """Ctrl-C: workers end first, while the bus is there; one that does not want to is killed with what it started."""
    (project / "manifests").mkdir()
    (project / "bus.yaml").rename(project / "manifests" / "bus.yaml")
    workers = ("--worker", "python listener.py", "--worker", "python -u stubborn.py")
    with busctl_run(project, "dev", "-f", "manifests", *workers, "--grace", "1") as run:
        while not ("joined" in run.output and "stubborn │ stubborn" in run.output):
            run.until("│")
        second = subprocess.run([BUSCTL, "dev"], cwd=project, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 1
        assert "there is no BusChannel in ." in second.stderr
        second = subprocess.run(
            [BUSCTL, "dev", "-f", "manifests"], cwd=project, capture_output=True, text=True, check=False, timeout=60
        )
        assert (second.returncode, f"already (process {run.process.pid})" in second.stderr) == (1, True)
        uri = (project / ".busctl" / "database").read_text()
        assert uri not in run.output
        told = subprocess.run(
            [BUSCTL, "apply", "-f", "manifests/bus.yaml", "--database", uri],
            cwd=project, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        line = next(line for line in run.lines if "stubborn │ stubborn" in line)
        pids = [*map(int, line.split()[-2:]), *run.noted["worker"], *run.noted["server"]]
        run.signal(signal.SIGINT)
        assert run.wait() == 0, run.output
    assert "listener │ left" in run.output
    assert '{"order":"the last one"}' in run.output
    assert "stubborn │ does not end, and is killed" in run.output
    assert gone(*pids, seconds=10)
    assert left_behind(project) == []


def test_killed(project: Path) -> None:
    """Of a busctl that is killed nothing is left, neither if its guard is killed as well and another run begins."""
    with busctl_run(project, "dev", "--", "python", "stubborn.py") as run:
        line = run.until("stubborn │ stubborn")
        pids = [*map(int, line.split()[-2:]), *run.noted["worker"], *run.noted["server"]]
        data = (project / ".busctl" / "run").resolve()
        assert (data / "pgdata").exists()
        run.signal(signal.SIGKILL)
        assert gone(*pids)
        run.wait()
    with busctl_run(project, "dev", "--", "python", "stubborn.py") as run:
        line = run.until("stubborn │ stubborn")
        pids = [*map(int, line.split()[-2:]), *run.noted["worker"], *run.noted["server"]]
        guard = guard_of(run)
        for pid in (guard, run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.process.wait()
        assert gone(guard)
        assert all(map(is_running, pids))
    assert not data.exists()
    with busctl_run(project, "dev", "--", "python", "shop.py") as run:
        assert run.wait() == 3, run.output
        assert "the run before was killed" in run.output
    assert gone(*pids, seconds=10)
    assert left_behind(project) == []


def guard_of(run: BusctlRun) -> int:
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    (guard,) = [int(pid) for pid in children if b"leftovers.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return guard


def test_changes(project: Path) -> None:
    """Code that changes starts the workers anew; manifests that change are applied, and bindings follow them."""
    with busctl_run(project, "dev", "--reload", "--quiet", "--", "python", "listener.py") as run:
        run.until("joined")
        (project / "listener.py").write_text(LISTENER.replace('"joined"', '"joined again"'))
        run.until("listener │ left")
        run.until("joined again")
        bindings = project / ".busctl" / "bindings"
        assert [path.name for path in bindings.iterdir()] == ["orders"]
        (project / "bus.yaml").write_text(manifest(durability="Maybe"))
        run.until("the channels stay as they were")
        (project / "bus.yaml").write_text(f"{manifest()}---\n{manifest('audit', reader={'batchSize': 7})}")
        run.until("BusChannel default/audit: create channel 'default.audit'")
        run.until("joined again")
        assert json.loads((bindings / "audit" / "config.json").read_text())["reader"]["batchSize"] == 7
        (project / "bus.yaml").write_text(manifest("orders", durability="Async"))
        run.until("BusChannel audit is in no manifest any more")
        run.until("joined again")
        assert [path.name for path in bindings.iterdir()] == ["orders"]
        run.signal(signal.SIGTERM)
        assert run.wait() == 0, run.output
    assert "▸" not in run.output


DURABLE = """
import asyncio, sys
from bus_runtime import BusSubscriber, PgmqBus
from messages import OrderPlaced

class Billing(BusSubscriber):
    name = "billing"

    async def on_bus_message(self, message):
        print("to bill:", message.order)
        done.set()

async def main():
    global done
    done = asyncio.Event()
    bus = PgmqBus.from_binding(peer="billing")
    if sys.argv[1] == "receive":
        await bus.subscribe(Billing())
    await bus.start()
    if sys.argv[1] == "join":
        await bus.stop()
    bus_of_others = PgmqBus.from_binding()
    await bus_of_others.start()
    if sys.argv[1] == "join":
        await bus_of_others.publish(OrderPlaced(source="shop", order="A-2"), raise_on_error=True)
    else:
        await done.wait()
        await bus.stop()
    await bus_of_others.stop()

asyncio.run(main())
"""


def test_data_that_is_kept(project: Path) -> None:
    """With --keep a durable peer goes on where it was in the run before; a run without begins empty, and leaves it."""
    (project / "durable.py").write_text(DURABLE)
    with busctl_run(project, "dev", "--keep", "--", "python", "durable.py", "join") as run:
        assert run.wait() == 0, run.output
    place = (project / ".busctl" / "kept").resolve()
    assert left_behind(project) == ["bindings", "kept"]
    with busctl_run(project, "dev", "--", "python", "shop.py") as run:
        assert run.wait() == 3, run.output
    assert "create channel" in run.output
    with busctl_run(project, "dev", "--keep", "--", "python", "durable.py", "receive") as run:
        assert run.wait() == 0, run.output
    assert "durable │ to bill: A-2" in run.output
    assert "create channel" not in run.output
    # As the server's user, root's folder may not be removable with the test's.
    subprocess.run(["rm", "-rf", place], check=True)


def test_without_workers(project: Path) -> None:
    """The server and the channels are there for whoever is started elsewhere; a command that is none says so."""
    others = ("apps/v1", "Deployment"), ("pgmqbus.dev/v1alpha1", "BusDatabase")
    spec = "{connectionSecretRef: {name: admin}}"
    (project / "more.yaml").write_text(
        "\n---\n".join(
            f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: hello}}\nspec: {spec}" for version, kind in others
        )
    )
    with busctl_run(project, "dev", "-n", "shop") as run:
        run.until("SERVICE_BINDING_ROOT=.busctl/bindings")
        assert "Deployment/hello in more.yaml is left out: busctl dev makes channels only\n" in run.output
        assert "BusDatabase/hello in more.yaml only spec.shards is used: the server is busctl dev's own\n" in run.output
        assert "--database" not in run.output
        uri = (project / ".busctl" / "bindings" / "orders" / "uri").read_text()

        async def join() -> None:
            connection = await asyncpg.connect(uri)
            assert await connection.fetchval("select public.bus_join('shop.orders')")
            await connection.close()

        asyncio.run(join())
        run.signal(signal.SIGINT)
        assert run.wait() == 0, run.output
    with busctl_run(project, "dev", "--", "./no-such-program") as run:
        assert run.wait() == 127
    assert "cannot be started: No such file or directory: ./no-such-program" in run.output


def test_without_a_server(project: Path) -> None:
    """It says what to install."""
    (project / "empty").mkdir()
    told = subprocess.run(
        [BUSCTL, "dev", "--postgres", "empty"], cwd=project, capture_output=True, text=True, check=False, timeout=60
    )
    assert told.returncode == 1
    assert "pip install '.[dev]'" in told.stderr
