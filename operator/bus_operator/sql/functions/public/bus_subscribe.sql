-- Long poll. Waits at most a second whatever p_max_seconds says: the statement's snapshot holds vacuum back all the
-- while, and a client that got no rows simply polls again.
create or replace function public.bus_subscribe(
    p_my_queue text, p_channel text, p_vt integer, p_qty integer, p_max_seconds integer
) returns table (msg_id bigint, message jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
    position_before bigint;
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
            raise insufficient_privilege using message = 'bus: access denied';
        end if;
        return query select f.msg_id, f.message from pgmq_bus.fetch(
            member,
            case when member.visible_at <= clock_timestamp() then member.acknowledged else member.position end,
            p_vt,
            p_qty,
            false
        ) as f
        where f.message is not null;
        if found then
            return;
        end if;
        exit when clock_timestamp() >= give_up;
        -- Where the position moved, a batch held nothing but the peer's own messages, and the next may be there already.
        if member.position is not distinct from position_before then
            perform pg_sleep(0.01);
        end if;
        position_before := member.position;
    end loop;
    -- Not extending the visibility: this client has no cursor, and one that polls with messages in hand has lost the answer
    -- that held them.
    perform pgmq_bus.heartbeat(member, null);
end
$$;
