-- reach other servers
create foreign data wrapper pgmq_bus_probe
