-- read the installation's record
select schema_version from pgmq_bus.installation
