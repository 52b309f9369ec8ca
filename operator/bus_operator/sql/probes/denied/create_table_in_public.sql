-- create tables in schema public
create table public.pgmq_bus_probe (a integer)
