-- Adds a peer at the head of the channel's log, or hands a durable peer its old place under a new queue name, so that
-- an earlier holder of the name is refused from then on. p_about: what the peer says of itself, see pgmq_bus_v1.join_channel.
-- A process whose joining got lost, as in a failover to a standby that was behind, claims its place by when it joined: so the
-- place is always with whoever joined last, in whatever order they come back, and of two that live one gives up for good.
-- Few statements, because whoever joins is new to the server, and a new session pays for each relation and each plan.
create or replace function pgmq_bus.enter(p_channel text, p_about jsonb, p_foreign boolean) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    new_queue constant text := replace(gen_random_uuid()::text, '-', '');
    durable_name constant text := p_about ->> 'peer';
    claimed timestamptz := timestamptz 'epoch' + (p_about ->> 'since')::bigint * interval '1 microsecond';
    target record;
    found_there record;
    peer record;
    resumed boolean := false;
    since timestamptz;
begin
    select c.* into target from pgmq_bus.channel as c
    where c.name = p_channel and pg_has_role(session_user, to_regrole(c.role::text), 'MEMBER');
    if not found then
        raise insufficient_privilege using message = 'bus: access denied';
    end if;
    if length(durable_name) not between 1 and 200 then
        raise invalid_parameter_value using message = 'bus: a peer name has 1 to 200 characters';
    end if;

    if durable_name is not null then
        if claimed > clock_timestamp() + interval '1 day' then
            -- No server's clock was that wrong: what is made up must not count for ever.
            claimed := clock_timestamp() + interval '1 day';
        end if;
        -- The peer is locked before the channel, as by a session that reads and then publishes in one transaction: in the other
        -- order one would wait for the other. And while the earlier holder keeps a transaction open, publishers go on.
        insert into pgmq_bus.peer as p (
            queue, channel_id, name, login, acknowledged, delivered, position, application, host, runtime, is_foreign, address, listens,
            joined_at
        )
        values (
            new_queue, target.id, durable_name, session_user, 0, 0, 0,
            left(p_about ->> 'application', 200), left(p_about ->> 'host', 200), left(p_about ->> 'runtime', 200), p_foreign,
            p_about ->> 'address', coalesce((p_about ->> 'listens')::boolean, false), coalesce(claimed, clock_timestamp())
        )
        on conflict on constraint peer_channel_id_name_key do update
        set queue = excluded.queue, former_queue = p.queue, login = excluded.login, position = p.acknowledged,
            visible_at = '-infinity', last_seen = clock_timestamp(),
            -- Who claims its place goes on where it is itself.
            redelivered = p.redelivered + case when claimed is null then greatest(p.delivered - p.acknowledged, 0) else 0 end,
            -- Later than the earlier holder, whatever the clock of the server that took over says.
            joined_at = coalesce(claimed, greatest(clock_timestamp(), p.joined_at + interval '1 microsecond')),
            application = excluded.application, host = excluded.host, runtime = excluded.runtime,
            is_foreign = excluded.is_foreign, address = excluded.address, listens = excluded.listens
        where claimed is null or p.joined_at <= claimed
        returning p.acknowledged, p.delivered, p.former_queue is not null as resumed, p.joined_at into peer;
        if not found then
            raise exception using errcode = 'BUS01', message = 'bus: a later process took the place of this durable peer';
        end if;
        resumed := peer.resumed;
        since := peer.joined_at;
    end if;

    -- Under the publish lock nothing can be appended between reading the head and committing the new row.
    perform pgmq_bus.change_roster(target.id);
    select
        -- Who is durable is there already.
        count(p.id) + (durable_name is null)::integer as peers,
        coalesce(bool_or(p.is_foreign), p_foreign) as has_foreign,
        exists (select from pgmq_bus.channel_alive as a where a.channel_id = target.id) as alive,
        pgmq_bus.head(target.id) as head,
        (select i.schema_version from pgmq_bus.installation as i) as schema_version
    into found_there
    from pgmq_bus.peer as p
    where p.channel_id = target.id and p.last_seen > clock_timestamp() - target.peer_timeout;
    if not found_there.alive then
        -- After a crash the head of the log is not known but by this: see publish.
        perform pgmq_bus.recover(target.id);
        found_there.head := pgmq_bus.head(target.id);
    end if;
    if not resumed and target.max_peers < found_there.peers then
        raise program_limit_exceeded using
            message = format('bus: channel has its maximum of %s peers', target.max_peers),
            hint = 'Stop a peer, or raise limits.maxPeers of the BusChannel.';
    end if;
    if durable_name is null then
        insert into pgmq_bus.peer as p (
            queue, channel_id, login, acknowledged, delivered, position, application, host, runtime, is_foreign, address, listens
        )
        values (
            new_queue, target.id, session_user, found_there.head, found_there.head, found_there.head,
            left(p_about ->> 'application', 200), left(p_about ->> 'host', 200), left(p_about ->> 'runtime', 200), p_foreign,
            p_about ->> 'address', coalesce((p_about ->> 'listens')::boolean, false)
        )
        returning p.acknowledged, p.delivered into peer;
    elsif not resumed then
        update pgmq_bus.peer as p
        set acknowledged = found_there.head, delivered = found_there.head, position = found_there.head
        where p.queue = new_queue
        returning p.acknowledged, p.delivered into peer;
    end if;
    if p_foreign then
        -- From now on somebody has to listen for what it publishes: see pgmq_bus_v1.roster.
        perform pgmq_bus.notify_listeners(target.wake);
    end if;
    return jsonb_build_object(
        'queue', new_queue,
        'token', replace(target.queue, 'bus_', ''),
        'position', peer.acknowledged,
        'delivered', peer.delivered,
        'head', found_there.head,
        'since', (extract(epoch from since) * 1000000)::bigint::text,
        'wake', target.wake,
        'key', encode(target.doorbell_key, 'base64'),
        'peers', found_there.peers,
        'foreign', found_there.has_foreign,
        'durability', target.durability,
        'self_delivery', target.self_delivery,
        'max_message_bytes', target.max_message_bytes,
        'peer_timeout_seconds', extract(epoch from target.peer_timeout),
        'schema_version', found_there.schema_version,
        'resumed', resumed
    );
end
$$;
