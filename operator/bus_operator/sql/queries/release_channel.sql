update pgmq_bus.channel set owner_uid = null where id = $1
