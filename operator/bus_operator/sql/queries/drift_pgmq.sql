-- Functions in the schema of PGMQ that it did not bring: the bus calls some as its owner role. Columns: see drift_functions.sql.
-- $1: how many functions of each name the bundled SQL makes, as a JSON object; null where the extension or another version is
-- installed.
select
    null as channel,
    format('function pgmq.%s(%s)', p.proname, replace(oidvectortypes(p.proargtypes), ', ', ',')) as object,
    format('is none of PGMQ''s, and functions of the bus may call it, owner %s', p.proowner::regrole) as problem,
    'report' as repair,
    format('drop routine %s', p.oid::regprocedure) as statement
from (
    select
        p.*,
        row_number() over (partition by p.proname order by p.oid) as number,
        exists (
            select from pg_depend as d
            where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        ) as of_extension
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = 'pgmq'
) as p
where case
    when exists (select from pg_extension as e where e.extname = 'pgmq') then not p.of_extension
    when $1::jsonb is not null then p.number > coalesce(($1::jsonb ->> p.proname)::integer, 0)
    else false
end
