-- Adds a peer at the head of the channel's log, or hands a durable peer its old place under a new queue name, so that
-- an earlier holder of the name is refused from then on.
create or replace function pgmq_bus.enter(
    p_channel text, p_name text, p_application text, p_host text, p_runtime text
) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    target pgmq_bus.channel;
    queue_name text := replace(gen_random_uuid()::text, '-', '');
    start bigint;
    resumed boolean := false;
begin
    select * into target from pgmq_bus.channel
    where name = p_channel and pg_has_role(session_user, to_regrole(role::text), 'MEMBER');
    if not found then
        raise insufficient_privilege using message = 'bus: access denied';
    end if;
    if length(p_name) not between 1 and 200 then
        raise invalid_parameter_value using message = 'bus: a peer name has 1 to 200 characters';
    end if;

    -- Under the publish lock nothing can be appended between reading the head and committing the new row.
    perform pgmq_bus.lock_channel(target.id);
    if p_name is not null then
        update pgmq_bus.peer
        set queue = queue_name, login = session_user, position = acknowledged, visible_at = '-infinity',
            last_seen = clock_timestamp(), joined_at = clock_timestamp(),
            application = left(p_application, 200), host = left(p_host, 200), runtime = left(p_runtime, 200)
        where channel_id = target.id and name = p_name
        returning acknowledged into start;
        resumed := found;
    end if;
    if not resumed then
        if target.max_peers <= (
            select count(*) from pgmq_bus.peer
            where channel_id = target.id and last_seen > clock_timestamp() - target.peer_timeout
        ) then
            raise program_limit_exceeded using
                message = format('bus: channel has its maximum of %s peers', target.max_peers),
                hint = 'Stop a peer, or raise limits.maxPeers of the BusChannel.';
        end if;
        start := pgmq_bus.head(target.id);
        insert into pgmq_bus.peer (queue, channel_id, name, login, acknowledged, delivered, position, application, host, runtime)
        values (
            queue_name, target.id, p_name, session_user, start, start, start,
            left(p_application, 200), left(p_host, 200), left(p_runtime, 200)
        );
    end if;
    return jsonb_build_object(
        'queue', queue_name,
        'position', start,
        'wake', target.wake,
        'durability', target.durability,
        'self_delivery', target.self_delivery,
        'max_message_bytes', target.max_message_bytes,
        'peer_timeout_seconds', extract(epoch from target.peer_timeout),
        'schema_version', (select schema_version from pgmq_bus.installation),
        'resumed', resumed
    );
end
$$;
