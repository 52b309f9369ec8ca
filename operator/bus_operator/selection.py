"""Which BusDatabase a BusChannel is in, and which BusChannels want the same name there."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from bus_operator.errors import BusError, ChannelConflictError, NamespaceUnreadableError, SpecError
from bus_operator.inventory import Inventory, Key, Resource
from bus_operator.model import ChannelSpec, Uid

Labels = Mapping[str, str]


class NamespaceLabels(Protocol):
    """Knows the labels of namespaces."""

    async def labels_of(self, name: str) -> Labels: ...  # noqa: D102


class Selection:
    """Answers from what was watched.

    Args:
        namespaces: The labels of namespaces.
        inventory: What the watches saw.
    """

    def __init__(self, namespaces: NamespaceLabels, inventory: Inventory) -> None:
        self._namespaces = namespaces
        self._inventory = inventory

    async def database_of(self, channel: Resource, spec: ChannelSpec) -> Resource:
        """The BusDatabase that the channel names, is in already or gets by default, if its namespace may use it.

        Raises:
            SpecError: DatabaseNotFound, NamespaceNotAllowed, NoDefaultDatabase or AmbiguousDefault.
            NamespaceUnreadableError: It depends on what is in a namespace that may not be read.
        """
        if spec.database_ref is not None:
            named = spec.database_ref.namespace or channel.namespace, spec.database_ref.name
            # A reference cannot be changed.
            remedy = "create it, or delete the BusChannel and create it with another spec.databaseRef"
            if self.existing(named) is None:
                remedy += await self._namesake(channel, named[1])
            return await self._existing(channel, named, remedy)
        if "secretRef" in channel.status:
            # A default is chosen once, as with StorageClass: another one must not lead pods away from their messages.
            return await self._existing(channel, _used(channel), "the channel is in that one: create it again")
        return await self._default(channel)

    async def _existing(self, channel: Resource, key: Key | None, remedy: str) -> Resource:
        found = self.existing(key) if key else None
        name = "/".join(key) if key else ""
        if found is None and key is not None and key[0] in self._inventory.unread:
            raise NamespaceUnreadableError(f"BusDatabase {name} may be there or not", key[0])
        if found is None:
            raise SpecError(f"there is no BusDatabase {name}: {remedy}", reason="DatabaseNotFound")
        if not await self._allowed(found, channel.namespace):
            raise SpecError(
                f"BusDatabase {name} does not allow namespace {channel.namespace}: its owner can allow it in"
                " spec.allowedNamespaces",
                reason="NamespaceNotAllowed",
            )
        return found

    async def _namesake(self, channel: Resource, name: str) -> str:
        """That there is a BusDatabase of this name elsewhere, as when its namespace was left out.

        Of one that the channel's namespace may not use nobody is told.
        """
        if _used(channel) is not None:
            # Its messages are not in another one.
            return ""
        others = [item for item in self._inventory.databases.values() if item.name == name and not item.deleting]
        try:
            usable = [item for item in others if await self._allowed(item, channel.namespace)]
        except BusError:
            # What is wrong can be said without the namespace's labels.
            return ""
        if len(usable) != 1:
            return ""
        namespace = usable[0].namespace
        return f"; there is {namespace}/{name}: write databaseRef: {{name: {name}, namespace: {namespace}}}"

    async def _default(self, channel: Resource) -> Resource:
        defaults = list(self._inventory.defaults())
        own = [item for item in defaults if item.namespace == channel.namespace]
        others = [item for item in defaults if await self._allowed(item, channel.namespace)] if not own else []
        candidates = own or others
        if not own and len(candidates) < 2 and (unread := self._inventory.unread):
            # It is chosen once. Better late than in another database than everybody else's.
            raise NamespaceUnreadableError("which BusDatabase is the default is not certain", ", ".join(sorted(unread)))
        if not candidates:
            raise SpecError(
                f"no BusDatabase is the default for namespace {channel.namespace}: set spec.default: true on a"
                " BusDatabase that allows this namespace, or delete the BusChannel and create it with spec.databaseRef",
                reason="NoDefaultDatabase",
            )
        if len(candidates) > 1:
            names = ", ".join(sorted(f"{item.namespace}/{item.name}" for item in candidates))
            raise SpecError(
                f"several BusDatabases are the default ({names}): keep one default, or delete the BusChannel and create"
                " it with spec.databaseRef",
                reason="AmbiguousDefault",
            )
        return candidates[0]

    async def _allowed(self, database: Resource, namespace: str) -> bool:
        try:
            allowed = database.database_spec().allowed_namespaces
        except SpecError:
            return False
        labels = dict(await self._namespaces.labels_of(namespace)) if allowed.selector is not None else {}
        return allowed.allows(database.namespace, namespace, labels)

    def residents_of(self, database: Key) -> list[Resource]:
        """The BusChannels whose status names the BusDatabase."""
        return [channel for channel in self._inventory.channels.values() if _used(channel) == database]

    def last_database_of(self, channel: Resource) -> Key | None:
        """The BusDatabase that the channel's status names, whether it exists or not."""
        return _used(channel)

    def existing(self, database: Key) -> Resource | None:
        """The BusDatabase, unless it is gone or being deleted: whatever holds it then, it is no use any more."""
        found = self._inventory.databases.get(database)
        return None if found is None or found.deleting else found

    def presumed_database_of(self, channel: Resource) -> Key | None:
        """Where the channel most likely is or will be, without asking anybody; None where that is open."""
        if channel.deleting and "database" in channel.status:
            return _used(channel)
        reference = channel.spec.get("databaseRef")
        if reference is not None:
            return reference.get("namespace", channel.namespace), reference["name"]
        if "database" in channel.status:
            return _used(channel)
        defaults = [item.key for item in self._inventory.defaults()]
        own = [key for key in defaults if key[0] == channel.namespace] or defaults
        return own[0] if len(own) == 1 else None

    def channels_in(self, namespace: str) -> list[Resource]:
        """The BusChannels of a namespace."""
        return [channel for key, channel in self._inventory.channels.items() if key[0] == namespace]

    def channels_of(self, database: Key) -> Iterable[Resource]:
        """The BusChannels that a change of this BusDatabase may concern.

        Also those that look for a default, and those that are told of it because the one that they name is missing.
        """
        for channel in self._inventory.channels.values():
            reference = channel.spec.get("databaseRef")
            if reference is None:
                yield channel
                continue
            named = reference.get("namespace", channel.namespace), reference["name"]
            if named == database or (named[1] == database[1] and self.existing(named) is None):
                yield channel

    def rivals_of(self, channel: Resource, wire_name: str | None) -> list[Resource]:
        """Other BusChannels that want this wire name, in whatever database."""
        return [other for other in self.claimants(wire_name) if other.uid != channel.uid]

    def claimants(self, wire_name: str | None) -> list[Resource]:
        """All BusChannels that want this wire name, in whatever database."""
        return self._inventory.claimants(wire_name) if wire_name is not None else []

    def made_anew(self, namespace: str, name: str, wire_name: str, database: Key) -> bool:
        """Whether there is a BusChannel again that takes over the channel of a deleted one, or may yet."""
        channel = self._inventory.channels.get((namespace, name))
        if channel is None or channel.deleting or _used(channel) not in (None, database):
            return False
        try:
            return channel.channel_spec().wire_name(namespace, name) == wire_name
        except SpecError:
            return False

    def younger_rivals(self, channel: Resource, wire_name: str, database: Resource) -> frozenset[Uid]:
        """Those that give way to this channel: in one database the oldest BusChannel has the name.

        The API server's clock counts seconds. Of two that are equally old neither gives way: the one that has the
        channel in the database keeps it.

        Raises:
            ChannelConflictError: When there is an older one.
        """
        younger = set()
        for rival in self.rivals_of(channel, wire_name):
            if _used(rival) != database.key:
                continue
            if rival.created < channel.created:
                raise ChannelConflictError(
                    f"channel {wire_name!r} belongs to the older {rival}: choose another spec.channel,"
                    " or delete that one first"
                )
            if rival.created > channel.created:
                younger.add(rival.uid)
        return frozenset(younger)


def _used(channel: Resource) -> Key | None:
    # A status can be written by others as well, and its definition asks for neither.
    reference = channel.status.get("database") or {}
    return (reference["namespace"], reference["name"]) if reference.keys() >= {"namespace", "name"} else None
