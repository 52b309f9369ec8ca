-- The channels of the registry, by the number under which a survey knows them.
select c.id, c.name from pgmq_bus.channel as c
