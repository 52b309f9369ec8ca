-- Notes that the peers, or how they are woken, have changed, and returns the roster's new version. Takes the publish lock, so
-- that whoever publishes later returns it. Waits for the disk: a version that somebody saw must not name another roster later.
create or replace function pgmq_bus.change_roster(p_channel_id integer) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    version bigint;
begin
    -- Those who come and go change the channel's row. Hundreds that wait for a row that changes wake each other up again and
    -- again; so they wait here, and one at a time contends with the publishers.
    perform from pgmq_bus.channel_gate where channel_id = p_channel_id for update;
    perform pgmq_bus.lock_channel(p_channel_id);
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    update pgmq_bus.channel set roster = roster + 1 where id = p_channel_id returning roster into version;
    return version;
end
$$;
