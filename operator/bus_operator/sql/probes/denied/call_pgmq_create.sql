-- create queues with PGMQ
select pgmq.create('none')
