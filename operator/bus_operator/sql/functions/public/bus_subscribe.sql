-- Long poll. Waits at most a second whatever p_max_seconds says: the statement's snapshot holds vacuum back all the
-- while, and a client that got no rows simply polls again. Between looks it sleeps 5 ms at first and 20 ms at most; a look
-- without news costs one look-up of the peer and one of the log's sequence.
-- Whoever polls has nothing in hand: the reference client archives all it was given, one after the other, before it polls
-- again. What was handed out and not archived got lost with its connection, so it is handed out again at once, and before
-- anything later: to archive that would acknowledge what never arrived. p_vt is checked, and means nothing.
create or replace function public.bus_subscribe(
    p_my_queue text, p_channel text, p_vt integer, p_qty integer, p_max_seconds integer
) returns table (msg_id bigint, message jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    member pgmq_bus.membership;
    batch record;
    pause double precision := 0.005;
    give_up timestamptz;
begin
    perform pgmq_bus.require_range('p_vt', p_vt, 1, 43200);
    perform pgmq_bus.require_range('p_qty', p_qty, 1, 10000);
    perform pgmq_bus.require_range('p_max_seconds', p_max_seconds, 0, 3600);
    give_up := clock_timestamp() + make_interval(secs => least(p_max_seconds, 1));
    perform pgmq_bus.commit_lazily();
    loop
        select * into member from pgmq_bus.membership as m where m.queue = p_my_queue and m.channel = p_channel;
        if not found then
            perform pgmq_bus.deny(p_my_queue);
        end if;
        if member.acknowledged < member.position or pgmq_bus.head(member.channel_id) > member.position then
            select * into batch from pgmq_bus.fetch(member, member.acknowledged, p_vt, p_qty);
            -- The reference client rings nobody: those that wait to be woken hear of its messages when it reads them itself.
            if batch.p_own and member.durability = 'Sync' then
                perform pgmq_bus.notify_listeners(member.wake);
                -- They hear of them when this call is over.
                give_up := clock_timestamp();
            end if;
            if batch.ids is not null then
                return query select * from unnest(batch.ids, batch.messages);
                return;
            end if;
            -- Nothing but its own: the next may be there already.
            continue when batch.p_own;
        end if;
        exit when clock_timestamp() >= give_up;
        perform pg_sleep(pause);
        pause := least(pause * 1.5, 0.02);
    end loop;
    perform pgmq_bus.heartbeat(member);
    if member.has_retention then
        perform pgmq_bus.trim(member.channel_id);
    end if;
end
$$;
