"""A channel that is as its manifest wants it, for tests of plans, which change what they are about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bus_operator import credentials
from bus_operator.actions import DesiredChannel
from bus_operator.catalog import ChannelCounts, ObservedChannel, ObservedLogin
from bus_operator.model import Uid
from bus_operator.plan_credentials import HeldCredential

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "correct-horse"
ROLE = "bus_channel_0123456789ab"
QUEUE = "bus_0123456789ab"
NO_PEERS = ChannelCounts(peers=0, doorbell=0, listen=0, poll=0, backlog=0, oldest=None, stored=0)
WANTED = DesiredChannel(
    name="orders",
    owner_uid=Uid("uid-1"),
    owner_reference="team/orders",
    durability="Sync",
    self_delivery=True,
    max_peers=1000,
    max_message_bytes=1048576,
    max_connections=100,
    peer_timeout=timedelta(minutes=10),
    max_age=None,
    max_messages=None,
    max_bytes=None,
)


def login(generation: int, **changes) -> ObservedLogin:
    return replace(
        ObservedLogin(
            role=f"bus_login_0123456789ab_g{generation}",
            generation=generation,
            verifier=credentials.scram_verifier(PASSWORD, salt=b"0123456789abcdef"),
            role_exists=True,
            attributes_right=True,
            connection_limit=101,
            is_member=True,
            password_replaced=False,
            published_at=NOW,
            request=None,
            unused_since=None,
            warned_at=None,
        ),
        **changes,
    )


OBSERVED = ObservedChannel(
    id=1,
    name="orders",
    queue=QUEUE,
    role=ROLE,
    owner_uid="uid-1",
    owner_reference="team/orders",
    durability="Sync",
    self_delivery=True,
    max_peers=1000,
    max_message_bytes=1048576,
    max_connections=100,
    peer_timeout=timedelta(minutes=10),
    max_age=None,
    max_messages=None,
    max_bytes=None,
    log_exists=True,
    log_unlogged=False,
    role_exists=True,
    role_is_client=True,
    installed_fingerprint="shipped:as installed",
    actual_fingerprint="as installed",
    observed_at=NOW,
    logins=(login(1),),
)
HELD = HeldCredential(login(1).role, PASSWORD)
