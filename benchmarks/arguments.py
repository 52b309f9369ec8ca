"""Arguments that several of the benchmarks have."""

import argparse
import tempfile
from collections.abc import Collection
from pathlib import Path


def parser(module: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """One for `python -m MODULE`, whose epilog has lines of its own."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_data(arguments: argparse.ArgumentParser) -> None:
    """`--data`: where the servers write."""
    arguments.add_argument(
        "--data", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()),
        help="a directory on the disk to be measured (default: %(default)s)",
    )  # fmt: skip


def chosen(arguments: argparse.ArgumentParser, only: str | None, known: Collection[str], kind: str) -> list[str]:
    """What `--only A,B` leaves of `known`, which are of that kind; ends the program where one is not known."""
    names = list(known) if only is None else only.split(",")
    for name in names:
        if name not in known:
            arguments.error(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    return names
