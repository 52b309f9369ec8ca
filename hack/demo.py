"""`make demo`: from nothing to messages between pods, each step shown, the result measured.

Exit status 0 only if every subscriber got every order that was published after it had joined.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.cluster.console import ClusterError, duration, say, step
from hack.cluster.layout import DEFAULT_NAME, REPOSITORY, Layout
from hack.cluster.providers import choose
from hack.cluster.recipes import RECIPES, Recipe

EXAMPLES = REPOSITORY / "examples" / "demo"
NAMESPACE = "pgmq-bus"
DEMO_IMAGE = Recipe("pgmq-bus-demo", EXAMPLES, EXAMPLES / "Dockerfile")
TIMEOUT = 180.0
"""Seconds that any one condition may take."""


@dataclass(frozen=True)
class Report:
    """What one subscriber counted of a publisher's measured run."""

    replica: str
    first: int
    received: int
    lost: int
    duplicated: int
    wake: str
    announced: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> "Report":
        """Reads the line of JSON that examples/demo/subscriber.py prints."""
        names = ("first", "received", "lost", "duplicated", "wake", "announced", "p50_ms", "p99_ms")
        return cls(line["report"], **{name: line[name] for name in names})


class Demo:
    """The steps. Each waits for a condition of the cluster, none for a fixed time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._cluster = choose(layout)

    def run(self) -> tuple[int, list[Report]]:
        """Returns how many orders were published and what each subscriber counted."""
        self._cluster.up()
        operator, postgres, demo = (
            self._cluster.load(recipe) for recipe in (RECIPES["project"], RECIPES["postgres"], DEMO_IMAGE)
        )
        with step("installing the chart with its development PostgreSQL"):
            self._helm(operator, postgres)
        with step("BusDatabase pgmq-bus/main: apply, wait until it is Ready"):
            self._apply("busdatabase.yaml")
            self._ready("busdatabase/main", NAMESPACE)
        with step("BusChannel default/orders: apply, wait until it is Ready"):
            self._apply("buschannel.yaml")
            self._ready("buschannel/orders", "default")
        say(self._kubectl("get", "busdatabases,buschannels", "-A").rstrip())
        with step("3 subscribers: apply, wait until they have joined"):
            self._kubectl("delete", "deployment", "order-publisher", "order-subscriber", "--ignore-not-found", "--wait")
            self._wait_until("the pods of an earlier run to end", lambda: not self._pods("app=order-publisher"))
            self._wait_until("the pods of an earlier run to end", lambda: not self._pods("app=order-subscriber"))
            self._apply("subscriber.yaml", image=demo)
            self._rolled_out("order-subscriber")
        subscribers = self._pods("app=order-subscriber")
        with step("1 publisher: apply, wait until it is done and all have reported"):
            self._apply("publisher.yaml", image=demo)
            self._rolled_out("order-publisher")
            (publisher,) = self._pods("app=order-publisher")
            reports: dict[str, Report] = {}

            def all_reported() -> bool:
                for pod in subscribers:
                    if pod not in reports and (report := self._report_of(pod, publisher)):
                        reports[pod] = report
                return len(reports) == len(subscribers)

            self._wait_until("the subscribers' reports", all_reported)
        return self._published(publisher), [reports[pod] for pod in subscribers]

    def _helm(self, operator: str, postgres: str) -> None:
        helm = Path(sys.executable).with_name("helm")
        repository, tag = operator.rsplit(":", 1)
        values = {
            "image.repository": repository,
            "image.tag": tag,
            "devPostgres.enabled": "true",
            "devPostgres.image": postgres,
        }
        settings = [word for name, value in values.items() for word in ("--set-string", f"{name}={value}")]
        settings[settings.index("devPostgres.enabled=true") - 1] = "--set"
        self._run(
            [
                str(helm), "upgrade", "--install", "pgmq-bus", str(REPOSITORY / "charts" / "pgmq-bus"),
                "--namespace", NAMESPACE, "--create-namespace", "--wait", f"--timeout={TIMEOUT:.0f}s", *settings,
            ]
        )  # fmt: skip

    def _apply(self, manifest: str, *, image: str | None = None) -> None:
        text = (EXAMPLES / manifest).read_text()
        if image is not None:
            text = text.replace("pgmq-bus-demo:dev", image)
        self._kubectl("apply", "-f", "-", stdin=text)

    def _ready(self, resource: str, namespace: str) -> None:
        try:
            self._kubectl("wait", "--for=condition=Ready", "-n", namespace, resource, f"--timeout={TIMEOUT}s")
        except ClusterError as error:
            why = self._kubectl(
                "get", "-n", namespace, resource, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].message}'
            )
            raise ClusterError(f"{resource} is not ready: {why or 'the operator has not looked at it'}") from error

    def _rolled_out(self, deployment: str) -> None:
        self._kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={TIMEOUT}s")

    def _pods(self, selector: str) -> list[str]:
        names = self._kubectl("get", "pods", "-l", selector, "-o", "name").split()
        return [name.removeprefix("pod/") for name in names]

    def _report_of(self, pod: str, publisher: str) -> Report | None:
        for line in self._kubectl("logs", pod).splitlines():
            if line.startswith('{"report"'):
                parsed = json.loads(line)
                if parsed["publisher"] == publisher:
                    return Report.from_line(parsed)
        return None

    def _published(self, publisher: str) -> int:
        words = next(line for line in self._kubectl("logs", publisher).splitlines() if line.startswith("published "))
        return int(words.split()[1])

    @staticmethod
    def _wait_until(what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not holds():
            if time.monotonic() > deadline:
                raise ClusterError(f"waited {TIMEOUT:.0f}s in vain for {what}")
            time.sleep(0.5)

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        program = shutil.which("kubectl") or str(self._layout.kubectl)
        return self._run([program, "--kubeconfig", str(self._cluster.kubeconfig), *arguments], stdin)

    def _run(self, command: Sequence[str], stdin: str | None = None) -> str:
        environment = {"KUBECONFIG": str(self._cluster.kubeconfig), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/"}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=environment, timeout=TIMEOUT + 60
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command[:6])} ... failed:\n{done.stdout}{done.stderr}")
        return done.stdout


def table(published: int, reports: Sequence[Report]) -> str:
    """The result, for people."""
    rows = [("subscriber", "published", "received", "lost", "duplicated", "woken by", "inline", "p50 ms", "p99 ms")]
    rows += [
        (
            report.replica,
            str(published),
            str(report.received),
            str(report.lost),
            str(report.duplicated),
            report.wake,
            str(report.announced),
            f"{report.p50_ms:.2f}",
            f"{report.p99_ms:.2f}",
        )
        for report in reports
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


LEGEND = """\
received, lost, duplicated: of the orders published; p50, p99: from publish until the subscriber's handler is called
woken by: how it learns of an order (doorbell: a datagram from the publisher's pod); inline: orders that were in it"""


def programs(kubectl: Path) -> str:
    """Where the programs are that are shown below: those of this environment, and `kubectl` if the machine has none."""
    directories = [Path(sys.executable).parent, *([] if shutil.which("kubectl") else [kubectl.parent])]
    return ":".join(map(str, directories))


def complete(published: int, reports: Sequence[Report]) -> bool:
    """Whether every subscriber, having joined before the first order, got each of them."""
    return bool(reports) and all(
        report.first == 1 and report.received == published and report.lost == 0 for report in reports
    )


def main() -> int:
    """Runs the demo; the exit status says whether nothing was lost."""
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="the local cluster's name (%(default)s)")
    layout = Layout.of(parser.parse_args().name)
    started = time.monotonic()
    demo = Demo(layout)
    published, reports = demo.run()
    print(f"\n{table(published, reports)}\n\n{LEGEND}\n")
    print(f"done in {duration(time.monotonic() - started)}. What to try next, the two exports first:\n")
    print(f"  export KUBECONFIG={choose(layout).kubeconfig}")
    print(f"  export PATH={programs(layout.kubectl)}:$PATH")
    print(
        "  kubectl get bus -A                                        # both resources; peers are counted once a minute"
    )
    print("  kubectl exec -n pgmq-bus deploy/pgmq-bus -- busctl peers orders -n default    # who has joined, now")
    print("  kubectl get secret orders-bus -o jsonpath='{.data.channel}' | base64 -d    # what pods get")
    print("  kubectl scale deployment order-subscriber --replicas=5    # more peers; nothing else changes")
    print("  kubectl explain buschannel.spec                           # every field")
    print("  make cluster-down                                         # leave nothing running")
    print("\nA program of your own in two pods: 'Your first message' in README.md")
    if not complete(published, reports):
        print("\nFAILED: a subscriber did not get every order", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; `make demo` goes on where it was, `make cluster-down` removes what was started")
        sys.exit(130)
