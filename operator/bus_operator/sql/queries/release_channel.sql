update pgmq_bus.channel set owner_uid = null, owner_reference = null where id = $1
