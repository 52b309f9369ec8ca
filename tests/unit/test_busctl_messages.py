"""Which messages `busctl tail` shows and how, and what `busctl publish` makes of JSON."""

import io
import json
import os
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from bus_operator.cli import messages, reading, tailing
from bus_operator.cli.envelopes import Envelopes
from bus_operator.errors import SpecError
from bus_runtime import BusDataMessage, BusEndMessage, BusJobRequestMessage, BusMessage, JSONMessageSerializer

AT = datetime(2026, 11, 27, 20, 30, 51, 204_000, tzinfo=UTC)


def read(message: BusMessage, msg_id: int = 17) -> messages.Message:
    return messages.read(msg_id, JSONMessageSerializer().serialize(message))


ORDER = read(BusJobRequestMessage(source="shop-1", target="billing", job_id="A-1", payload={"note": "über"}))


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({}, True),
        ({"types": ("BusJobRequestMessage",)}, True),
        ({"types": ("pipecat.bus.messages.BusJobRequestMessage",)}, True),
        ({"types": ("BusEnd*", "BusJob*")}, True),
        ({"types": ("busjob*",)}, False),
        ({"sources": ("shop-*",)}, True),
        ({"sources": ("shop",)}, False),
        ({"pattern": re.compile('"job_id":"A-[0-9]"')}, True),
        ({"pattern": re.compile("über")}, True),
        ({"pattern": re.compile("uber")}, False),
        ({"types": ("BusJob*",), "sources": ("billing",)}, False),
    ],
)
def test_what_is_wanted(wanted: dict[str, Any], shown: bool) -> None:
    assert tailing.Wanted(**wanted).takes(ORDER) is shown


def test_json_that_is_no_bus_message_can_be_asked_for() -> None:
    assert tailing.Wanted(types=("-",)).takes(messages.read(1, b"[1]"))
    assert not tailing.Wanted(sources=("*x",)).takes(messages.read(1, b"[1]"))


def test_for_programs() -> None:
    """The documented shape."""
    line = tailing.as_json("shop.orders")(ORDER, AT)
    assert "\n" not in line
    assert json.loads(line) == {
        "id": 17,
        "channel": "shop.orders",
        "receivedAt": "2026-11-27T20:30:51.204Z",
        "type": "pipecat.bus.messages.BusJobRequestMessage",
        "source": "shop-1",
        "target": "billing",
        "message": ORDER.payload,
    }


def test_for_people() -> None:
    line = tailing.as_text(io.StringIO())(ORDER, AT)
    time = AT.astimezone().strftime("%H:%M:%S.204")
    assert (
        line == f'{time}  #17  BusJobRequestMessage  shop-1 → billing  {{"job_id":"A-1","payload":{{"note":"über"}}}}'
    )


def test_who_publishes_commands_no_terminal() -> None:
    command = "\x1b]52;c;cm0gLXJm\x07\n\x9b2J"
    payload = {"__type__": f"shop.{command}", "__data__": {"source": command, "target": command, "note": command}}
    message = messages.read(1, json.dumps(payload).encode())
    assert tailing.as_text(io.StringIO())(message, AT).isprintable()
    line = tailing.as_json("shop.orders")(message, AT)
    assert line.isprintable()
    assert json.loads(line)["message"] == payload


@pytest.mark.parametrize(
    "payload",
    [b"1" + b"0" * 5000, b"[" * 1010 + b"]" * 1010, b"[" * 9000 + b"]" * 9000, b'{"a":' * 600 + b"1" + b"}" * 600],
    ids=["digits", "levels", "many levels", "objects"],
)
def test_whatever_json_postgresql_takes_is_shown(payload: bytes) -> None:
    message = messages.read(1, payload)
    assert tailing.Wanted(pattern=re.compile("1|a")).takes(message) or b"1" not in payload
    assert tailing.as_text(io.StringIO())(message, AT)
    assert json.loads(tailing.as_json("shop.orders")(message, AT))["message"] == payload.decode()


def test_json_becomes_what_every_client_reads() -> None:
    wrap = Envelopes("BusEndMessage", source="me", target="runner").wrap
    message = JSONMessageSerializer().deserialize(wrap('{"reason": "enough"}'))
    assert isinstance(message, BusEndMessage)
    assert (message.source, message.target, message.reason, message.name) == (
        "me",
        "runner",
        "enough",
        "BusEndMessage#0",
    )
    assert json.loads(wrap("{}"))["__data__"]["name"] == "BusEndMessage#1"
    plain = JSONMessageSerializer().deserialize(Envelopes().wrap("{}"))
    assert (type(plain), plain.source, plain.target) == (BusDataMessage, "busctl", None)


def test_json_that_stays_as_it_is() -> None:
    """What tail shows can be published again, and --raw takes anything."""
    envelope = JSONMessageSerializer().serialize(BusEndMessage(source="main"))
    assert json.loads(Envelopes().wrap(envelope)) == json.loads(envelope)
    assert Envelopes(raw=True).wrap("[1, 2]") == b"[1,2]"
    assert json.loads(Envelopes("shop.messages.OrderPlaced").wrap("{}"))["__type__"] == "shop.messages.OrderPlaced"


def test_what_makes_no_message() -> None:
    with pytest.raises(SpecError, match=r"'\{oops' is no JSON"):
        Envelopes().wrap("{oops")
    with pytest.raises(SpecError, match="--raw takes any JSON"):
        Envelopes().wrap("[1]")
    with pytest.raises(SpecError, match=r"as in shop\.messages\.OrderPlaced"):
        Envelopes("OrderPlaced")


def test_fields_that_receivers_would_ignore() -> None:
    assert Envelopes().unknown_fields('{"order": 1, "source": "x"}') == ["order"]
    assert Envelopes("BusEndMessage").unknown_fields('{"reason": "x"}') == []
    assert Envelopes("shop.OrderPlaced").unknown_fields('{"order": 1}') == []
    assert Envelopes(raw=True).unknown_fields('{"order": 1}') == []


async def test_lines_as_they_come() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as typing:
        coming = reading.lines(stream)
        typing.write(b"one\n\n")
        assert await anext(coming) == b"one"
        typing.write(b"  two\nthree")
        assert await anext(coming) == b"two"
        typing.close()
        assert [line async for line in coming] == [b"three"]
