-- The channel keeps what it holds, under another name. Nothing where another BusChannel became the owner since $2 was seen there.
update pgmq_bus.channel
set name = $3, owner_uid = null
where id = $1 and owner_uid is not distinct from $2
returning id
