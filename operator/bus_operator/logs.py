"""Logging of the operator: one line per record, as text or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime


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
        return json.dumps(entry, ensure_ascii=False)


def configure(level: str, log_format: str) -> None:
    """Sends everything to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line for each watch event and probe is too much at INFO.
    for chatty in ("kopf", "aiohttp.access", "kubernetes"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
