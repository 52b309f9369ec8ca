-- Appends messages to the channel's log, all or none. Static SQL, one function a channel, so that its plans are cached.
-- Returns their ids, in order, and the version of the channel's roster, which tells whom to wake.
create function pgmq_bus_channel.{{publish}}(
    p_queue text, p_messages text[], out ids bigint[], out roster bigint
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
    bytes bigint;
begin
    if p_messages is null or cardinality(p_messages) not between 1 and 10000 then
        perform pgmq_bus.require_range('the number of messages', cardinality(p_messages), 1, 10000);
    end if;
    if array_position(p_messages, null) is not null then
        raise invalid_parameter_value using message = 'bus: a message must not be null';
    end if;
    select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel_id = {{channel_id}};
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    if member.durability <> 'Sync' then
        perform pgmq_bus.commit_lazily();
    elsif current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- The publish lock, free most of the time: see pgmq_bus.lock_channel. What is read under it is what is true under it.
    select c.roster into roster from pgmq_bus.channel as c where c.id = {{channel_id}} for no key update skip locked;
    if not found then
        perform pgmq_bus.lock_channel({{channel_id}});
        select c.roster into roster from pgmq_bus.channel as c where c.id = {{channel_id}};
    end if;
    if not exists (select from pgmq_bus.channel_alive as a where a.channel_id = {{channel_id}}) then
        perform pgmq_bus.recover({{channel_id}});
    end if;
    with given as materialized (
        select m.n, m.message::jsonb as message from unnest(p_messages) with ordinality as m (message, n)
    ),
    inserted as (
        insert into pgmq.{{log}} (vt, message, headers)
        select
            clock_timestamp(),
            g.message,
            case when member.is_foreign or not member.self_delivery then jsonb_build_object('peer', member.peer_id) end
        from given as g
        order by g.n
        returning msg_id
    )
    select
        (select array_agg(i.msg_id order by i.msg_id) from inserted as i),
        (select max(octet_length(g.message::text)) from given as g)
    into ids, bytes;
    -- As PostgreSQL writes it: what readers get may be much longer than what was sent, as 1e100000 is.
    if bytes > member.max_message_bytes then
        raise program_limit_exceeded using
            message = format('bus: message of %s bytes exceeds this channel''s limit of %s bytes', bytes, member.max_message_bytes),
            hint = 'Send less, or raise limits.maxMessageBytes of the BusChannel.';
    end if;
end
$$;
