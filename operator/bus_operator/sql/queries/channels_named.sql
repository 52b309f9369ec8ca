-- The channels with the wire name $1, and those of the BusChannel $1, in whatever cluster: its namespace, a slash and its name.
select c.name
from pgmq_bus.channel as c
where c.name = $1 or split_part(c.owner_reference, '@', 1) = $1
order by c.name
