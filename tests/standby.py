"""A standby that streams from a test's PostgreSQL, and takes over when it is told to."""

import dataclasses
import os
import pwd
import subprocess

import postgres


def clone(server: postgres.Server) -> postgres.Server:
    """A standby of the server, running."""
    directory = server.directory.with_name(f"{server.directory.name}-standby")
    directory.mkdir(mode=0o755)
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if user is not None:
        os.chown(directory, user.pw_uid, -1)
    standby = dataclasses.replace(server, directory=directory, port=postgres.free_port(), process=None)
    try:
        subprocess.run(
            [
                server.programs / "pg_basebackup", "-D", directory / "data", "-R", "-X", "stream", "--no-sync",
                "-c", "fast", "-h", "127.0.0.1", "-p", str(server.port), "-U", postgres.SUPERUSER,
            ],
            env={**os.environ, "PGPASSWORD": server.password}, user=user and user.pw_name, check=True,
            capture_output=True,
        )  # fmt: skip
        standby.start()
    except BaseException:
        standby.remove()
        raise
    return standby
