-- Changes with any change of our functions (text, owner, privileges, search_path, a missing or an extra one), and of the
-- privileges on the registry and the text of its view. What is in pgmq_bus_channel is each channel's own business: see
-- channel_functions_fingerprint.sql.
select md5(coalesce(string_agg(concat_ws('|', f.identity, f.definition, f.owner, f.privileges), E'\n' order by f.identity), ''))
from (
    select
        p.oid::regprocedure::text as identity,
        case p.prokind when 'a' then '' else pg_get_functiondef(p.oid) end as definition,
        p.proowner::regrole::text as owner,
        p.proacl::text as privileges
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
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
    union all
    select n.nspname, '', n.nspowner::regrole::text, n.nspacl::text
    from pg_namespace as n
    where n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
    union all
    select
        c.oid::regclass::text,
        case c.relkind when 'v' then pg_get_viewdef(c.oid) else '' end,
        c.relowner::regrole::text,
        concat_ws(',', c.relacl::text, (
            select string_agg(a.attname || a.attacl::text, ',' order by a.attname) from pg_attribute as a where a.attrelid = c.oid
        ))
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'pgmq_bus' and c.relkind in ('r', 'v', 'S') and c.relowner = to_regrole('pgmq_bus_owner')
) as f
