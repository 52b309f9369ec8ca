-- Version 6: an outage of the server, or a step of its clock, is not taken for the peers' silence.
alter table pgmq_bus.channel_state
    add column silence tstzrange not null default 'empty';
comment on column pgmq_bus.channel_state.silence is 'When nobody was served last, for longer than peers are ever silent: see pgmq_bus.trim.';
