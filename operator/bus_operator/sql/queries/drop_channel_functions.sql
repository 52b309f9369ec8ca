-- Statements that drop a channel's own functions, and whatever else has their names: CREATE OR REPLACE would refuse another
-- owner, other argument names or another result, and leave other overloads behind.
select format('drop routine %s', p.oid::regprocedure)
from pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
where n.nspname = 'pgmq_bus_channel' and p.proname = any ($1::text[])
