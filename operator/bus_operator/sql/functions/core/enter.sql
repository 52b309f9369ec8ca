-- Adds a peer at the head of the channel's log, or hands a durable peer its old place under a new queue name, so that
-- an earlier holder of the name is refused from then on. p_about: what the peer says of itself, see pgmq_bus_v1.join_channel.
create or replace function pgmq_bus.enter(p_channel text, p_about jsonb, p_foreign boolean) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    target pgmq_bus.channel;
    queue_name text := replace(gen_random_uuid()::text, '-', '');
    peer_name text := p_about ->> 'peer';
    start bigint;
    seen bigint;
    resumed boolean := false;
begin
    select * into target from pgmq_bus.channel
    where name = p_channel and pg_has_role(session_user, to_regrole(role::text), 'MEMBER');
    if not found then
        raise insufficient_privilege using message = 'bus: access denied';
    end if;
    if length(peer_name) not between 1 and 200 then
        raise invalid_parameter_value using message = 'bus: a peer name has 1 to 200 characters';
    end if;

    if peer_name is not null then
        -- The peer before the channel, as a session locks them that reads and then publishes in one transaction: in the other
        -- order one would wait for the other. And while the earlier holder keeps a transaction open, publishers go on.
        perform from pgmq_bus.peer where channel_id = target.id and name = peer_name for update;
    end if;
    -- Under the publish lock nothing can be appended between reading the head and committing the new row.
    perform pgmq_bus.lock_channel(target.id);
    if peer_name is not null then
        update pgmq_bus.peer
        set queue = queue_name, former_queue = queue, login = session_user, position = acknowledged, visible_at = '-infinity',
            redelivered = redelivered + greatest(delivered - acknowledged, 0),
            last_seen = clock_timestamp(), joined_at = clock_timestamp(),
            application = left(p_about ->> 'application', 200), host = left(p_about ->> 'host', 200),
            runtime = left(p_about ->> 'runtime', 200), is_foreign = p_foreign,
            address = p_about ->> 'address', listens = coalesce((p_about ->> 'listens')::boolean, false)
        where channel_id = target.id and name = peer_name
        returning acknowledged, delivered into start, seen;
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
        seen := start;
        insert into pgmq_bus.peer (
            queue, channel_id, name, login, acknowledged, delivered, position,
            application, host, runtime, is_foreign, address, listens
        )
        values (
            queue_name, target.id, peer_name, session_user, start, start, start,
            left(p_about ->> 'application', 200), left(p_about ->> 'host', 200), left(p_about ->> 'runtime', 200), p_foreign,
            p_about ->> 'address', coalesce((p_about ->> 'listens')::boolean, false)
        );
    end if;
    perform pgmq_bus.change_roster(target.id);
    return jsonb_build_object(
        'queue', queue_name,
        'token', replace(target.queue, 'bus_', ''),
        'position', start,
        'delivered', seen,
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
