-- Adds a peer at the head of the channel's log, or hands a durable peer its old place under a new queue name, so that
-- an earlier holder of the name is refused from then on. p_about: what the peer says of itself, see pgmq_bus_v1.join_channel.
create or replace function pgmq_bus.enter(p_channel text, p_about jsonb, p_foreign boolean) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    target pgmq_bus.channel;
    peer pgmq_bus.peer;
    resumed boolean;
    peers integer;
begin
    select * into target from pgmq_bus.channel
    where name = p_channel and pg_has_role(session_user, to_regrole(role::text), 'MEMBER');
    if not found then
        raise insufficient_privilege using message = 'bus: access denied';
    end if;
    if length(p_about ->> 'peer') not between 1 and 200 then
        raise invalid_parameter_value using message = 'bus: a peer name has 1 to 200 characters';
    end if;

    -- The peer is locked before the channel, as by a session that reads and then publishes in one transaction: in the other
    -- order one would wait for the other. And while the earlier holder keeps a transaction open, publishers go on.
    insert into pgmq_bus.peer as p (
        queue, channel_id, name, login, acknowledged, delivered, position,
        application, host, runtime, is_foreign, address, listens
    )
    values (
        replace(gen_random_uuid()::text, '-', ''), target.id, p_about ->> 'peer', session_user, 0, 0, 0,
        left(p_about ->> 'application', 200), left(p_about ->> 'host', 200), left(p_about ->> 'runtime', 200), p_foreign,
        p_about ->> 'address', coalesce((p_about ->> 'listens')::boolean, false)
    )
    on conflict (channel_id, name) do update
    set queue = excluded.queue, former_queue = p.queue, login = excluded.login, position = p.acknowledged,
        visible_at = '-infinity', redelivered = p.redelivered + greatest(p.delivered - p.acknowledged, 0),
        last_seen = clock_timestamp(), joined_at = clock_timestamp(),
        application = excluded.application, host = excluded.host, runtime = excluded.runtime, is_foreign = excluded.is_foreign,
        address = excluded.address, listens = excluded.listens
    returning p.* into peer;
    resumed := peer.former_queue is not null;

    -- Under the publish lock nothing can be appended between reading the head and committing the new row.
    perform pgmq_bus.change_roster(target.id);
    if not exists (select from pgmq_bus.channel_alive as a where a.channel_id = target.id) then
        -- After a crash the head of the log is not known but by this: see publish.
        perform pgmq_bus.recover(target.id);
    end if;
    select count(*) into peers from pgmq_bus.peer as p
    where p.channel_id = target.id and p.last_seen > clock_timestamp() - target.peer_timeout;
    if not resumed then
        if target.max_peers < peers then
            raise program_limit_exceeded using
                message = format('bus: channel has its maximum of %s peers', target.max_peers),
                hint = 'Stop a peer, or raise limits.maxPeers of the BusChannel.';
        end if;
        update pgmq_bus.peer as p
        set acknowledged = head, delivered = head, position = head
        from pgmq_bus.head(target.id) as head
        where p.queue = peer.queue
        returning p.* into peer;
    end if;
    if p_foreign then
        -- From now on somebody has to listen for what it publishes: see pgmq_bus_v1.roster.
        perform pg_notify(target.wake, '');
    end if;
    return jsonb_build_object(
        'queue', peer.queue,
        'token', replace(target.queue, 'bus_', ''),
        'position', peer.acknowledged,
        'delivered', peer.delivered,
        'wake', target.wake,
        'key', encode(target.doorbell_key, 'base64'),
        'peers', peers,
        'durability', target.durability,
        'self_delivery', target.self_delivery,
        'max_message_bytes', target.max_message_bytes,
        'peer_timeout_seconds', extract(epoch from target.peer_timeout),
        'schema_version', (select schema_version from pgmq_bus.installation),
        'resumed', resumed
    );
end
$$;
