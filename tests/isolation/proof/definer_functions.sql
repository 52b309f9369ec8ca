-- A function that runs with its owner's rights is one of ours, belongs to the owner role, and looks first where nobody else can
-- put anything. Whatever schema it is in: what initdb made (its oids are below 16384) has none.
select format('%s is SECURITY DEFINER and none of the bus', p.oid::regprocedure)
from pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
where p.prosecdef
    and not (
        n.nspname in ('pgmq_bus_v1', 'pgmq_bus_channel')
        or n.nspname = 'public' and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
    )
union all
select format('%s is SECURITY DEFINER and belongs to %s', p.oid::regprocedure, p.proowner::regrole)
from pg_proc as p
where p.prosecdef and p.proowner <> 'pgmq_bus_owner'::regrole
union all
select format('%s is SECURITY DEFINER without a pinned search_path', p.oid::regprocedure)
from pg_proc as p
where p.prosecdef and 'search_path=pg_catalog, pg_temp' <> all (coalesce(p.proconfig, '{}'))
