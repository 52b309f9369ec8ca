-- create roles
create role pgmq_bus_probe
