-- use up its channel's ids
select nextval('pgmq.{{own_sequence}}')
