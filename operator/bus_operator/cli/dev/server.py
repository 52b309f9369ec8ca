"""Starts a PostgreSQL for one run: on loopback, with a password, and ended with the run."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_operator.cli.dev.leftovers import HOW_TO_END
from bus_operator.cli.dev.programs import Programs
from bus_operator.cli.dev.workspace import Workspace, server_user
from bus_operator.database import AdminConnection, Endpoint
from bus_operator.errors import StartError

SUPERUSER = "postgres"
DATABASE = "postgres"

_START_TIMEOUT = 60.0
_ATTEMPTS = 3
"""A port that was free may be taken meanwhile."""

_SETTINGS = (
    "listen_addresses=127.0.0.1",
    # The path of a socket below a project's folder may be longer than a socket's can be.
    "unix_socket_directories=",
    "max_connections=500",
    "shared_buffers=32MB",
    "max_wal_senders=0",
    "wal_level=minimal",
    "log_checkpoints=off",
    "timezone=UTC",
)


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    admin: AdminConnection
    process: asyncio.subprocess.Process
    kept: bool
    """Whether it holds data of an earlier run."""

    @property
    def uri(self) -> str:
        """The administrator's URI."""
        return self.admin.endpoint.uri(self.admin.username, self.admin.password or "")


@asynccontextmanager
async def running(programs: Programs, workspace: Workspace) -> AsyncIterator[Server]:
    """A server that is ready; it is ended afterwards.

    Raises:
        StartError: It cannot be initialised or started; with what it says.
    """
    place = workspace.data()
    programs = _reachable(programs, place)
    data = place / "pgdata"
    kept = (data / "PG_VERSION").exists()
    if kept:
        password = _kept_password(place, data, programs)
    else:
        password = await _initialise(programs, place, data, durable=workspace.keep)
    process, port = await _start(programs, place, data, workspace)
    try:
        admin = AdminConnection(Endpoint("127.0.0.1", port, DATABASE, "disable"), SUPERUSER, password)
        yield Server(admin, process, kept)
    finally:
        await _stop(process, workspace)


def _reachable(programs: Programs, place: Path) -> Programs:
    """The programs where the server's user can execute them: an environment may be below root's own directory."""
    user = server_user()
    if (
        user is None
        or subprocess.run(
            ["test", "-x", programs.directory / "postgres"],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            check=False,
        ).returncode
        == 0
    ):
        return programs
    copy = place / "programs"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(programs.directory.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
    return Programs(copy / "bin", programs.version)


def _kept_password(place: Path, data: Path, programs: Programs) -> str:
    version = (data / "PG_VERSION").read_text().strip()
    if version != str(programs.major):
        raise StartError(
            f"the data that was kept is PostgreSQL {version}'s, and this is {programs.version}: say by --postgres where"
            f" that version is, or delete {place} to begin anew",
            reason="NoPostgres",
        )
    return (place / "password").read_text()


async def _initialise(programs: Programs, place: Path, data: Path, *, durable: bool) -> str:
    # Under another name until it is whole: one that is interrupted is never taken for a server's data.
    unfinished = data.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    password = secrets.token_urlsafe(24)
    file = place / "password"
    file.unlink(missing_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as opened:
        opened.write(password)
    if (user := server_user()) is not None:
        os.chown(file, user.pw_uid, user.pw_gid)
    process = await asyncio.create_subprocess_exec(
        programs.directory / "initdb", "-D", unfinished, "-U", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8",
        "--locale=C", f"--pwfile={file}", *(() if durable else ("--no-sync",)),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=place, start_new_session=True, **_as_its_user(),
    )  # fmt: skip
    try:
        told, _ = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode != 0:
        raise StartError(
            f"PostgreSQL {programs.version} cannot be initialised: {_last(told.decode(errors='replace'))}",
            reason="PostgresFailed",
        )
    unfinished.rename(data)
    return password


async def _start(
    programs: Programs, place: Path, data: Path, workspace: Workspace
) -> tuple[asyncio.subprocess.Process, int]:
    for attempt in range(_ATTEMPTS):
        port = _free_port()
        with workspace.log.open("wb") as log:
            settings = (*_SETTINGS, f"port={port}", f"fsync={'on' if workspace.keep else 'off'}")
            process = await asyncio.create_subprocess_exec(
                programs.directory / "postgres", "-D", data, *(part for item in settings for part in ("-c", item)),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=place, start_new_session=True, **_as_its_user(),
            )  # fmt: skip
        workspace.began(process.pid, "server")
        try:
            if await _is_ready(process, data):
                return process, port
        except BaseException:
            await _stop(process, workspace)
            raise
        await _stop(process, workspace)
        if attempt + 1 == _ATTEMPTS:
            break
    raise StartError(
        f"PostgreSQL {programs.version} does not start: {_last(workspace.log.read_text(errors='replace'))}"
        f" ({workspace.log} has the rest)",
        reason="PostgresFailed",
    )


async def _is_ready(process: asyncio.subprocess.Process, data: Path) -> bool:
    """Waits for it, as pg_ctl does: the eighth line of the postmaster's file says so. False if it ends instead."""
    deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            return False
        with suppress(FileNotFoundError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            if len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
        await asyncio.sleep(0.02)
    return False


async def _stop(process: asyncio.subprocess.Process, workspace: Workspace) -> None:
    """Data that is kept is closed properly; what is thrown away needs no farewell."""
    how = HOW_TO_END["server"]
    for signum, seconds in ((signal.SIGINT, 15.0), *how) if workspace.keep else how:
        with suppress(ProcessLookupError):
            process.send_signal(signum)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)
            break
    workspace.ended(process.pid)


def _as_its_user() -> dict[str, Any]:
    user = server_user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last(text: str) -> str:
    """What it said last, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:]) or "it says nothing"
