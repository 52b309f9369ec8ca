-- All of our functions, and whatever else is in our schemas or in the place of a wrapper.
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
                -- An overload of another owner is his business, and reported; what is in the place of ours is not.
                and (
                    p.proowner = pg_catalog.to_regrole('pgmq_bus_owner')
                    or pg_catalog.format('%s(%s)', p.proname, pg_catalog.oidvectortypes(p.proargtypes)) in (
                        'bus_join(text)', 'bus_publish(text, text, jsonb)', 'bus_subscribe(text, text, integer, integer, integer)',
                        'bus_archive(text, text, bigint)', 'bus_leave(text, text)'
                    )
                )
            )
    loop
        execute statement;
    end loop;
end
$$
