select schema_version, functions_fingerprint, pgmq_version from pgmq_bus.installation
