"""Finds the binding a pod was given.

A binding is a directory `$SERVICE_BINDING_ROOT/<name>/` of small files, as the Service Binding
specification for Kubernetes lays them out (servicebinding.io, "Workload Projection"), of type
`pgmqbus`. Kubernetes replaces all files of a mounted Secret at once, by renaming the symbolic link
`..data` to a new directory; files that were read while that link did not change belong together.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from bus_runtime.errors import BINDING_AMBIGUOUS, BINDING_NOT_FOUND, BINDING_NOT_READY, BindingError

ROOT_VARIABLE = "SERVICE_BINDING_ROOT"
BINDING_TYPE = "pgmqbus"

#: What is read of a binding, each of at most so many bytes: a Secret has no more.
_ENTRIES = ("type", "channel", "uri", "config.json", "generation", "ca.crt")
_MAX_FILE_BYTES = 1024 * 1024

#: How often to begin again when the files change while they are read.
_ATTEMPTS = 50

_HOW_TO_ASK = (
    'in Kubernetes, label the pod pgmqbus.dev/inject: "true" and annotate it with '
    'pgmqbus.dev/channels: "<BusChannel>" (a pod that existed before must be recreated); elsewhere, start the program '
    "with busctl dev -f FILE -- COMMAND, or write a binding with busctl apply --bindings DIR and set "
    f"{ROOT_VARIABLE}=DIR"
)


#: Where the kubelet's link leads, and the stated generation.
Stamp = tuple[Path | None, str | None]


@dataclass(frozen=True, slots=True)
class ReaderDefaults:
    """How the channel wants to be read; units are in the names."""

    visibility_timeout_seconds: int = 30
    batch_size: int = 10
    poll_interval_milliseconds: int = 100
    max_poll_seconds: int = 5


#: The names in config.json, and the bounds that the definition of a BusChannel sets.
_READER = {
    "visibilityTimeoutSeconds": ("visibility_timeout_seconds", 1, 3600),
    "batchSize": ("batch_size", 1, 1000),
    "pollIntervalMilliseconds": ("poll_interval_milliseconds", 10, 60_000),
    "maxPollSeconds": ("max_poll_seconds", 0, 60),
}


@dataclass(frozen=True, slots=True)
class Binding:
    """One binding as it was when it was read.

    Attributes:
        name: Name of the directory, which is the BusChannel's.
        directory: Where it was read from.
        channel: Wire name of the channel.
        uri: PostgreSQL connection URI with login and password.
        reader: The channel's reader settings.
        generation: Grows with each rotation of the credentials; None when not stated.
        stamp: Tells these files from those that replace them.
        authority: Certificates in PEM by which the server's is judged; None: those that libpq's variables name.
    """

    name: str
    directory: Path
    channel: str
    uri: str = field(repr=False)
    reader: ReaderDefaults = ReaderDefaults()
    generation: str | None = None
    stamp: Stamp | None = field(default=None, repr=False, compare=False)
    authority: str | None = field(default=None, repr=False)

    @property
    def is_current(self) -> bool:
        """Whether the files are those that were read; costs two system calls."""
        try:
            return _stamp(self.directory) == self.stamp
        except (OSError, ValueError):
            # In the middle of being replaced, or not text any more.
            return False

    @property
    def server(self) -> tuple[str, int] | None:
        """Host, or the directory of a socket, and port, as libpq reads them; None: not one host, or no URI."""
        try:
            parts = urlsplit(self.uri)
            query = dict(parse_qsl(parts.query))
            port = parts.port or int(query.get("port", 5432))
        except ValueError:
            return None
        # As it is written: `hostname` would lower a directory's name.
        authority = parts.netloc.rpartition("@")[2]
        name = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
        host = unquote(name) or query.get("host", "")
        return (host, port) if host and "," not in host else None

    @property
    def address(self) -> str:
        """Where it leads, to be shown: host, port and database."""
        if self.server is None:
            return f"the server of binding {self.name!r}"
        host, port = self.server
        return f"{host}:{port}{urlsplit(self.uri).path}"

    def reload(self) -> Binding:
        """The binding as it is now, after a possible rotation.

        Raises:
            BindingError: It is gone or incomplete.
        """
        return read_binding(self.directory)


def find_binding(name: str | None = None, *, root: str | Path | None = None) -> Binding:
    """The binding called `name`, or the only one there is.

    Args:
        name: Name of the directory.
        root: The directory of bindings; default: the environment's `SERVICE_BINDING_ROOT`.

    Raises:
        BindingError: None, several, or an incomplete one; the message says what to do.
    """
    root = root or os.environ.get(ROOT_VARIABLE)
    if not root:
        raise BindingError(
            f"{ROOT_VARIABLE} is not set, so this process was given no binding: {_HOW_TO_ASK}", code=BINDING_NOT_FOUND
        )
    root = Path(root)
    if not root.is_dir():
        raise BindingError(f"{root} (from {ROOT_VARIABLE}) is not a directory: {_HOW_TO_ASK}", code=BINDING_NOT_FOUND)
    if name is not None:
        if not _is_below(root, name):
            raise BindingError(_no_such(root, name), code=BINDING_NOT_FOUND)
        return read_binding(root / name)
    found = _bindings(root)
    if not found:
        for directory in _entries(root):
            _require_files(directory)
        raise BindingError(f"{root} has no binding of type {BINDING_TYPE}: {_HOW_TO_ASK}", code=BINDING_NOT_FOUND)
    if len(found) > 1:
        raise BindingError(
            f"{root} has several bindings of type {BINDING_TYPE}: {_names(found)}; say which: from_binding(NAME)",
            code=BINDING_AMBIGUOUS,
        )
    return read_binding(found[0])


def read_binding(directory: Path) -> Binding:
    """The binding in `directory`.

    Raises:
        BindingError: A file is missing or unreadable, or the binding is of another type.
    """
    _require_files(directory)
    files, stamp = _read_consistently(directory)
    kind = _required(files, "type", directory)
    if kind != BINDING_TYPE:
        raise BindingError(f"binding {directory} is of type {kind!r}, not {BINDING_TYPE!r}: name another one")
    return Binding(
        name=directory.name,
        directory=directory,
        channel=_required(files, "channel", directory),
        uri=_required(files, "uri", directory),
        reader=_reader(files.get("config.json"), directory),
        generation=_printable(files, "generation", directory),
        stamp=stamp,
        authority=files.get("ca.crt"),
    )


def _no_such(root: Path, name: str) -> str:
    """What to say of a name that is asked for; of others, where there are any, it is most often a misspelling."""
    missing = f"{root} has no binding {name!r}"
    if not (others := [directory.name for directory in _bindings(root)]):
        return f"{missing}, and no other: {_HOW_TO_ASK}"
    calls = " or ".join(f'from_binding("{other}")' for other in others)
    return f"{missing}, but one for {', '.join(others)}: {calls}"


def _is_below(root: Path, name: str) -> bool:
    """Whether `root` has a directory of that name, which is not the way to another."""
    try:
        return name not in ("", ".", "..") and "/" not in name and (root / name).is_dir()
    except OSError:
        # Longer than a name can be, for example.
        return False


def _bindings(root: Path) -> list[Path]:
    """The directories below `root` that say they are ours, by name."""
    found = []
    for directory in _entries(root):
        try:
            if _type(directory) == BINDING_TYPE:
                found.append(directory)
        # Another's, whatever is in it.
        except (OSError, ValueError):
            continue
    return found


def _type(directory: Path) -> str | None:
    """What it says that it is; asked again when its files were replaced, as by a rotation, at that very moment."""
    said: str | None = None
    for _ in range(_ATTEMPTS):
        before = _version(directory)
        with suppress(FileNotFoundError):
            said = _text(directory / "type")
        if said is not None or _version(directory) == before:
            break
    return said


def _entries(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError as exc:
        raise BindingError(f"cannot read {root}: {exc}") from exc


def _text(path: Path) -> str | None:
    """What is in a file, without space around it; None when there is none. Raises OSError, ValueError."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"{path.name} has more than {_MAX_FILE_BYTES} bytes")
    return content.decode().strip()


