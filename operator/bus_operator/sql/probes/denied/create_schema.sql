-- create schemas
create schema pgmq_bus_probe
