-- create tables in schema pgmq
create table pgmq.pgmq_bus_probe (a integer)
