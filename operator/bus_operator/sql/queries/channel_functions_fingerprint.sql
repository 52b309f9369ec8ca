-- Changes with any change of a channel's own functions: text, owner, privileges, a missing or an extra one.
select md5(coalesce(string_agg(concat_ws('|', f.identity, f.definition, f.owner, f.privileges), E'\n' order by f.identity), ''))
from (
    select
        p.oid::regprocedure::text as identity,
        case p.prokind when 'a' then '' else pg_get_functiondef(p.oid) end as definition,
        p.proowner::regrole::text as owner,
        p.proacl::text as privileges
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = 'pgmq_bus_channel' and p.proname = any ($1::text[])
) as f
