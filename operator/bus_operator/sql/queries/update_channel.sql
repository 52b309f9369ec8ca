-- Nothing where another BusChannel became the owner since $2 was seen there.
update pgmq_bus.channel
set owner_uid = $3, owner_reference = $4, durability = $5, self_delivery = $6,
    max_peers = $7, max_message_bytes = $8, max_connections = $9, peer_timeout = $10,
    max_age = $11, max_messages = $12, max_bytes = $13
where id = $1 and owner_uid is not distinct from $2
returning id
