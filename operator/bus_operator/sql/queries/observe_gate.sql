-- Whether there are functions of version 2 that clients call, and whether they wait for a migration already: former/gate_2.sql.
select
    to_regprocedure('public.bus_join(text)') is not null and to_regprocedure('pgmq_bus.enter(text,text,text,text,text)') is not null
        as callable,
    to_regprocedure('pgmq_bus.former_bus_join(text)') is not null as gated
