"""What travels with a message beside it: `"__headers__"`, a third key of the envelope, after `__type__` and `__data__`.

Today that is the trace context (W3C Trace Context, level 1: https://www.w3.org/TR/trace-context-1/). Peers that do not
know the key pass over it: former versions of this runtime do, and so does the reference client. What is read here was
written by somebody else: it is bounded, it follows the grammar, or it does not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

_KEY = b'"__headers__"'
_ENVELOPE = b'{"__type__":'

#: Only so many bytes at the end of a message are looked at: 55 and 512 characters, which JSON may double, and their
#: keys.
_MAX_BYTES = 1280
_MAX_TRACE_STATE = 512

_TRACE_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
#: A key, of one tenant or several; printable characters but for comma and equals sign, the last of them no space.
_MEMBER = (
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})="
    r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)
_TRACE_STATE = re.compile(rf"{_MEMBER}(?:[ \t]*,[ \t]*{_MEMBER}){{0,31}}", re.ASCII)


def with_headers(payload: bytes, headers: Mapping[str, str]) -> bytes:
    """The message with trace headers; as it is if it is not in the envelope that peers expect, or has none to carry."""
    written = _checked(headers.get("traceparent"), headers.get("tracestate"))
    if not written or not payload.startswith(_ENVELOPE) or not payload.endswith(b"}"):
        return payload
    return b"%b,%b:%b}" % (payload[:-1], _KEY, orjson.dumps(written))


def trace_headers(payload: bytes) -> dict[str, str]:
    """`traceparent`, and `tracestate` if there is one, of a message that has them and has them right; else nothing.

    The log's jsonb sorts keys by their length, so that they are at the end there as well.
    """
    at = payload.rfind(_KEY, max(len(payload) - _MAX_BYTES, 0))
    if at < 0:
        return {}
    _, colon, value = payload[at + len(_KEY) :].partition(b":")
    try:
        # Without the envelope's own brace. Another object's key of this name leaves one too many.
        headers = orjson.loads(value.rstrip()[:-1]) if colon else None
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(headers, dict):
        return {}
    return _checked(headers.get("traceparent"), headers.get("tracestate"))


def _checked(parent: object, state: object) -> dict[str, str]:
    if not isinstance(parent, str) or _TRACE_PARENT.fullmatch(parent) is None:
        return {}
    if not isinstance(state, str) or len(state) > _MAX_TRACE_STATE or _TRACE_STATE.fullmatch(state) is None:
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}
