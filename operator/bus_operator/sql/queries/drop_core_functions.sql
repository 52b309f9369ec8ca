-- What only our own functions call. Not what clients call: that is replaced in place, under those who are waiting in it.
do $$
declare
    statement text;
begin
    for statement in
        select pg_catalog.format('drop routine %s', p.oid::pg_catalog.regprocedure)
        from pg_catalog.pg_proc as p
        where p.pronamespace = 'pgmq_bus'::pg_catalog.regnamespace
    loop
        execute statement;
    end loop;
end
$$
