-- All of our functions, and whatever else is in our schemas or has the name of a wrapper.
do $$
declare
    statement text;
begin
    for statement in
        select pg_catalog.format('drop routine %s', p.oid::pg_catalog.regprocedure)
        from pg_catalog.pg_proc as p
        join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in ('pgmq_bus', 'pgmq_bus_v1')
            or (
                n.nspname = 'public'
                and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
            )
    loop
        execute statement;
    end loop;
end
$$
