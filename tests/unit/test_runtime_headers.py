"""Headers in the envelope: what is written, and what is made of what anybody may have written."""

import json
from typing import Any

import orjson
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st

from bus_runtime import BusJobRequestMessage, JSONMessageSerializer
from bus_runtime.headers import trace_headers, with_headers

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = 'rojo=00f067aa0ba902b7, tenant@vendor=a "quoted\\ value'
HEADERS = {"traceparent": PARENT, "tracestate": STATE}


def message(payload: Any = None) -> bytes:
    return JSONMessageSerializer().serialize(BusJobRequestMessage("1", payload={"p": payload}, source="s"))


def as_jsonb(payload: bytes) -> bytes:
    """As the log gives it back: the shorter keys first, a space after each colon and comma."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}
        return [ordered(item) for item in value] if isinstance(value, list) else value

    return json.dumps(ordered(json.loads(payload)), ensure_ascii=False).encode()


@pytest.mark.parametrize("headers", [HEADERS, {"traceparent": PARENT}])
def test_what_is_put_on_is_found_and_does_not_change_the_message(headers: dict[str, str]) -> None:
    plain = message("x" * 3000)
    carrying = with_headers(plain, headers)
    assert orjson.loads(carrying) == orjson.loads(plain) | {"__headers__": headers}
    for form in (carrying, as_jsonb(carrying)):
        assert trace_headers(form) == headers
        assert JSONMessageSerializer().deserialize(form) == JSONMessageSerializer().deserialize(plain)


def test_the_largest_that_the_grammar_allows() -> None:
    state = ",".join(f'k{number}="{chr(92) * 20}"' for number in range(18))
    assert len(state) <= 512
    headers = {"traceparent": PARENT, "tracestate": state}
    assert trace_headers(as_jsonb(with_headers(message(), headers))) == headers


def test_what_is_not_right_is_not_sent() -> None:
    plain = message()
    for headers in ({}, {"baggage": "a=b"}, {"traceparent": "b3"}):
        assert with_headers(plain, headers) is plain
    written = with_headers(plain, {"traceparent": PARENT, "tracestate": f"a={'x' * 600}", "baggage": "user=42"})
    assert orjson.loads(written)["__headers__"] == {"traceparent": PARENT}


@pytest.mark.parametrize("other", [b"[1]", b'{"ciphertext":"x"}', b'{"__type__":"x"} ', b'"text"', b""])
def test_what_another_serializer_writes_stays_as_it_is(other: bytes) -> None:
    assert with_headers(other, HEADERS) is other


@pytest.mark.parametrize(
    "parent",
    [
        PARENT.upper(), PARENT[:-1], f"{PARENT}0", f"{PARENT}\n", f" {PARENT}", f"{PARENT}-extra",
        PARENT.replace("-", "_"),
        f"ff{PARENT[2:]}", f"01{PARENT[2:]}", f"00-{'0' * 32}-b7ad6b7169203331-01", f"{PARENT[:36]}{'0' * 16}-01",
        PARENT.replace("0af7", "\u0660af7"), "", "00", "x" * 100_000, None, 7, ["a"], {"a": 1}, True,
    ],
)  # fmt: skip
def test_a_parent_against_the_grammar_counts_for_nothing(parent: Any) -> None:
    envelope = orjson.loads(message()) | {"__headers__": {"traceparent": parent, "tracestate": "a=b"}}
    assert trace_headers(orjson.dumps(envelope)) == {}


@pytest.mark.parametrize(
    "state",
    [
        "", ",", "a", "a=", "=b", "A=b", "a=b,", "a=b\n", "a=b\x00", "a=é", "a=b;c=d,", "@a=b", "a@=b", "a=b=c",
        f"a={'x' * 257}",
        ",".join(f"k{number}=v" for number in range(33)), f"a={'x' * 256},b={'y' * 256}", None, 3, [], {},
    ],
)  # fmt: skip
def test_a_state_against_the_grammar_is_left_out(state: Any) -> None:
    envelope = orjson.loads(message()) | {"__headers__": {"traceparent": PARENT, "tracestate": state}}
    assert trace_headers(orjson.dumps(envelope)) == {"traceparent": PARENT}


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{}", b'"__headers__"', b'{"__headers__"', b'{"__headers__":', b'{"__headers__":{}',
        b'{"__headers__":null}',
        b'{"__headers__":[]}', b'{"__headers__":"' + PARENT.encode() + b'"}', b'{"__headers__":{"traceparent":"\xff"}}',
        b'{"__headers__":' + b"[" * 1000 + b"}",
    ],
)  # fmt: skip
def test_anything_else_is_no_header(payload: bytes) -> None:
    assert trace_headers(payload) == {}


def test_data_that_looks_like_headers_is_data() -> None:
    """An application's own key, at whatever place, and text that quotes one."""
    for value in ({"__headers__": HEADERS}, [{"__headers__": HEADERS}], json.dumps({"__headers__": HEADERS})):
        plain = message(value)
        for form in (plain, as_jsonb(plain)):
            assert trace_headers(form) == {}
        assert trace_headers(as_jsonb(with_headers(plain, {"traceparent": PARENT}))) == {"traceparent": PARENT}


@examples(200)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_bytes_fail(noise: bytes, at: int) -> None:
    carrying = with_headers(message(), HEADERS)
    assert trace_headers(noise) == {}
    found = trace_headers(carrying[:at] + noise + carrying[at:])
    assert found.keys() <= HEADERS.keys()
    trace_headers(carrying[: -1 - at % 200] + noise)
