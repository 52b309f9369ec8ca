-- How many ids after p_after and up to p_trimmed were ever given: at most so many messages are lost to a peer at p_after.
create or replace function pgmq_bus.lost_between(p_channel_id integer, p_after bigint, p_trimmed bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select p_trimmed - p_after - greatest(least(p_trimmed, s.jumped_to) - greatest(p_after, s.jumped_from), 0)
    from pgmq_bus.channel_state as s
    where s.channel_id = p_channel_id;
$$;
