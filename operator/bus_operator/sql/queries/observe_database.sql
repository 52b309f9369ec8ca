-- One row: what the installer needs to know, readable before anything is installed. Relations are looked up in the catalog:
-- to_regclass fails where the schema belongs to another administrator.
select
    current_setting('server_version') as server_version,
    current_setting('server_version_num')::integer as server_version_num,
    (select r.rolsuper from pg_catalog.pg_roles as r where r.rolname = current_user) as is_superuser,
    (select r.rolcreaterole from pg_catalog.pg_roles as r where r.rolname = current_user) as can_create_roles,
    (select e.extversion from pg_catalog.pg_extension as e where e.extname = 'pgmq') as pgmq_extension_version,
    (select a.default_version from pg_catalog.pg_available_extensions as a where a.name = 'pgmq') as pgmq_available_version,
    exists (
        select from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'pgmq' and c.relname = 'meta'
    ) as pgmq_installed,
    pg_catalog.to_regrole('pgmq_bus_owner') is not null as owner_role_exists,
    pg_catalog.to_regrole('pgmq_bus_client') is not null as client_role_exists,
    coalesce(pg_catalog.pg_has_role(current_user, pg_catalog.to_regrole('pgmq_bus_owner')::oid, 'USAGE'), false)
        as owns_as_owner_role,
    -- One that neither is nor is in the owner role's is somebody else's: to read from it may be to run what he put there.
    exists (
        select from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'pgmq_bus' and c.relname = 'installation'
            and pg_catalog.to_regrole('pgmq_bus_owner')::oid in (n.nspowner, c.relowner)
    ) as schema_installed,
    coalesce(
        pg_catalog.has_database_privilege(pg_catalog.to_regrole('pgmq_bus_client')::oid, current_database(), 'CONNECT'),
        false
    ) as client_may_connect,
    exists (
        select from pg_catalog.pg_namespace as n, pg_catalog.aclexplode(n.nspacl) as a
        where n.nspname in ('public', 'pgmq') and a.grantee = 0 and a.privilege_type = 'CREATE'
    ) as public_is_writable,
    -- Whose PGMQ, or what is in its schema, is, if he is no administrator: the bus would run what he put there.
    (
        select min(r.rolname::text)
        from pg_catalog.pg_namespace as n
        cross join lateral (
            select n.nspowner
            union all
            select p.proowner from pg_catalog.pg_proc as p where p.pronamespace = n.oid
            union all
            select c.relowner from pg_catalog.pg_class as c where c.relnamespace = n.oid
        ) as o (owner)
        join pg_catalog.pg_roles as r on r.oid = o.owner
        where n.nspname = 'pgmq'
            and not (r.rolsuper or r.rolcreaterole or r.rolname in (current_user, 'pgmq_bus_owner'))
            and r.oid <> (select d.datdba from pg_catalog.pg_database as d where d.datname = current_database())
    ) as pgmq_belongs_to
