"""Everything the runtime raises. `BusError` is the common base.

The database's own errors are translated at one boundary (`driver.py`), by SQLSTATE and never by
message text. What matters to a caller is on the class: whether the statement may be repeated without
a message being published twice (`retryable`). What matters to whoever reads the log is the `code`, which ends the
text: docs/errors.md has a section for each. The operator's conditions have the same codes for the same failures.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Codes of failures that have no class of their own.
BINDING_AMBIGUOUS = "BindingAmbiguous"
BINDING_NOT_FOUND = "BindingNotFound"
BINDING_NOT_READY = "BindingNotReady"
BUS_NOT_RUNNING = "BusNotRunning"
CONNECTIONS_BUSY = "ConnectionsBusy"
CONNECTIONS_EXHAUSTED = "ConnectionsExhausted"
DATABASE_READ_ONLY = "DatabaseReadOnly"
MESSAGE_TOO_LARGE = "MessageTooLarge"
POOLER_IN_TRANSACTION_MODE = "PoolerInTransactionMode"
SERVER_CERTIFICATE_REFUSED = "ServerCertificateRefused"
TOO_MANY_PEERS = "TooManyPeers"


class BusError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: Names the failure; it stays the same from release to release.
        message: What happened, to what, and what to do; the error's text is that and the code.
    """

    code = "BusError"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


def reason_of(error: BaseException) -> str:
    """An error's words to go into another's: ours without its code, and never nothing."""
    return error.message if isinstance(error, BusError) else str(error) or type(error).__name__


class SerializationError(BusError, ValueError):
    """A message cannot be written as JSON, or JSON from the wire does not make a message."""

    code = "SerializationFailed"


class UnknownTypeError(SerializationError):
    """The wire names a type that nobody registered, so nothing is built from it.

    Register it with `bus_runtime.register_message` (messages) or `JSONMessageSerializer.register_type`
    (any dataclass, enum or pydantic model that messages carry).

    Attributes:
        tag: What the wire names.
    """

    code = "UnknownType"

    def __init__(self, tag: str, namesakes: Sequence[str] = ()) -> None:
        if namesakes:
            known = " and ".join(map(repr, namesakes))
            remedy = f"this process knows {known}: import the class from one module on both sides"
        else:
            remedy = "register its class with bus_runtime.register_message() or serializer.register_type()"
        super().__init__(f"message type {tag!r} is not registered in this process; {remedy}")
        self.tag = tag


class BindingError(BusError):
    """The binding directory is absent, ambiguous or incomplete. The message says what to do about it."""

    code = "BindingInvalid"


class BackendError(BusError):
    """The server refused a statement, which therefore had no effect.

    Attributes:
        sqlstate: The five-character SQLSTATE, or None when the error did not come from the server.
        retryable: Whether repeating the same statement later may succeed and cannot duplicate anything.
    """

    code = "DatabaseError"
    retryable = False

    def __init__(self, message: str, *, sqlstate: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.sqlstate = sqlstate


class AccessDeniedError(BackendError):
    """The server says `bus: access denied` (SQLSTATE 42501).

    It deliberately does not say why: the channel may not exist, the login may not belong to it, or this
    peer is no longer the holder of its queue (dropped after the peer timeout, taken over by another
    process with the same durable name, or its credentials were revoked).
    """

    code = "ChannelAccessDenied"


class PeerRefusedError(AccessDeniedError):
    """A durable peer's queue is refused: this process stopped reading.

    Another process joined later with the same peer name (SQLSTATE BUS01), or the credentials were revoked. A peer that
    the server merely does not know any more, as after a failover that lost its joining, joins again by itself.
    """

    code = "PeerReplaced"


class RejectedError(BackendError):
    """The server rejects this particular message or argument (SQLSTATE class 22 or 54), e.g. too large."""

    code = "MessageRejected"


class TransientError(BackendError):
    """The statement was rolled back for a passing reason: lock not available, deadlock, timeout, no memory."""

    code = "DatabaseBusy"
    retryable = True


class UnavailableError(BackendError):
    """No connection could be had, so the statement was never sent."""

    code = "ConnectionFailed"
    retryable = True


class AuthenticationError(UnavailableError):
    """The server does not accept the login. Rotated credentials are read again before the next attempt."""

    code = "AuthenticationFailed"


class ConnectionLostError(BackendError):
    """The connection broke while a statement was under way: whether it took effect is not known."""

    code = "ConnectionLost"


class PublishError(BusError):
    """A publish with `raise_on_error=True` failed. Its code is that of the cause, where that has one.

    Attributes:
        outcome_unknown: True when the connection broke after the message may have been committed. Repeating
            the publish may then deliver the message twice; not repeating it may lose it.
    """

    code = "PublishFailed"

    def __init__(self, message: str, *, outcome_unknown: bool = False, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.outcome_unknown = outcome_unknown
