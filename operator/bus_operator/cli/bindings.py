"""Binding directories: what a pod would find under SERVICE_BINDING_ROOT, written to the local disk."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bus_operator.errors import SpecError

_UNFINISHED = ".busctl-"


def read(directory: Path) -> dict[str, str] | None:
    """The entries of a binding directory; None when it does not exist."""
    try:
        return {
            entry.name: entry.read_text()
            for entry in directory.iterdir()
            if entry.is_file() and not entry.name.startswith(".")
        }
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"binding directory {directory} cannot be read: {exc}") from exc


def write(directory: Path, data: Mapping[str, str]) -> None:
    """Writes the entries, readable by the owner only, each file whole or not at all. `generation` comes last."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_by_a_crash in directory.glob(f"{_UNFINISHED}*"):
            left_by_a_crash.unlink()
        for key in sorted(data, key=lambda key: key == "generation"):
            handle, temporary = tempfile.mkstemp(dir=directory, prefix=_UNFINISHED)
            with os.fdopen(handle, "w") as file:
                file.write(data[key])
            Path(temporary).replace(directory / key)
    except OSError as exc:
        raise SpecError(f"binding directory {directory} cannot be written: {exc}") from exc
