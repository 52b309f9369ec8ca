-- How many ids after p_after and up to p_to were ever given to a message: at most so many messages there are between.
create or replace function pgmq_bus.given_between(p_channel_id integer, p_after bigint, p_to bigint) returns bigint
language sql stable strict
set search_path = pg_catalog, pg_temp
as $$
    select greatest(p_to - p_after, 0) - coalesce(sum(upper(never) - lower(never)), 0)::bigint
    from pgmq_bus.channel as c,
        unnest(c.never_given * int8multirange(int8range(p_after, greatest(p_after, p_to), '(]'))) as never
    where c.id = p_channel_id;
$$;
