-- The databases whose names begin with $1, and whether they are this administrator's.
select datname::text as name, pg_has_role(current_user, datdba, 'USAGE') as own
from pg_database
where starts_with(datname::text, $1)
