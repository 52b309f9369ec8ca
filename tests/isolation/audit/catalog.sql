-- A digest of roles, memberships, functions, tables and privileges, but for PostgreSQL's own.
select md5(jsonb_build_object(
    'functions', (
        select jsonb_agg(jsonb_build_array(p.oid, p.prosrc, p.proacl, p.proconfig, p.proowner) order by p.oid)
        from pg_proc as p where p.oid >= 16384
    ),
    'relations', (
        select jsonb_agg(jsonb_build_array(c.oid, c.relacl, c.relowner) order by c.oid) from pg_class as c where c.oid >= 16384
    ),
    'schemas', (select jsonb_agg(jsonb_build_array(n.oid, n.nspacl, n.nspowner) order by n.oid) from pg_namespace as n),
    'roles', (
        select jsonb_agg(jsonb_build_array(a.oid, a.rolname, a.rolsuper, a.rolcanlogin) order by a.oid) from pg_authid as a
    ),
    'members', (
        select jsonb_agg(jsonb_build_array(m.roleid, m.member) order by m.roleid, m.member) from pg_auth_members as m
    )
)::text)
