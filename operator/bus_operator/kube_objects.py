"""What the Kubernetes API's answers are read into, besides the resources themselves (see inventory.py)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

from bus_operator.errors import SecretError
from bus_operator.inventory import Resource, comes_before
from bus_operator.model import GROUP, VERSION, Uid
from bus_operator.secret_entries import entries


class Subject(Protocol):
    """What an Event can be about."""

    @property
    def api_version(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> Uid: ...  # noqa: D102


@dataclass(frozen=True)
class Secret:
    """A Secret that was read. Its entries are kept out of `repr`."""

    namespace: str
    name: str
    resource_version: str
    owners: frozenset[tuple[str, str]]
    """Kind and name of each owner."""
    data: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_body(cls, body: Mapping[str, Any], only: str | None = None) -> "Secret":
        """Decodes what the API server sent; of a single key, if one is given."""
        metadata = body["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            resource_version=metadata["resourceVersion"],
            owners=frozenset((item["kind"], item["name"]) for item in metadata.get("ownerReferences", ())),
            data=entries(body, only),
        )

    def require_owner(self, owner: Resource) -> None:
        """Raises SecretError unless the Secret belongs to `owner`, or to its predecessor of the same name.

        The predecessor's is not collected yet when a resource is deleted and made anew: it passes on.
        """
        if (owner.kind, owner.name) not in self.owners:
            raise SecretError(
                f"Secret {self.namespace}/{self.name} exists and does not belong to this {owner.kind}:"
                " delete it, or choose another spec.credentials.secretName",
                reason="SecretConflict",
            )


@dataclass(frozen=True)
class Listing:
    """All resources of a kind as they were at one moment.

    Attributes:
        resource_version: That of the moment.
        resources: What there was.
        page_size: Of how many at a time no page was too large.
    """

    resource_version: str
    resources: list[Resource]
    page_size: int

    def is_newer_than(self, resource: Resource) -> bool:
        """Whether the resource would be listed if it were there."""
        return comes_before(resource.resource_version, self.resource_version)


class Refusal(Enum):
    """Why a namespace that the operator is to serve may not be read."""

    GONE = "gone"
    """There is no such namespace: nothing is in it."""
    TERMINATING = "terminating"
    """It is being deleted, and the operator's Role went first. What is in it is not known."""
    FORBIDDEN = "forbidden"
    """It may exist, and the operator's Role there does not. What is in it is not known."""


class BindingVersion(NamedTuple):
    """What a watch tells of a binding's Secret."""

    name: str
    channel: str
    """The BusChannel that its label names."""
    version: str
    deleted: bool


def owner_reference(owner: Resource) -> dict[str, Any]:
    """Ties an object's life to a resource: garbage collection deletes it afterwards."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
