"""The operator's log lines."""

import json
import logging
from collections.abc import Iterator

import pytest

from bus_operator import logs
from bus_operator.controller import Item
from bus_operator.errors import ConnectionFailedError
from bus_operator.inventory import Resource


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("kopf", "aiohttp.access", "kubernetes")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    logging.getLogger("bus_operator.x").info('two\nlines of "%s" in 東京', "text")
    logging.getLogger("bus_operator.x").debug("not this one")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("bus_operator.x").exception("it failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("ts").endswith("+00:00")
    assert first == {"level": "info", "logger": "bus_operator.x", "msg": 'two\nlines of "text" in 東京'}
    assert (second["level"], second["msg"]) == ("error", "it failed")
    assert second["exception"].endswith("ValueError: why")


def test_what_a_line_is_about_is_in_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    status = {"database": {"namespace": "bus", "name": "main"}}
    metadata = {"namespace": "shop", "name": "orders", "uid": "u"}
    channel = Resource.from_body({"kind": "BusChannel", "metadata": metadata, "status": status})
    logger = logging.getLogger("bus_operator.x")
    logger.info("%s: %s", channel, ConnectionFailedError("it is down"))
    logger.info("%s: tried again in %.1f s", Item("BusDatabase", ("bus", "main")), 1.5)
    logger.info("%(a)s", {"a": 1})
    first, second, third = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first | {"ts": ""} == {
        "ts": "", "level": "info", "logger": "bus_operator.x", "msg": "BusChannel shop/orders: it is down",
        "kind": "BusChannel", "namespace": "shop", "name": "orders", "database": "bus/main",
        "reason": "ConnectionFailed",
    }  # fmt: skip
    assert (second["kind"], second["namespace"], second["name"]) == ("BusDatabase", "bus", "main")
    assert third["msg"] == "1"


def test_others_write_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    for name in ("kopf.objects", "aiohttp.server", "asyncio"):
        logging.getLogger(name).error("it failed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["logger"] for line in lines] == ["kopf.objects", "aiohttp.server", "asyncio"]


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("WARNING", "text")
    logging.getLogger("bus_operator.x").info("not this one")
    logging.getLogger("bus_operator.x").warning("%d channels", 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING bus_operator.x: 3 channels")


HOSTILE = "web\n2026-11-28 09:00:00,000 INFO    bus_operator.main: all is well \x1b]0;owned\x07 \x9b2J"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_others_are_called_begins_no_line_and_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    logs.configure("INFO", log_format)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("bus_operator.x").exception("pod shop/%s asks for orders", HOSTILE)
    text = capsys.readouterr().err
    assert text.replace("\n", "").isprintable()
    assert sum(line.startswith("2026-11-28 09:00:00,000") for line in text.splitlines()) == 0
    if log_format == "json":
        assert json.loads(text)["msg"] == f"pod shop/{HOSTILE} asks for orders"


def test_what_kopf_tries_for_ever_is_said_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """As it tries to watch a namespace that is gone: each two seconds."""
    logs.configure("INFO", "json")
    for number in range(1, 62):
        logging.getLogger("kopf._cogs.clients.watching").error(
            f"Request attempt #{number} failed; will retry: GET https://server/apis -> APIForbiddenError('Forbidden')"
        )
        logging.getLogger("bus_operator.x").error("Request attempt #%d failed; will retry: ours", number)
    lines = [json.loads(line)["msg"] for line in capsys.readouterr().err.splitlines()]
    assert [line.split()[2] for line in lines if "Forbidden" in line] == ["#1", "#31", "#61"]
    assert len(lines) == 61 + 3


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "ERROR"])
def test_kopf_is_never_talkative(level: str) -> None:
    """At DEBUG it would log whole resources."""
    logs.configure(level, "text")
    assert not logging.getLogger("kopf.objects").isEnabledFor(logging.INFO)
    assert logging.getLogger("kopf").isEnabledFor(logging.ERROR)
