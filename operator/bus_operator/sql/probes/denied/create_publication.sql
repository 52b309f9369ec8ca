-- replicate all tables
create publication pgmq_bus_probe for all tables
