-- Our functions name nothing without a schema but what is in pg_catalog, and that holds nothing but what initdb put there (oids below
-- 16384). Operators and casts are found by the types they are for, so none exists for a built-in type that came later.
select format('%s is in pg_catalog', pg_describe_object(d.classid, d.objid, 0))
from pg_depend as d
where d.refclassid = 'pg_namespace'::regclass and d.refobjid = 'pg_catalog'::regnamespace and d.objid >= 16384
union all
-- What depends on a pinned object only is in no dependency.
select format('function %s is in pg_catalog', p.oid::regprocedure)
from pg_proc as p
where p.pronamespace = 'pg_catalog'::regnamespace and p.oid >= 16384
union all
select format('operator %s is in pg_catalog', o.oid::regoperator)
from pg_operator as o
where o.oprnamespace = 'pg_catalog'::regnamespace and o.oid >= 16384
union all
select format('type %s is in pg_catalog', t.oid::regtype)
from pg_type as t
where t.typnamespace = 'pg_catalog'::regnamespace and t.oid >= 16384
union all
select format('relation %s is in pg_catalog', c.oid::regclass)
from pg_class as c
where c.relnamespace = 'pg_catalog'::regnamespace and c.oid >= 16384
union all
select format('%s is for built-in types', pg_describe_object('pg_cast'::regclass, c.oid, 0))
from pg_cast as c
where c.oid >= 16384 and (c.castsource < 16384 and c.casttarget < 16384)
union all
select format('%s is for a built-in type', pg_describe_object('pg_opclass'::regclass, o.oid, 0))
from pg_opclass as o
where o.oid >= 16384 and o.opcdefault and o.opcintype < 16384
union all
-- In our schemas there are relations, functions and the types of relations, and nothing else.
select format('%s is in a schema of the bus', pg_describe_object(d.classid, d.objid, 0))
from pg_depend as d
left join pg_type as t on d.classid = 'pg_type'::regclass and t.oid = d.objid
where d.refclassid = 'pg_namespace'::regclass
    and d.refobjid::regnamespace::text in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
    and d.classid not in ('pg_class'::regclass, 'pg_proc'::regclass)
    and d.classid <> 'pg_default_acl'::regclass
    and not (coalesce(t.typtype = 'c' and t.typrelid <> 0, false) or coalesce(t.typcategory = 'A', false))
union all
select format('type %s belongs to %s', t.oid::regtype, t.typowner::regrole)
from pg_type as t
where t.typnamespace::regnamespace::text in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
    and t.typowner <> 'pgmq_bus_owner'::regrole
union all
-- They run in everybody's sessions, when the operator changes what is ours.
select format('event trigger %s', e.evtname) from pg_event_trigger as e
