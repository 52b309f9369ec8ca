"""The commands that publish what was built, one after the other; what was done is remembered."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.buildah import Buildah
from hack.cluster.layout import DEFAULT_NAME, Layout
from hack.release.building import artefacts
from hack.release.plan import NAME, OUTPUT, Plan, ReleaseError, run


@dataclass(frozen=True)
class Step:
    """A command of publishing."""

    name: str
    command: list[str]

    def __str__(self) -> str:
        return shlex.join(self.command)


def steps(plan: Plan) -> list[Step]:
    """What publishing takes, in the order in which a failure does the least harm: what cannot be taken back comes last.

    Digests are signed, never tags: they are in the files that the pushes write.
    """
    output, key = plan.output, (["--key", plan.key] if plan.key else [])
    bill = str(output / f"{NAME}-{plan.version}.cdx.json")
    chart = str(output / f"{NAME}-{plan.version}.tgz")
    image_digest = f"{plan.image}@$(cat {shlex.quote(str(output / 'image.digest'))})"
    chart_digest = f"{plan.charts}/{NAME}@$(cat {shlex.quote(str(output / 'chart.digest'))})"
    cosign = ["cosign", "--yes", *key]

    def shell(text: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", text]

    def signing(command: str, *arguments: str) -> str:
        return shlex.join([cosign[0], command, *cosign[1:], *arguments])

    push = [*Buildah(Layout.of(DEFAULT_NAME)).command(), "push", "--digestfile", str(output / "image.digest")]
    checksums = str(output / "checksums.txt")
    return [
        Step("image", [*push, f"{plan.image}:{plan.version}"]),
        Step("sign image", shell(f"{signing('sign')} {image_digest}")),
        Step(
            "attest bill of materials",
            shell(f"{signing('attest', '--type', 'cyclonedx', '--predicate', bill)} {image_digest}"),
        ),
        Step(
            "chart",
            shell(
                f"helm push {shlex.quote(chart)} {shlex.quote(f'oci://{plan.charts}')} 2>&1"
                f" | tee /dev/stderr | sed -n 's/^Digest: //p' > {shlex.quote(str(output / 'chart.digest'))}"
            ),
        ),
        Step("sign chart", shell(f"{signing('sign')} {chart_digest}")),
        Step(
            "sign checksums",
            shell(signing("sign-blob", "--bundle", f"{checksums}.bundle", checksums)),
        ),
        Step("tag", ["git", "tag", "--annotate", f"v{plan.version}", "--message", f"{NAME} {plan.version}"]),
        Step("push tag", ["git", "push", "origin", f"v{plan.version}"]),
        Step("Python package", ["uv", "publish", *(str(path) for path in distributions(plan))]),
    ]


def distributions(plan: Plan) -> list[Path]:
    """Wheel and sdist."""
    return [path for path in artefacts(plan) if path.suffix in (".whl", ".gz")]


def begun(plan: Plan) -> bool:
    """Whether publishing what is built was begun. Raises ReleaseError if that was of something else."""
    memory = plan.output / "done.txt"
    if not memory.exists():
        return False
    if memory.read_text().splitlines()[0] != _subject(plan):
        raise ReleaseError(
            f"{OUTPUT} holds a release that was begun from another commit, or for another registry: if it"
            f" is of no use any more, rm -r {OUTPUT}"
        )
    return True


def _subject(plan: Plan) -> str:
    return f"{plan.version} {run(plan.root, 'git', 'rev-parse', 'HEAD').strip()} {plan.registry}"


def publish(plan: Plan, execute: Callable[[list[str]], int]) -> None:
    """Does the steps that were not done yet. Raises ReleaseError at the first that fails."""
    memory = plan.output / "done.txt"
    if not begun(plan):
        memory.write_text(f"{_subject(plan)}\n")
    done = memory.read_text().splitlines()[1:]
    for number, step in enumerate(following := steps(plan), 1):
        if step.name in done:
            print(f"[{number}/{len(following)}] {step.name}: done before", flush=True)
            continue
        print(f"[{number}/{len(following)}] {step.name}\n    {step}", flush=True)
        if status := execute(step.command):
            raise ReleaseError(f"{step.name} failed with status {status}; put it right, and run the same command again")
        with memory.open("a") as file:
            file.write(f"{step.name}\n")
