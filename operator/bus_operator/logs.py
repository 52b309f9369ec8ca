"""Logging of the operator: one line per record, as text or as JSON."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from types import TracebackType

from bus_operator.texts import escaped, escaped_json

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: ts, level, logger, msg, and the exception if there is one.

    What the message is about is in fields as well: kind, namespace, name, database and reason, as far as what it is
    made of knows them (`log_fields`).
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        for argument in record.args if isinstance(record.args, tuple) else ():
            entry |= getattr(argument, "log_fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return escaped_json(json.dumps(entry, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """A record as one line for people, and an exception's below it, further to the right.

    Peers, servers and pods choose what they call themselves: nothing of that begins a line, or commands a terminal.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as the library calls it
        """The line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - as the library calls it
        """The traceback, indented."""
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).split("\n"))


_RETRY = re.compile(r"Request attempt #(\d+) failed; will retry: ")

_RETRIES_PER_LINE = 30
"""Of a request that kopf repeats for ever, each two seconds: a line a minute."""


def _is_news(record: logging.LogRecord) -> bool:
    """False for most of the lines in which kopf says once more that a watch cannot be had."""
    found = _RETRY.match(record.msg) if record.name.startswith("kopf") and isinstance(record.msg, str) else None
    return found is None or (int(found[1]) - 1) % _RETRIES_PER_LINE == 0


def configure(level: str, log_format: str) -> None:
    """Sends everything to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(_is_news)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line for each watch event and probe is too much at INFO.
    for chatty in ("kopf", "aiohttp.access", "kubernetes"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
