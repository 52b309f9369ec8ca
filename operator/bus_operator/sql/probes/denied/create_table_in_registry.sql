-- create tables in schema pgmq_bus
create table pgmq_bus.pgmq_bus_probe (a integer)
