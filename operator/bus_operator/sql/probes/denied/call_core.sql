-- call the functions behind the public ones
select pgmq_bus.head(1)
