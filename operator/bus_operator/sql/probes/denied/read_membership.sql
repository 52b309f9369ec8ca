-- read the view that the functions check
select queue from pgmq_bus.membership
