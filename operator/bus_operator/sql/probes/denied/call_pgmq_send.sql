-- send past the bus, with PGMQ
select pgmq.send('none', '{}'::jsonb)
