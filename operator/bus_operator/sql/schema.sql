-- The whole schema at the current version, for a database that has none.
-- Runs as pgmq_bus_owner inside the installing transaction; the schemas pgmq_bus, pgmq_bus_v1 and pgmq_bus_channel exist
-- and are empty.
-- Keep in step with migrations/: a test compares a migrated database with a fresh one.

create table pgmq_bus.installation (
    singleton boolean primary key default true check (singleton),
    schema_version integer not null,
    functions_fingerprint text,
    pgmq_version text,
    installed_at timestamptz not null default now()
);
comment on table pgmq_bus.installation is 'One row: the version of this schema and the fingerprint of its functions as installed.';

create table pgmq_bus.channel (
    id integer generated always as identity primary key,
    name text collate "C" not null unique check (length(name) between 1 and 200),
    queue text not null unique,
    role name not null unique,
    wake text not null unique,
    owner_uid text,
    owner_reference text,
    durability text not null constraint channel_durability_check check (durability in ('Sync', 'Async', 'Unlogged')),
    self_delivery boolean not null,
    max_peers integer not null check (max_peers > 0),
    max_message_bytes integer not null check (max_message_bytes > 0),
    max_connections integer not null check (max_connections > 0),
    peer_timeout interval not null check (peer_timeout > interval '0'),
    created_at timestamptz not null default now(),
    max_age interval check (max_age > interval '0'),
    max_messages bigint check (max_messages > 0),
    max_bytes bigint check (max_bytes > 0),
    doorbell_key bytea not null default sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
        check (octet_length(doorbell_key) = 32),
    roster bigint not null default 1,
    functions_fingerprint text,
    never_given int8multirange not null default '{}',
    left_lost bigint not null default 0,
    left_redelivered bigint not null default 0
) with (fillfactor = 50);
comment on table pgmq_bus.channel is 'One row per channel. A publisher holds its row lock to the end of its transaction: that is the total order.';
comment on column pgmq_bus.channel.queue is 'The PGMQ queue that is this channel''s log: pgmq.q_<queue>.';
comment on column pgmq_bus.channel.role is 'NOLOGIN role whose members may use the channel.';
comment on column pgmq_bus.channel.wake is 'Unguessable LISTEN name: NOTIFY has no access control.';
comment on column pgmq_bus.channel.doorbell_key is 'What peers encrypt their datagrams with; changes with the credentials.';
comment on column pgmq_bus.channel.roster is 'Version of what publishers know about the peers: grows whenever a peer comes, goes or is woken in another way.';
comment on column pgmq_bus.channel.functions_fingerprint is 'Fingerprint of this channel''s functions in pgmq_bus_channel as installed.';
comment on column pgmq_bus.channel.never_given is 'Ids that were passed over after crashes: see pgmq_bus.recover.';
comment on column pgmq_bus.channel.left_lost is 'What peers that left had lost, and below what they had been given again; of those that are there it is in pgmq_bus.peer.';
comment on column pgmq_bus.channel.owner_uid is 'UID of the BusChannel that manages this row; null when it was deleted and the channel retained for its return.';

create table pgmq_bus.channel_state (
    channel_id integer primary key references pgmq_bus.channel on delete cascade,
    trimmed bigint not null default 0,
    trim_after timestamptz not null default '-infinity',
    measured_to bigint not null default 0,
    measured_messages bigint not null default 0,
    measured_bytes bigint not null default 0,
    dropped_lost bigint not null default 0,
    dropped_redelivered bigint not null default 0,
    silence tstzrange not null default 'empty'
) with (fillfactor = 50);
comment on table pgmq_bus.channel_state is 'What trimming writes, apart from the row that publishers lock.';
comment on column pgmq_bus.channel_state.trimmed is 'Messages up to this id are gone from the log.';
comment on column pgmq_bus.channel_state.measured_to is 'Where messages or bytes are limited: how far they are counted, from trimmed on.';
comment on column pgmq_bus.channel_state.dropped_lost is 'The same of peers that trimming removed, apart from the row that publishers lock.';
comment on column pgmq_bus.channel_state.silence is 'When nobody was served last, for longer than peers are ever silent: see pgmq_bus.trim.';

create table pgmq_bus.channel_gate (
    channel_id integer primary key references pgmq_bus.channel on delete cascade
);
comment on table pgmq_bus.channel_gate is 'A row per channel, never changed: who comes or goes queues for its lock, see pgmq_bus.change_roster.';

