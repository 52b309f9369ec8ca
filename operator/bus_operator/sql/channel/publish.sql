-- Appends messages to the channel's log, all or none. Static SQL, one function a channel, so that its plans are cached; and few
-- relations, because a session that was idle pays for each. Returns the messages' ids, in order, and the version of the
-- channel's roster, which tells whom to wake.
create or replace function pgmq_bus_channel.{{publish}}(
    p_queue text, p_messages text[], out ids bigint[], out roster bigint
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant integer := cardinality(p_messages);
    wrote_before constant boolean := pg_current_xact_id_if_assigned() is not null;
    alive constant text := 'pgmq_bus.alive_{{channel_id}}';
    member record;
    origin jsonb;
    id bigint;
    stored integer;
    bytes bigint;
begin
    if wanted is null or wanted not between 1 and 10000 then
        perform pgmq_bus.require_range('the number of messages', wanted, 1, 10000);
    end if;
    select m.peer_id, m.is_foreign, m.self_delivery, m.durability, m.max_message_bytes, m.has_retention into member
    from pgmq_bus.membership as m where m.queue = p_queue and m.channel_id = {{channel_id}};
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    if member.is_foreign or not member.self_delivery then
        origin := jsonb_build_object('peer', member.peer_id);
    end if;
    if member.durability = 'Sync' then
        if current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
    elsif not wrote_before then
        -- As in commit_lazily: what the transaction wrote before keeps the durability it was given.
        perform set_config('synchronous_commit', 'off', true);
    end if;

    -- The publish lock, free most of the time: see pgmq_bus.lock_channel. What is read under it is what is true under it.
    select c.roster into roster from pgmq_bus.channel as c where c.id = {{channel_id}} for no key update skip locked;
    if not found then
        perform pgmq_bus.lock_channel({{channel_id}});
        select c.roster into roster from pgmq_bus.channel as c where c.id = {{channel_id}};
    end if;
    -- Once a session: no session outlives a crash.
    if current_setting(alive, true) is distinct from 'yes' then
        if not exists (select from pgmq_bus.channel_alive as a where a.channel_id = {{channel_id}}) then
            roster := pgmq_bus.recover({{channel_id}});
        end if;
        perform set_config(alive, 'yes', false);
    end if;
    -- The age of a message is counted from here: its transaction may have begun long before those of messages before it.
    -- Messages are measured as PostgreSQL writes them: what readers get may be much longer than what was sent, as 1e100000 is.
    if wanted = 1 then
        insert into pgmq.{{log}} (enqueued_at, vt, message, headers)
        values (clock_timestamp(), clock_timestamp(), p_messages[array_lower(p_messages, 1)]::jsonb, origin)
        returning msg_id, octet_length(message::text) into id, bytes;
        ids := array[id];
        stored := case when bytes is null then 0 else 1 end;
    else
        with inserted as (
            insert into pgmq.{{log}} (enqueued_at, vt, message, headers)
            select clock_timestamp(), clock_timestamp(), m.message::jsonb, origin
            from unnest(p_messages) with ordinality as m (message, n)
            order by m.n
            returning msg_id, octet_length(message::text) as bytes
        )
        select array_agg(i.msg_id order by i.msg_id), count(i.bytes), max(i.bytes) into ids, stored, bytes from inserted as i;
    end if;
    if stored < wanted then
        raise invalid_parameter_value using message = 'bus: a message must not be null';
    end if;
    if bytes > member.max_message_bytes then
        raise program_limit_exceeded using
            message = format('bus: message of %s bytes exceeds this channel''s limit of %s bytes', bytes, member.max_message_bytes),
            hint = 'Send less, or raise limits.maxMessageBytes of the BusChannel.';
    end if;
    -- Readers keep the log within the channel's retention, where there are any.
    if member.has_retention and ids[wanted] % 1024 < wanted then
        perform pgmq_bus.trim({{channel_id}});
    end if;
end
$$;
