-- The roles of the bus have no attribute that helps them, logins have their defaults and limits, and nobody else acts as one of them.
with wanted as (
    select 'pgmq_bus_owner'::name as role, 'owner' as kind, null::name as member_of, -1 as connections
    union all
    select 'pgmq_bus_client', 'client', null, -1
    union all
    select c.role, 'channel', 'pgmq_bus_client', -1 from pgmq_bus.channel as c
    union all
    -- One connection more, for the operator that verifies the login.
    select l.role, 'login', c.role, c.max_connections + 1
    from pgmq_bus.login as l
    join pgmq_bus.channel as c on c.id = l.channel_id
),
roles as (
    select w.*, r.*
    from wanted as w
    left join pg_roles as r on r.rolname = w.role
)
select format('role %s is missing', r.role) from roles as r where r.rolname is null
union all
select format('role %s: %s', r.role, a.name)
from roles as r
cross join lateral (
    values
        ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb), ('REPLICATION', r.rolreplication),
        ('BYPASSRLS', r.rolbypassrls), ('LOGIN', r.rolcanlogin and r.kind <> 'login'), ('NOLOGIN', not r.rolcanlogin and r.kind = 'login'),
        ('NOINHERIT', not r.rolinherit), ('CONNECTION LIMIT ' || r.rolconnlimit, r.rolconnlimit <> r.connections),
        ('VALID UNTIL ' || r.rolvaliduntil, coalesce(r.rolvaliduntil <> 'infinity', false))
) as a (name, is_wrong)
where a.is_wrong
union all
select format('role %s is none of a channel that is there', r.rolname)
from pg_roles as r
where r.rolname ~ '^(bus_channel_|bus_login_|pgmq_bus_)' and r.rolname not in (select w.role from wanted as w)
union all
select format('role %s is a member of %s', m.member::regrole, m.roleid::regrole)
from pg_auth_members as m
left join wanted as w on w.role = m.member::regrole::text
join pg_roles as holder on holder.oid = m.member
where (w.role is not null or m.roleid::regrole::text in (select o.role from wanted as o))
    and m.roleid::regrole::text is distinct from w.member_of
    -- Administrators may be members: of what is theirs.
    and not (w.role is null and (holder.rolsuper or holder.rolcreaterole))
union all
select format('role %s is a member of %s with admin option', m.member::regrole, m.roleid::regrole)
from pg_auth_members as m
join wanted as w on w.role = m.member::regrole::text
where m.admin_option
union all
select format('role %s is no member of %s', w.role, w.member_of)
from wanted as w
where w.member_of is not null and not exists (
    select from pg_auth_members as m where m.member::regrole::text = w.role and m.roleid::regrole::text = w.member_of
)
union all
select format('role %s: session defaults %s', r.role, array_to_string(coalesce(s.setconfig, '{}'), '; '))
from roles as r
left join pg_db_role_setting as s on s.setrole = r.oid
where case
    when r.kind = 'login' and coalesce(s.setdatabase, 0) = 0 then
        array(select f.setting from unnest(s.setconfig) as f (setting) where f.setting !~ '^tcp_' order by 1)
        is distinct from array['idle_in_transaction_session_timeout=15s', 'jit=off', 'search_path=pg_catalog, pg_temp', 'statement_timeout=30s']
    else s.setconfig is not null
end
union all
select format('the database''s session defaults %s', array_to_string(s.setconfig, '; '))
from pg_db_role_setting as s
where s.setrole = 0
