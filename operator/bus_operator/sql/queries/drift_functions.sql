-- Functions that are not as they were shipped. Every drift query returns the same columns: the channel concerned, the object, what
-- is wrong with it, how it is put right, and the statement that does it (or that somebody else has to run).
-- $1: one channel's id, or null for everything. $2: the shared functions, null where another version's are installed. $3: the
-- templates of a channel's own, $4: their digest; channels with another version's are left to the reconciler.
with shared as (
    select e.*, case when e.definer then 'pgmq_bus_client' end as grantee
    from jsonb_to_recordset($2::jsonb) as e (
        schema text, name text, arguments text, body text, definer boolean, settings text[], volatility text, strict boolean
    )
    where $1::integer is null
),
channels as (
    select
        c.id, c.name, c.role::text as role, c.queue, replace(c.queue, 'bus_', '') as token,
        starts_with(c.functions_fingerprint, $4 || ':') as is_current
    from pgmq_bus.channel as c
    where $1::integer is null or c.id = $1
),
own as (
    select
        'pgmq_bus_channel' as schema, t.prefix || c.token as name, t.arguments,
        replace(replace(replace(
            t.body, '{{log}}', '"q_' || c.queue || '"'), '{{sequence}}', '"q_' || c.queue || '_msg_id_seq"'),
            '{{channel_id}}', c.id::text) as body,
        t.definer, t.settings, t.volatility, t.strict, c.role as grantee, c.name as channel
    from channels as c
    cross join jsonb_to_recordset($3::jsonb) as t (
        prefix text, arguments text, body text, definer boolean, settings text[], volatility text, strict boolean
    )
    where c.is_current
),
expected as (
    select s.*, null as channel from shared as s
    union all
    select * from own
),
actual as (
    select
        p.oid, n.nspname::text as schema, p.proname::text as name, oidvectortypes(p.proargtypes) as arguments,
        p.prosrc, p.prosecdef, p.proconfig, p.proacl, (p.provolatile::text, p.proisstrict, p.procost, p.proparallel, p.proleakproof) as attributes, p.proowner, o.rolname::text as owner, c.id as channel_id, c.name as channel
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    join pg_roles as o on o.oid = p.proowner
    -- By a key that can be hashed or sorted: each function would be compared with each channel.
    left join channels as c
        on n.nspname = 'pgmq_bus_channel' and c.token = substr(p.proname::text, strpos(p.proname::text, '_') + 1)
        and p.proname in ('publish_' || c.token, 'read_' || c.token)
    where case n.nspname
        when 'pgmq_bus_channel' then c.is_current or c.id is null and $1::integer is null
        when 'public' then
            $2::jsonb is not null
            and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
        else n.nspname in ('pgmq_bus', 'pgmq_bus_v1') and $2::jsonb is not null
    end
    and ($1::integer is null or c.id is not null)
),
paired as (
    select
        a.oid, a.prosrc, a.prosecdef, a.proconfig, a.proacl, a.proowner, a.owner, a.attributes, e.body, e.definer, (e.volatility, e.strict, 100::real, 'u'::"char", false) as expected_attributes, e.settings, e.grantee,
        coalesce(e.channel, a.channel) as channel, coalesce(e.schema, a.schema) as schema, e.name is not null as belongs,
        case when coalesce(e.channel, a.channel) is null then 'functions' else 'channel functions' end as how,
        format(
            'function %s.%s(%s)',
            coalesce(e.schema, a.schema), coalesce(e.name, a.name), replace(coalesce(e.arguments, a.arguments), ', ', ',')
        ) as object
    from expected as e
    full join actual as a on a.schema = e.schema and a.name = e.name and a.arguments = e.arguments
)
select f.channel, f.object, d.problem, d.repair, d.statement
from paired as f
cross join lateral (
    select 'is missing' as problem, f.how as repair, null as statement
    where f.oid is null
    union all
    select
        case when f.schema = 'public' then 'can be called in place of a function of the bus' else 'does not belong there' end
            || ', owner ' || f.owner,
        case when f.schema = 'public' and f.owner <> 'pgmq_bus_owner' then 'report' else 'statement' end,
        format('drop routine %s', f.oid::regprocedure)
    where not f.belongs
    union all
    select 'its text was changed', f.how, null
    where f.belongs and f.prosrc <> f.body
    union all
    select format('belongs to %s', f.owner), f.how, null
    where f.belongs and f.owner <> 'pgmq_bus_owner'
    union all
    select format('is SECURITY %s', case when f.prosecdef then 'DEFINER' else 'INVOKER' end), f.how, null
    where f.belongs and f.prosecdef <> f.definer
    union all
    select 'its attributes were changed', f.how, null
    where f.belongs and f.attributes <> f.expected_attributes
    union all
    select format('its settings are (%s) instead of (%s)', array_to_string(f.proconfig, '; '), array_to_string(f.settings, '; ')), f.how, null
    where f.belongs and f.oid is not null and f.proconfig is distinct from f.settings
    union all
    select
        format('%s granted to %s', concat_ws(' ', g.privilege_type, case when g.is_grantable then 'WITH GRANT OPTION' end), coalesce(r.rolname, 'PUBLIC')),
        'statement',
        format('revoke all on function %s from %s cascade', f.oid::regprocedure, case when g.grantee = 0 then 'public' else quote_ident(r.rolname) end)
    from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as g
    left join pg_roles as r on r.oid = g.grantee
    where f.belongs and g.grantee <> f.proowner and (coalesce(r.rolname, 'PUBLIC') is distinct from f.grantee or g.is_grantable)
    union all
    select
        format('EXECUTE revoked from %s', f.grantee), 'statement', format('grant execute on function %s to %I', f.oid::regprocedure, f.grantee)
    from pg_roles as r
    where f.belongs and f.oid is not null and r.rolname = f.grantee
        and not exists (
            select from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as g
            where g.grantee = r.oid and not g.is_grantable
        )
) as d
order by f.object, d.statement like 'grant%' desc
