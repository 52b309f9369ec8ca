-- Counts what a peer at p_after has lost to trimming up to p_trimmed, and returns it; null where nothing was.
create or replace function pgmq_bus.note_lost(p_channel_id integer, p_queue text, p_after bigint, p_trimmed bigint) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    gap constant bigint := nullif(pgmq_bus.given_between(p_channel_id, p_after, p_trimmed), 0);
begin
    if gap is not null then
        perform pgmq_bus.commit_lazily();
        update pgmq_bus.peer set lost = lost + gap where queue = p_queue;
    end if;
    return gap;
end
$$;