-- Empty after a crash or a failover, which is when the end of a log may be lost; a clean restart keeps it.
create unlogged table pgmq_bus.channel_alive (
    channel_id integer primary key references pgmq_bus.channel on delete cascade
);
comment on table pgmq_bus.channel_alive is 'A row for each channel that was published to, or made, since the server last crashed.';

create table pgmq_bus.login (
    role name primary key,
    channel_id integer not null references pgmq_bus.channel on delete cascade,
    generation integer not null,
    verifier text not null,
    created_at timestamptz not null default now(),
    published_at timestamptz,
    request text,
    unused_since timestamptz,
    warned_at timestamptz,
    unique (channel_id, generation)
);
comment on column pgmq_bus.login.published_at is 'When the binding held it first. The one that was published last is current, earlier ones retire.';
comment on column pgmq_bus.login.request is 'A digest of what had asked for a rotation last when it was issued: each asks once.';
comment on column pgmq_bus.login.unused_since is 'Since when nobody was seen to use it, where that was looked for.';
comment on column pgmq_bus.login.warned_at is 'When it was told who still uses it.';
comment on column pgmq_bus.login.verifier is 'The SCRAM verifier that was set, to tell whether a Secret still holds the right password.';

create table pgmq_bus.peer (
    queue text collate "C" primary key,
    channel_id integer not null,
    name text collate "C" check (length(name) between 1 and 200),
    login name not null,
    acknowledged bigint not null,
    delivered bigint not null,
    position bigint not null,
    visible_at timestamptz not null default '-infinity',
    last_seen timestamptz not null default clock_timestamp(),
    lost bigint not null default 0,
    redelivered bigint not null default 0,
    application text,
    host text,
    runtime text,
    joined_at timestamptz not null default clock_timestamp(),
    id bigint generated always as identity,
    address text check (length(address) between 1 and 100),
    listens boolean not null default false,
    is_foreign boolean not null default false,
    former_queue text collate "C",
    unique (channel_id, name)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 200);
create index peer_former_queue_idx on pgmq_bus.peer (former_queue) where former_queue is not null;
comment on table pgmq_bus.peer is 'One row per peer: its cursor over the channel''s log.';
comment on column pgmq_bus.peer.channel_id is 'No foreign key: its check would lock the channel''s row, for which all who join at once would wait.';
comment on column pgmq_bus.peer.queue is 'The opaque queue name that join handed out.';
comment on column pgmq_bus.peer.name is 'A durable peer''s name; null for a peer that lives as long as its process.';
comment on column pgmq_bus.peer.id is 'What the log calls the peer: the queue name is a secret.';
comment on column pgmq_bus.peer.address is 'Where its doorbell is: address and port of a UDP socket.';
comment on column pgmq_bus.peer.listens is 'It is woken by NOTIFY: doorbells do not reach it.';
comment on column pgmq_bus.peer.is_foreign is 'It speaks the reference client''s protocol: it reads by long polls and rings no doorbells.';
comment on column pgmq_bus.peer.former_queue is 'The queue name of the process from which this durable peer was taken over last.';
comment on column pgmq_bus.peer.acknowledged is 'Everything up to this id is done.';
comment on column pgmq_bus.peer.delivered is 'The highest id handed out, as far as the peer has told.';
comment on column pgmq_bus.peer.position is 'Long polls only: the next one starts after this id; a redelivery sets it back to acknowledged.';
comment on column pgmq_bus.peer.visible_at is 'Long polls only: from then on, what is delivered and not acknowledged is delivered again.';

-- The one place that decides whether this session may act as a peer: the login is a member of the channel's role, and
-- the queue belongs to that channel. to_regrole makes a vanished role a denial instead of an error that tells.
create view pgmq_bus.membership as
select
    p.queue,
    p.id as peer_id,
    p.is_foreign,
    c.name as channel,
    c.id as channel_id,
    c.queue as log,
    c.wake,
    c.durability,
    c.self_delivery,
    c.max_message_bytes,
    c.max_age is not null or c.max_messages is not null or c.max_bytes is not null as has_retention,
    c.peer_timeout,
    c.roster,
    p.acknowledged,
    p.delivered,
    p.position,
    p.visible_at,
    p.last_seen
from pgmq_bus.peer as p
join pgmq_bus.channel as c on c.id = p.channel_id
where pg_catalog.pg_has_role(session_user, pg_catalog.to_regrole(c.role::text), 'MEMBER');
