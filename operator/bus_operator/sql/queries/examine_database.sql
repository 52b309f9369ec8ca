-- One row: what else of the administrator's session and of the server decides whether the operator can do its work.
select
    pg_catalog.pg_is_in_recovery() as in_recovery,
    pg_catalog.pg_backend_pid() as process,
    pg_catalog.pg_has_role(current_user, d.datdba, 'USAGE') as owns_database,
    pg_catalog.pg_get_userbyid(d.datdba) as owner,
    r.rolinherit as inherits
from pg_catalog.pg_database as d, pg_catalog.pg_roles as r
where d.datname = current_database() and r.rolname = current_user
