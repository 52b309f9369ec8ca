-- How many functions are in our schemas or have the name of a wrapper: what drop_functions.sql would drop.
select count(*)
from pg_catalog.pg_proc as p
join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('pgmq_bus', 'pgmq_bus_v1')
    or (
        n.nspname = 'public'
        and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
        -- An overload of another owner is his business, and reported; what is in the place of ours is not.
        and (
            p.proowner = pg_catalog.to_regrole('pgmq_bus_owner')
            or pg_catalog.format('%s(%s)', p.proname, pg_catalog.oidvectortypes(p.proargtypes)) in (
                'bus_join(text)', 'bus_publish(text, text, jsonb)', 'bus_subscribe(text, text, integer, integer, integer)',
                'bus_archive(text, text, bigint)', 'bus_leave(text, text)'
            )
        )
    )
