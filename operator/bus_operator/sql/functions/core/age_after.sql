-- How old the first message after p_after is, in seconds; null where there is none, or no log.
create or replace function pgmq_bus.age_after(p_queue text, p_after bigint) returns double precision
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    age double precision;
begin
    if to_regclass(format('pgmq.%I', 'q_' || p_queue)) is not null then
        execute format(
            'select extract(epoch from clock_timestamp() - l.enqueued_at) from pgmq.%I as l where l.msg_id > $1 order by l.msg_id limit 1',
            'q_' || p_queue
        ) into age using p_after;
    end if;
    return age;
end
$$;
