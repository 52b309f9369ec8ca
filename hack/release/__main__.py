"""Makes a release: `make release` builds and shows everything and publishes nothing, `--publish` does it.

1. checks: the tree is clean and all places agree on the version;
2. builds wheel and sdist, the chart as it is published, the image, their bill of materials, checksums, into
   build/release/;
3. publishes, signs and attests, step by step: each command is shown before it is run, what was done is remembered in
   build/release/done.txt, and after a failure the same command goes on where it was.

Every program that a later step takes is looked for before the first step.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from hack.release.building import artefacts, build
from hack.release.checks import problems, version
from hack.release.plan import NAME, ROOT, Plan, ReleaseError, missing_programs
from hack.release.publishing import begun, publish, steps


def _execute(command: list[str]) -> int:
    """With the programs of `make setup` found first."""
    places = [str(Path(sys.executable).parent), str(ROOT / ".cache" / "uv" / "bin"), os.environ.get("PATH", "")]
    environment = os.environ | {"PATH": os.pathsep.join(places)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """The exit status says whether it could be, or was, published."""
    parser = argparse.ArgumentParser(
        prog="make release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--publish", action="store_true", help="do it; without, everything is built and shown")
    parser.add_argument("--registry", default="localhost", help="for image and chart, as registry.example.com/bus")
    parser.add_argument("--key", help="cosign's private key, a file or a KMS address; without: keyless")
    parser.add_argument("--base-image", help="another than the Dockerfile's; local: of this machine's packages")
    parser.add_argument("--no-image", action="store_true", help="do not build the image; not with --publish")
    given = parser.parse_args()
    if given.publish and (given.no_image or given.registry == "localhost"):
        parser.error("--publish takes --registry, and the image with it")
    plan = Plan(ROOT, version(ROOT), given.registry.rstrip("/"), given.key, given.base_image, not given.no_image)
    print(f"{NAME} {plan.version}", flush=True)
    wrong = list(problems(ROOT))
    absent = missing_programs()
    for problem in wrong:
        print(f"problem: {problem}", file=sys.stderr)
    for program in absent:
        print(f"missing: {program}", file=sys.stderr)
    if given.publish and (wrong or absent):
        raise ReleaseError("put this right first: nothing was done")
    if not begun(plan):
        build(plan)
    for path in [*artefacts(plan), plan.output / "checksums.txt"]:
        print(f"    {path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")
    if given.publish:
        publish(plan, _execute)
        return 0
    print("\nwhat --publish would do:\n")
    for number, step in enumerate(steps(plan), 1):
        print(f"{number}. {step.name}\n    {step}")
    print("\nnothing was published")
    return 1 if wrong or absent else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