def _require_files(directory: Path) -> None:
    """A pod that a BusChannel selects may start before there is a Secret to mount."""
    try:
        before = _version(directory)
        empty = not any(path.is_file() for path in directory.iterdir())
        replaced = _version(directory) != before
    except OSError:
        return
    if empty and not replaced:
        raise BindingError(
            f"binding {directory} is empty: its Secret is not there yet, or gone; the files come with it."
            f" kubectl describe buschannel {directory.name} says why",
            code=BINDING_NOT_READY,
        )


def _names(directories: list[Path]) -> str:
    return ", ".join(directory.name for directory in directories) or "none"


def _read_consistently(directory: Path) -> tuple[dict[str, str], Stamp]:
    """All files, as they were at one moment, and their stamp; begins again when they change meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            before = _stamp(directory)
            # Of what else is in it only the names: a Secret may hold a key store besides.
            files = {path.name: "" for path in directory.iterdir() if path.is_file()}
            files |= {name: text for name in _ENTRIES if (text := _text(directory / name)) is not None}
            if before == _stamp(directory):
                return files, before
        except FileNotFoundError:
            if not directory.is_dir():
                raise BindingError(
                    f"binding {directory} is gone: was the BusChannel or its Secret deleted?", code=BINDING_NOT_FOUND
                ) from None
        except (OSError, ValueError) as exc:
            raise BindingError(f"cannot read binding {directory}: {exc}") from exc
    raise BindingError(f"binding {directory} keeps changing while it is read")


def _stamp(directory: Path) -> Stamp:
    """Something that differs after a rotation."""
    return _version(directory), _text(directory / "generation")


def _version(directory: Path) -> Path | None:
    """Where the kubelet has put the files: it writes new ones elsewhere, and changes one link. None: no kubelet."""
    data = directory / "..data"
    return data.readlink() if data.is_symlink() else None


def _required(files: dict[str, str], key: str, directory: Path) -> str:
    value = _printable(files, key, directory)
    if not value:
        raise BindingError(
            f"binding {directory} has no {key!r}, it has {', '.join(sorted(files)) or 'nothing'}: "
            "is it written by pgmq-bus?"
        )
    return value


def _printable(files: dict[str, str], key: str, directory: Path) -> str | None:
    value = files.get(key)
    if value and not value.isprintable():
        raise BindingError(f"{key} of binding {directory} holds a line break or another control character")
    return value


def _reader(config: str | None, directory: Path) -> ReaderDefaults:
    if config is None:
        return ReaderDefaults()
    defaults = ReaderDefaults()
    try:
        given = orjson.loads(config).get("reader", {})
        return ReaderDefaults(
            **{
                name: _within(key, given.get(key, getattr(defaults, name)), lowest, highest)
                for key, (name, lowest, highest) in _READER.items()
            }
        )
    except (ValueError, TypeError, AttributeError) as exc:
        raise BindingError(f"config.json of binding {directory} is not as expected: {exc}") from exc


def _within(key: str, value: Any, lowest: int, highest: int) -> int:
    number = int(value)
    if not lowest <= number <= highest:
        raise ValueError(f"reader.{key} must be from {lowest} to {highest}")
    return number
