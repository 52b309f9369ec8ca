"""`busctl dev`: a channel to develop with, on a PostgreSQL of its own, without a cluster.

command.py     the options
session.py     puts it together: server, channels, message log, workers, and ends them in the opposite order
workspace.py   the folder `.busctl`: who uses it, what runs, and how what a killed run left is ended
guard.py       a process that does so as soon as busctl is gone
programs.py    which PostgreSQL
server.py      starts it
workers.py     runs commands, prefixes what they print
files.py       which files are watched for changes
"""

from bus_operator.cli.dev.command import dev

__all__ = ["dev"]
