-- Appends messages to the channel's log on behalf of a peer and wakes sleeping readers. Returns their ids, in order.
create or replace function pgmq_bus.append(p_channel text, p_queue text, p_messages jsonb[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
    bytes bigint;
    ids bigint[];
begin
    select * into member from pgmq_bus.membership where queue = p_queue and channel = p_channel;
    if not found then
        raise insufficient_privilege using message = 'bus: access denied';
    end if;
    if array_position(p_messages, null) is not null then
        raise invalid_parameter_value using message = 'bus: a message must not be null';
    end if;
    select max(octet_length(message::text)) into bytes from unnest(p_messages) as message;
    if bytes > member.max_message_bytes then
        raise program_limit_exceeded using
            message = format('bus: message of %s bytes exceeds this channel''s limit of %s bytes', bytes, member.max_message_bytes),
            hint = 'Send less, or raise limits.maxMessageBytes of the BusChannel.';
    end if;

    if member.durability = 'Async' then
        perform pgmq_bus.commit_lazily();
    elsif current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    perform pgmq_bus.lock_channel(member.channel_id);
    execute format(
        'with inserted as (
             insert into pgmq.%I (vt, message, headers)
             select clock_timestamp(), m.message, $2 from unnest($1) with ordinality as m (message, n) order by m.n
             returning msg_id
         )
         select array_agg(msg_id order by msg_id) from inserted',
        'q_' || member.log
    ) into ids using
        p_messages,
        case when not member.self_delivery then jsonb_build_object('peer', p_queue) end;
    perform pg_notify(member.wake, '');
    return ids;
end
$$;
