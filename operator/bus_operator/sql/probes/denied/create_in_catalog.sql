-- create functions in the catalog
create function pg_catalog.pgmq_bus_probe() returns integer language sql as 'select 1'
