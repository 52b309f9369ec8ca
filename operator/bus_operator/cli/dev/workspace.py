"""The folder `.busctl` of a project: used by one `busctl dev` at a time, and clean when it ends."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus_operator.cli.dev import leftovers
from bus_operator.cli.dev.leftovers import Kind
from bus_operator.errors import StartError

_KEPT = "kept"
_PATIENCE = 30.0
"""Seconds to wait for a guard that ends what a killed run left."""

_IN_USE = 1.0
"""Seconds to wait for another run that is just ending."""


class Workspace:
    """The folder while it is ours; made by `opened`."""

    def __init__(self, folder: Path, *, keep: bool, recovered: bool) -> None:
        self.folder = folder
        self.keep = keep
        self.recovered = recovered
        """Whether an earlier run had been killed and what it left was ended."""
        self._running: dict[int, tuple[Kind, str]] = {}

    @property
    def bindings(self) -> Path:
        """Where binding directories are: what `SERVICE_BINDING_ROOT` is for workers."""
        return self.folder / "bindings"

    @property
    def uri_file(self) -> Path:
        """The administrator's URI, for other commands."""
        return self.folder / "database"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "postgres.log"

    def data(self) -> Path:
        """The directory for the server, made if there is none; its user's, and reachable for him."""
        entry = self.folder / (_KEPT if self.keep else leftovers.EPHEMERAL)
        user = server_user()
        if user is None:
            entry.mkdir(exist_ok=True, mode=0o700)
            return entry
        if entry.is_symlink() and entry.exists():
            return entry.resolve()
        entry.unlink(missing_ok=True)
        # The project may be below a directory that is root's only. /var/tmp outlasts a restart of the machine.
        place = Path(tempfile.mkdtemp(prefix=leftovers.DATA_PREFIX, dir="/var/tmp" if self.keep else None))  # noqa: S108
        place.chmod(0o711)
        os.chown(place, user.pw_uid, user.pw_gid)
        entry.symlink_to(place)
        return place

    def write_uri(self, uri: str) -> None:
        """For other commands: readable for the owner only."""
        self.uri_file.unlink(missing_ok=True)
        with os.fdopen(os.open(self.uri_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(uri)

    def began(self, pid: int, kind: Kind) -> None:
        """Notes a process that leads a group of its own, for whoever has to end it if we cannot."""
        since = leftovers.started(pid)
        if since is not None:
            self._running[pid] = (kind, since)
            self._note()

    def ended(self, pid: int) -> None:
        """The process and its group are gone."""
        if self._running.pop(pid, None) is not None:
            self._note()

    def _note(self) -> None:
        noted = [{"pid": pid, "kind": kind, "started": since} for pid, (kind, since) in self._running.items()]
        temporary = self.folder / ".run.json"
        temporary.write_text(json.dumps({"busctl": os.getpid(), "processes": noted}))
        temporary.replace(self.folder / "run.json")


def server_user() -> pwd.struct_passwd | None:
    """As whom the server has to run if not as we do: PostgreSQL refuses to run as root.

    Raises:
        StartError: There is nobody.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StartError(
        "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: add one, or run busctl as"
        " another user",
        reason="NoPostgres",
    )


@contextmanager
def opened(folder: Path, *, keep: bool) -> Iterator[Workspace]:
    """The folder, made if there is none, with what a killed run left ended; and clean afterwards.

    Raises:
        StartError: Another `busctl dev` uses it, or it cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / ".gitignore").write_text("*\n")
    except OSError as exc:
        raise StartError(f"{folder} cannot be written: {exc.strerror}; run it in the project's folder") from exc
    # With a run that was killed, its guard may be at work.
    patience = _PATIENCE if _was_killed(folder) else _IN_USE
    with leftovers.locked(folder, patience) as ours:
        if not ours:
            raise StartError(
                f"busctl dev runs in {folder.parent} already (process {_owner(folder)}): end it, or use another folder",
                reason="AlreadyRunning",
            )
        workspace = Workspace(folder, keep=keep, recovered=leftovers.recover(folder))
        # Noted before anything is made, so that whatever happens is known to be unfinished.
        workspace._note()
        guard = _start_guard(folder)
        try:
            yield workspace
        finally:
            _clean(workspace)
            if guard.stdin is not None:
                guard.stdin.close()
            guard.wait()


def _was_killed(folder: Path) -> bool:
    owner = _owner(folder)
    return owner is not None and leftovers.started(owner) is None


def _owner(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / "run.json").read_text())["busctl"])
    except (OSError, ValueError, KeyError):
        return None


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", leftovers.__file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _clean(workspace: Workspace) -> None:
    leftovers.remove_data(workspace.folder)
    workspace.uri_file.unlink(missing_ok=True)
    if not workspace.keep:
        shutil.rmtree(workspace.bindings, ignore_errors=True)
    (workspace.folder / "run.json").unlink(missing_ok=True)
