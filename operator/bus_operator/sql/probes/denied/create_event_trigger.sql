-- have code run with everybody's statements
create event trigger pgmq_bus_probe on ddl_command_start execute function pg_catalog.suppress_redundant_updates_trigger()
