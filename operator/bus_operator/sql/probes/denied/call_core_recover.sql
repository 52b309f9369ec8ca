-- move a channel's ids
select pgmq_bus.recover(0)
