-- What the owner role creates later is closed from the start, and nobody's defaults open what is in our schemas.
select 'functions that the owner role creates are open to PUBLIC'
where not exists (
    select from pg_default_acl as d
    where d.defaclrole = 'pgmq_bus_owner'::regrole and d.defaclnamespace = 0 and d.defaclobjtype = 'f'
        and d.defaclacl = array[makeaclitem('pgmq_bus_owner'::regrole, 'pgmq_bus_owner'::regrole, 'EXECUTE', false)]
)
union all
select format('what %s creates%s is open to %s', d.defaclrole::regrole, ' in ' || nullif(d.defaclnamespace, 0)::regnamespace,
    replace(a.grantee::regrole::text, '-', 'PUBLIC'))
from pg_default_acl as d
cross join lateral aclexplode(d.defaclacl) as a
left join pg_namespace as n on n.oid = d.defaclnamespace
where a.grantee <> d.defaclrole
    and (
        d.defaclrole = 'pgmq_bus_owner'::regrole
        or n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel', 'pgmq', 'public')
        or a.grantee::regrole::text ~ '^(pgmq_bus_client$|bus_channel_|bus_login_)'
    )
    -- PGMQ lets monitoring see what its installer makes there; logs are the owner role's, and relations.sql looks at them.
    and not (n.nspname = 'pgmq' and a.grantee = 'pg_monitor'::regrole and d.defaclrole <> 'pgmq_bus_owner'::regrole)
