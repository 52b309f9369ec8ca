"""Everything the runtime raises. `BusError` is the common base.

The database's own errors are translated at one boundary (`connection.py`), by SQLSTATE and never by
message text. What matters to a caller is on the class: whether the statement may be repeated without
a message being published twice (`retryable`).
"""

from __future__ import annotations


class BusError(Exception):
    """Base of all errors of this package."""


class SerializationError(BusError, ValueError):
    """A message cannot be written as JSON, or JSON from the wire does not make a message."""


class UnknownTypeError(SerializationError):
    """The wire names a type that nobody registered, so nothing is built from it.

    Register it with `bus_runtime.register_message` (messages) or `JSONMessageSerializer.register_type`
    (any dataclass, enum or pydantic model that messages carry).
    """

    def __init__(self, tag: str) -> None:
        super().__init__(
            f"message type {tag!r} is not registered in this process; "
            "register its class with bus_runtime.register_message() or serializer.register_type()"
        )
        self.tag = tag


class BindingError(BusError):
    """The binding directory is absent, ambiguous or incomplete. The message says what to do about it."""


class BackendError(BusError):
    """The server refused a statement, which therefore had no effect.

    Attributes:
        sqlstate: The five-character SQLSTATE, or None when the error did not come from the server.
        retryable: Whether repeating the same statement later may succeed and cannot duplicate anything.
    """

    retryable = False

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class AccessDeniedError(BackendError):
    """The server says `bus: access denied` (SQLSTATE 42501).

    It deliberately does not say why: the channel may not exist, the login may not belong to it, or this
    peer is no longer the holder of its queue (dropped after the peer timeout, taken over by another
    process with the same durable name, or its credentials were revoked).
    """


class PeerRefusedError(AccessDeniedError):
    """A durable peer's queue is refused: this process stopped reading.

    Another process joined later with the same peer name (SQLSTATE BUS01), or the credentials were revoked. A peer that
    the server merely does not know any more, as after a failover that lost its joining, joins again by itself.
    """


class RejectedError(BackendError):
    """The server rejects this particular message or argument (SQLSTATE class 22 or 54), e.g. too large."""


class TransientError(BackendError):
    """The statement was rolled back for a passing reason: lock not available, deadlock, timeout, no memory."""

    retryable = True


class UnavailableError(BackendError):
    """No connection could be had, so the statement was never sent."""

    retryable = True


class AuthenticationError(UnavailableError):
    """The server does not accept the login. Rotated credentials are read again before the next attempt."""


class ConnectionLostError(BackendError):
    """The connection broke while a statement was under way: whether it took effect is not known."""


class PublishError(BusError):
    """A publish with `raise_on_error=True` failed.

    Attributes:
        outcome_unknown: True when the connection broke after the message may have been committed. Repeating
            the publish may then deliver the message twice; not repeating it may lose it.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
