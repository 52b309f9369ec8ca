update pgmq_bus.login set warned_at = clock_timestamp() where role = $1
