-- Version 2: peers may carry a name that outlives their process; what a peer lost or got again is counted.

alter table pgmq_bus.peer
    add column name text collate "C" check (length(name) between 1 and 200),
    add column lost bigint not null default 0,
    add column redelivered bigint not null default 0,
    add unique (channel_id, name);
-- The unique index begins with channel_id and serves the same look-ups.
drop index pgmq_bus.peer_channel_id_idx;
comment on column pgmq_bus.peer.name is 'A durable peer''s name; null for a peer that lives as long as its process.';
