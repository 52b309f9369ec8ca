-- How many functions are in our schemas or have the name of a wrapper: what drop_functions.sql would drop.
select count(*)
from pg_catalog.pg_proc as p
join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('pgmq_bus', 'pgmq_bus_v1')
    or (
        n.nspname = 'public'
        and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
    )
