-- Appends messages to the channel's log, all or none. Static SQL, one function a channel, so that its plans are cached; and few
-- statements, relations and expressions, because a session that was idle pays for each. Returns the messages' ids, in order,
-- and the version of the channel's roster, which tells whom to wake.
create or replace function pgmq_bus_channel.{{publish}}(
    p_queue text, p_messages text[], out ids bigint[], out roster bigint
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- The first plans are made while the channel has few peers, and kept.
set enable_seqscan = off
as $$
declare
    wanted constant integer := cardinality(p_messages);
    wrote_before constant boolean := pg_current_xact_id_if_assigned() is not null;
    peer_id bigint;
    marked boolean;
    durability text;
    max_bytes integer;
    has_retention boolean;
    bytes bigint;
    ignored text;
begin
    if wanted between 1 and 10000 is not true then
        perform pgmq_bus.require_range('the number of messages', wanted, 1, 10000);
    end if;
    -- Who may, as pgmq_bus.membership has it, and the publish lock, free most of the time: see pgmq_bus.lock_channel. In one
    -- statement, and what is read under the lock is true under it.
    loop
        select
            p.id, p.is_foreign or not c.self_delivery, c.durability, c.max_message_bytes,
            c.max_age is not null or c.max_messages is not null or c.max_bytes is not null, c.roster
        into peer_id, marked, durability, max_bytes, has_retention, roster
        from pgmq_bus.peer as p
        join pgmq_bus.channel as c on c.id = p.channel_id
        where p.queue = p_queue and c.id = {{channel_id}}
            and pg_has_role(session_user, to_regrole(c.role::text), 'MEMBER')
        for no key update of c skip locked;
        exit when found;
        if not exists (select from pgmq_bus.membership as m where m.queue = p_queue and m.channel_id = {{channel_id}}) then
            perform pgmq_bus.deny(p_queue);
        end if;
        perform pgmq_bus.lock_channel({{channel_id}});
    end loop;
    if durability = 'Sync' then
        if current_setting('synchronous_commit') = 'off' then
            ignored := set_config('synchronous_commit', 'on', true);
        end if;
    elsif not wrote_before then
        -- As in commit_lazily: what the transaction wrote before keeps the durability it was given.
        ignored := set_config('synchronous_commit', 'off', true);
    end if;
    -- Once a session: no session outlives a crash.
    if current_setting('pgmq_bus.alive_{{channel_id}}', true) is distinct from 'yes' then
        if not exists (select from pgmq_bus.channel_alive as a where a.channel_id = {{channel_id}}) then
            roster := pgmq_bus.recover({{channel_id}});
        end if;
        ignored := set_config('pgmq_bus.alive_{{channel_id}}', 'yes', false);
    end if;
    -- The age of a message is counted from here: its transaction may have begun long before those of messages before it.
    -- Messages are measured as PostgreSQL writes them: what readers get may be much longer than what was sent, as 1e100000 is.
    if wanted = 1 then
        insert into pgmq.{{log}} (enqueued_at, vt, message, headers)
        values (
            clock_timestamp(), clock_timestamp(), p_messages[array_lower(p_messages, 1)]::jsonb,
            case when marked then jsonb_build_object('peer', peer_id) end
        )
        returning array[msg_id], octet_length(message::text) into ids, bytes;
    else
        with inserted as (
            insert into pgmq.{{log}} (enqueued_at, vt, message, headers)
            select
                clock_timestamp(), clock_timestamp(), m.message::jsonb,
                case when marked then jsonb_build_object('peer', peer_id) end
            from unnest(p_messages) with ordinality as m (message, n)
            order by m.n
            returning msg_id, octet_length(message::text) as bytes
        )
        select array_agg(i.msg_id order by i.msg_id), case when count(i.bytes) = wanted then max(i.bytes) end
        into ids, bytes from inserted as i;
    end if;
    if bytes <= max_bytes is not true then
        if bytes is null then
            raise invalid_parameter_value using message = 'bus: a message must not be null';
        end if;
        raise program_limit_exceeded using
            message = format('bus: message of %s bytes exceeds this channel''s limit of %s bytes', bytes, max_bytes),
            hint = 'Send less, or raise limits.maxMessageBytes of the BusChannel.';
    end if;
    -- Readers keep the log within the channel's retention, where there are any.
    if has_retention and ids[wanted] % 1024 < wanted then
        perform pgmq_bus.trim({{channel_id}});
    end if;
end
$$;
