select schema_version from pgmq_bus.installation for update
