-- Which of the tables and views $1 of the registry there are.
select c.relname::text as name
from pg_class as c
where c.relnamespace = 'pgmq_bus'::regnamespace and c.relkind in ('r', 'v') and c.relname = any ($1::text[])
