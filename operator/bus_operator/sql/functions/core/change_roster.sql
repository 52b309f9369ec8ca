-- Notes that the peers, or how they are woken, have changed, and returns the roster's new version. Takes the publish lock, so
-- that whoever publishes later returns it. Waits for the disk: a version that somebody saw must not name another roster later.
create or replace function pgmq_bus.change_roster(p_channel_id integer) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    version bigint;
    pause double precision := 0.002;
    give_up constant timestamptz := clock_timestamp() + interval '20 seconds';
begin
    -- Hundreds that queue for a row's lock cost each other time by the square of their number: the lock's queue is walked again
    -- and again, above all for deadlocks. So those who come and go look whether it is their turn, and only that one contends
    -- with the publishers. Not where the publish lock is free, or this transaction has it from publishing: then it must not wait
    -- for somebody who waits for it.
    perform from pgmq_bus.channel where id = p_channel_id for no key update skip locked;
    if not found then
        loop
            perform from pgmq_bus.channel_gate where channel_id = p_channel_id for update skip locked;
            exit when found;
            if clock_timestamp() > give_up then
                raise lock_not_available using
                    message = 'bus: channel is busy: too many peers come and go, or a session that did keeps its transaction open',
                    hint = 'Try again.';
            end if;
            perform pg_sleep(pause * (0.5 + random()));
            pause := least(pause * 2, 0.5);
        end loop;
        perform pgmq_bus.lock_channel(p_channel_id);
    end if;
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    update pgmq_bus.channel set roster = roster + 1 where id = p_channel_id returning roster into version;
    return version;
end
$$;
