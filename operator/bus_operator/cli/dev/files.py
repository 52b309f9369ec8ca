"""Which files a run reads, and whether they changed: looked at twice a second, which needs no service of the system."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bus_operator.cli.manifests import Manifests, read_manifests
from bus_operator.errors import SpecError
from bus_operator.model import GROUP, VERSION

_MANIFESTS = (".yaml", ".yml", ".json")

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

Snapshot = dict[Path, tuple[int, int]]
"""When each file was changed, and its size."""

_EXAMPLE = f"{{apiVersion: {GROUP}/{VERSION}, kind: BusChannel, metadata: {{name: orders}}}}"
"""A whole manifest, in YAML's short form."""


def manifest_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: of a folder, those directly in it which mention our API group."""
    return [file for path in paths for file in (_in_folder(path) if path.is_dir() else [path])]


def manifests(paths: Sequence[Path], namespace: str) -> Manifests:
    """Reads the manifests.

    Raises:
        SpecError: A file cannot be read, a manifest is not valid, or there is no BusChannel; names file and field.
    """
    with ExitStack() as stack:
        opened = []
        for file in manifest_files(paths):
            try:
                opened.append(stack.enter_context(file.open(encoding="utf-8")))
            except OSError as exc:
                raise SpecError(f"{file} cannot be read: {exc.strerror}") from exc
        found = read_manifests(opened, namespace)
    if not found.channels:
        where = " ".join(map(str, paths))
        raise SpecError(f"there is no BusChannel in {where}: say with -f where, or write bus.yaml: {_EXAMPLE}")
    return found


def snapshot(files: Iterable[Path]) -> Snapshot:
    """How the files are now; those that are gone are left out."""
    found: Snapshot = {}
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        found[file] = (state.st_mtime_ns, state.st_size)
    return found


def code_files(root: Path) -> Iterator[Path]:
    """Python files below a folder, without what is hidden, installed or in a virtual environment."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _SKIPPED and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if name.endswith(".py"))


def _in_folder(folder: Path) -> list[Path]:
    return [
        file for file in sorted(folder.iterdir()) if file.suffix in _MANIFESTS and file.is_file() and _is_ours(file)
    ]


def _is_ours(file: Path) -> bool:
    try:
        return f"{GROUP}/".encode() in file.read_bytes()
    except OSError:
        return False
