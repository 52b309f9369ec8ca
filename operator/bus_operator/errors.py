"""Failures that a status condition can name.

Each carries the CamelCase reason that the condition shows; its message names the object and the remedy. Whether trying
again can help is part of the class, not of the text.
"""


class BusError(Exception):
    """A failure that is reported on the resource it concerns."""

    reason = "Error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about it says in fields."""
        return {"reason": self.reason}


class TransientError(BusError):
    """Trying again may help without anyone changing a manifest: a server that is down, a race that was lost."""


class ConnectionFailedError(TransientError):
    """The PostgreSQL server cannot be reached or refuses the connection."""

    reason = "ConnectionFailed"


class AuthenticationFailedError(TransientError):
    """The server refuses the administrator's credential."""

    reason = "AuthenticationFailed"


class NamespaceUnreadableError(TransientError):
    """What depends on a namespace of the operator's list that it may not read at the moment: nothing is known of it.

    Args:
        subject: What cannot be decided.
        namespace: The namespace, or several with commas.
    """

    reason = "NamespaceUnreadable"

    def __init__(self, subject: str, namespace: str) -> None:
        super().__init__(
            f"{subject}: the operator may not read namespace {namespace}. Renew its Role there with helm upgrade, or"
            " take the namespace off scope.namespaces"
        )


class SpecError(BusError):
    """Only a change by the user helps: of a manifest, a Secret, a grant."""

    reason = "InvalidSpec"


class StartError(BusError):
    """The operator's process cannot start in its surroundings."""

    reason = "StartFailed"


class SecretError(SpecError):
    """A Secret is missing, may not be read, or does not hold what it should."""

    reason = "SecretInvalid"


class InsufficientPrivilegeError(SpecError):
    """The administrator's credential lacks a right on the server."""

    reason = "InsufficientPrivilege"


class ChannelConflictError(SpecError):
    """The wire name belongs to another BusChannel."""

    reason = "ChannelConflict"


class NotFoundError(SpecError):
    """There is no such object or channel."""

    reason = "NotFound"
