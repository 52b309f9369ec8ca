"""Makes the channels of manifests in a database and writes their bindings: the operator's work without the operator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bus_operator import provision, shards, verification
from bus_operator.binding import binding_data, held_credential, is_current
from bus_operator.cli import bindings
from bus_operator.cli.manifests import Manifest, Manifests
from bus_operator.database import AdminConnection, connect
from bus_operator.errors import BusError, SpecError
from bus_operator.model import ChannelSpec
from bus_operator.plan_credentials import RotationRules
from bus_operator.roles import IssuedCredential
from bus_operator.shards import Shards

_CONNECTIONS_PER_PEER = 4
"""What one process of bus_runtime opens at most: a few under load, and one to listen."""


@dataclass(frozen=True)
class Applied:
    """What was done for one thing, or why it could not be."""

    subject: str
    """`BusChannel shop/orders`, `database db:5432/app`."""
    where: str | None = None
    """The database of a channel."""
    done: tuple[str, ...] = ()
    """In it, in words; nothing where all was right."""
    binding: Path | None = None
    """The channel's binding directory, where one is wanted."""
    wrote: bool = False
    """Whether that was written."""
    version: str | None = None
    """Of PostgreSQL, for a database."""
    failure: BusError | None = None

    @property
    def line(self) -> str:
        """For people."""
        if self.failure is not None:
            return f"{self.subject}: {self.failure.reason}: {self.failure}"
        wrote = f"; wrote {self.binding}" if self.wrote else ""
        version = f" (PostgreSQL {self.version})" if self.version else ""
        return f"{self.subject}: {', '.join(self.done) or 'unchanged'}{wrote}{version}"

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape, as far as it can be that of `busctl plan`."""
        failure = self.failure
        return {
            "subject": self.subject,
            "database": self.where,
            "actions": [*self.done, *([f"write {self.binding}"] if self.wrote else [])],
            "binding": str(self.binding) if self.binding is not None else None,
            "error": {"reason": failure.reason, "message": str(failure)} if failure is not None else None,
        }


Say = Callable[[Applied], None]
"""Told of each thing at once."""


def refuse_shared_directories(channels: Sequence[Manifest]) -> None:
    """Raises SpecError when two of them would have the same binding directory."""
    names = [channel.name for channel in channels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            f"BusChannel {twice[0]} is in several namespaces: a binding directory holds one, apply them apart"
        )


async def apply(
    admin: AdminConnection, manifests: Manifests, root: Path | None, *, say: Say, observers: int = 0
) -> int:
    """Makes the channels as the manifests say.

    Args:
        admin: Where.
        manifests: What.
        root: Where to write bindings; None: none are wanted.
        say: Told what was done, and what failed and why.
        observers: So many peers may join each channel beyond its limits.

    Returns how much failed.

    Raises:
        BusError: When the database cannot be used at all.
    """
    failed = 0
    manifests.require_one_place()
    async with connect(admin) as connection:
        report = await shards.install(connection, admin, manifests.shards)
    for shard in report.shards.usable:
        done = tuple(map(str, report.done.get(shard, ())))
        say(Applied(f"database {shard}", done=done, version=report.observed.server_version))
    if report.failure is not None:
        failed += 1
        say(Applied(f"shards of {admin.endpoint}", failure=report.failure))
    for channel in manifests.channels:
        try:
            say(await _apply_channel(report.shards, channel, root, observers))
        except BusError as exc:
            failed += 1
            say(Applied(str(channel), failure=exc))
    return failed


def _with_room(spec: ChannelSpec, observers: int) -> ChannelSpec:
    limits = spec.limits
    more = {
        "max_peers": limits.max_peers + observers,
        "max_connections": limits.max_connections + observers * _CONNECTIONS_PER_PEER,
    }
    return spec.model_copy(update={"limits": limits.model_copy(update=more)})


async def _apply_channel(where: Shards, channel: Manifest, root: Path | None, observers: int) -> Applied:
    directory = root / channel.name if root is not None else None
    present = bindings.read(directory) if directory is not None else None
    held = held_credential(present)
    desired = channel.desired(_with_room(channel.spec, observers))
    last = where.index_of((present or {}).get("database"))
    rules = RotationRules.from_spec(channel.spec.credentials)
    async with shards.placed(where, desired.name, last) as (shard, connection, taken):

        def data(credential: IssuedCredential) -> dict[str, str]:
            return binding_data(shard.admin.endpoint, desired.name, channel.spec, credential)

        async def deliver(issued: IssuedCredential) -> None:
            await taken()
            if directory is not None:
                await verification.verify(issued, shard.admin.endpoint, shard.admin.endpoint)
                bindings.write(directory, data(issued))

        provisioned = await provision.provision(
            connection, desired, held, rotation=rules, binding_wanted=directory is not None, deliver=deliver
        )
    if provisioned.refusal is not None:
        raise provisioned.refusal
    applied = Applied(
        str(channel),
        str(shard.admin.endpoint),
        tuple(map(str, provisioned.actions)),
        directory,
        wrote=directory is not None and provisioned.issued is not None,
    )
    if directory is None or provisioned.generation is None or provisioned.issued is not None:
        return applied
    if held is None:
        raise SpecError(f"binding directory {directory} vanished meanwhile: run the same command again")
    wanted = data(IssuedCredential(held.username, held.password, provisioned.generation))
    if is_current(present, wanted):
        return applied
    bindings.write(directory, wanted)
    return replace(applied, wrote=True)
