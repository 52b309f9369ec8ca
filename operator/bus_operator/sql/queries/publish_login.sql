update pgmq_bus.login set published_at = coalesce(published_at, clock_timestamp()) where role = $1
