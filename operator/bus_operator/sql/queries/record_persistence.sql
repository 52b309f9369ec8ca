update pgmq.meta set is_unlogged = $2 where queue_name = $1
