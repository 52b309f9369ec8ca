-- become the owner of the bus
set role pgmq_bus_owner
