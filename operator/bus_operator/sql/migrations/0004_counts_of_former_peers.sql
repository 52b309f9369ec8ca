-- Version 4: what peers that are gone had counted is kept, so that a channel's totals never fall.

alter table pgmq_bus.channel
    add column left_lost bigint not null default 0,
    add column left_redelivered bigint not null default 0;

alter table pgmq_bus.channel_state
    add column dropped_lost bigint not null default 0,
    add column dropped_redelivered bigint not null default 0;

comment on column pgmq_bus.channel.left_lost is 'What peers that left had lost, and below what they had been given again; of those that are there it is in pgmq_bus.peer.';
comment on column pgmq_bus.channel_state.dropped_lost is 'The same of peers that trimming removed, apart from the row that publishers lock.';
