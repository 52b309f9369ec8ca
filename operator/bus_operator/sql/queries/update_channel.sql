-- Nothing where another BusChannel became the owner since $10 was seen there.
update pgmq_bus.channel
set owner_uid = $2, owner_reference = $3, durability = $4, self_delivery = $5,
    max_peers = $6, max_message_bytes = $7, max_connections = $8, peer_timeout = $9
where id = $1 and owner_uid is not distinct from $10
returning id
