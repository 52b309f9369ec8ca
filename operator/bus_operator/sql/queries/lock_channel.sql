-- The publish lock: see pgmq_bus.lock_channel. Whoever publishes waits, and is not met in the middle of it.
select from pgmq_bus.channel where id = $1 for no key update
