update pgmq_bus.login set verifier = '' where role = $1
