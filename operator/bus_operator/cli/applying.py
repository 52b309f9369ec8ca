"""Makes the channels of manifests in a database and writes their bindings: the operator's work without the operator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

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


class Say(Protocol):
    """Takes a line about what was done or what failed."""

    def __call__(self, line: str, *, failed: bool = False) -> None:
        """Say it."""


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
        done = ", ".join(map(str, report.done.get(shard, ()))) or "unchanged"
        say(f"database {shard}: {done} (PostgreSQL {report.observed.server_version})")
    if report.failure is not None:
        failed += 1
        say(f"{report.failure.reason}: {report.failure}", failed=True)
    for channel in manifests.channels:
        try:
            say(f"{channel}: {await _apply_channel(report.shards, channel, root, observers)}")
        except BusError as exc:
            failed += 1
            say(f"{channel}: {exc.reason}: {exc}", failed=True)
    return failed


def _with_room(spec: ChannelSpec, observers: int) -> ChannelSpec:
    limits = spec.limits
    more = {
        "max_peers": limits.max_peers + observers,
        "max_connections": limits.max_connections + observers * _CONNECTIONS_PER_PEER,
    }
    return spec.model_copy(update={"limits": limits.model_copy(update=more)})


async def _apply_channel(where: Shards, channel: Manifest, root: Path | None, observers: int) -> str:
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
    done = ", ".join(map(str, provisioned.actions)) or "unchanged"
    if directory is None or provisioned.generation is None:
        return done
    if provisioned.issued is not None:
        return f"{done}; wrote {directory}"
    if held is None:
        raise SpecError(f"binding directory {directory} vanished meanwhile: run the same command again")
    wanted = data(IssuedCredential(held.username, held.password, provisioned.generation))
    if not is_current(present, wanted):
        bindings.write(directory, wanted)
        done += f"; wrote {directory}"
    return done
