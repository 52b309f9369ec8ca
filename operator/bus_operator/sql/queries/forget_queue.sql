delete from pgmq.meta where queue_name = $1
