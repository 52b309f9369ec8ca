-- Version 3: peers ring each other's doorbells; retention; logs that are not logged; ids that never go back after a crash.
-- The schema pgmq_bus_channel and each channel's functions in it are made by the installer and the channel's reconciler.

drop view pgmq_bus.membership;

alter table pgmq_bus.channel
    drop constraint channel_durability_check,
    add constraint channel_durability_check check (durability in ('Sync', 'Async', 'Unlogged')),
    add column max_age interval check (max_age > interval '0'),
    add column max_messages bigint check (max_messages > 0),
    add column max_bytes bigint check (max_bytes > 0),
    add column doorbell_key bytea not null default sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
        check (octet_length(doorbell_key) = 32),
    add column roster bigint not null default 1,
    add column functions_fingerprint text,
    add column never_given int8multirange not null default '{}',
    set (fillfactor = 50);

alter table pgmq_bus.channel_state
    add column measured_to bigint not null default 0,
    add column measured_messages bigint not null default 0,
    add column measured_bytes bigint not null default 0;

create unlogged table pgmq_bus.channel_alive (
    channel_id integer primary key references pgmq_bus.channel on delete cascade
);
insert into pgmq_bus.channel_alive select id from pgmq_bus.channel;

create table pgmq_bus.channel_gate (
    channel_id integer primary key references pgmq_bus.channel on delete cascade
);
insert into pgmq_bus.channel_gate select id from pgmq_bus.channel;

alter table pgmq_bus.peer
    drop constraint peer_channel_id_fkey,
    add column id bigint generated always as identity,
    add column address text check (length(address) between 1 and 100),
    add column listens boolean not null default false,
    add column is_foreign boolean not null default false,
    add column former_queue text collate "C";
create index peer_former_queue_idx on pgmq_bus.peer (former_queue) where former_queue is not null;
update pgmq_bus.peer set is_foreign = runtime is null;

comment on column pgmq_bus.channel.doorbell_key is 'What peers encrypt their datagrams with; changes with the credentials.';
comment on column pgmq_bus.channel.roster is 'Version of what publishers know about the peers: grows whenever a peer comes, goes or is woken in another way.';
comment on column pgmq_bus.channel.functions_fingerprint is 'Fingerprint of this channel''s functions in pgmq_bus_channel as installed.';
comment on column pgmq_bus.channel.never_given is 'Ids that were passed over after crashes: see pgmq_bus.recover.';
comment on column pgmq_bus.channel_state.measured_to is 'Where messages or bytes are limited: how far they are counted, from trimmed on.';
comment on table pgmq_bus.channel_alive is 'A row for each channel that was published to, or made, since the server last crashed.';
comment on column pgmq_bus.peer.id is 'What the log calls the peer: the queue name is a secret.';
comment on column pgmq_bus.peer.address is 'Where its doorbell is: address and port of a UDP socket.';
comment on column pgmq_bus.peer.listens is 'It is woken by NOTIFY: doorbells do not reach it.';
comment on column pgmq_bus.peer.is_foreign is 'It speaks the reference client''s protocol: it reads by long polls and rings no doorbells.';
comment on column pgmq_bus.peer.former_queue is 'The queue name of the process from which this durable peer was taken over last.';
comment on column pgmq_bus.peer.delivered is 'The highest id handed out, as far as the peer has told.';
comment on column pgmq_bus.peer.position is 'Long polls only: the next one starts after this id; a redelivery sets it back to acknowledged.';
comment on column pgmq_bus.peer.visible_at is 'Long polls only: from then on, what is delivered and not acknowledged is delivered again.';

comment on table pgmq_bus.channel_gate is 'A row per channel, never changed: who comes or goes queues for its lock, see pgmq_bus.change_roster.';
comment on column pgmq_bus.peer.channel_id is 'No foreign key: its check would lock the channel''s row, for which all who join at once would wait.';

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
