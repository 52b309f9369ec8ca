-- list all queues
select queue_name from pgmq.meta
