-- The databases whose names begin with $1, and whether they are this administrator's. A superuser may use everybody's: his are
-- those of superusers and of whoever owns this one, and not what somebody made who may create databases and knew the name.
select
    d.datname::text as name,
    pg_has_role(current_user, d.datdba, 'USAGE')
        and (
            not (select a.rolsuper from pg_roles as a where a.rolname = current_user)
            or o.rolsuper
            or d.datdba = (select f.datdba from pg_database as f where f.datname = current_database())
        ) as own
from pg_database as d
join pg_roles as o on o.oid = d.datdba
where starts_with(d.datname::text, $1)
