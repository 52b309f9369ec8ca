-- The straightforward server side of pipecat's IsolatedPgmqBackend: a PGMQ queue for each peer, and a table of who is
-- on which channel. What a deployer writes who follows the client's documentation; what this project is compared with.
-- PGMQ is there already.

create schema bench;

create table bench.peer (
    queue text primary key,
    channel text not null
);

create index peer_channel on bench.peer (channel);

create function bench.require_peer(p_queue text, p_channel text) returns void
language plpgsql
as $$
begin
    if not exists (select from bench.peer where queue = p_queue and channel = p_channel) then
        raise insufficient_privilege using message = 'not a peer of this channel';
    end if;
end
$$;

create function public.bus_join(p_channel text) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    new_queue text := 'b' || replace(gen_random_uuid()::text, '-', '');
begin
    perform pgmq.create(new_queue);
    insert into bench.peer (queue, channel) values (new_queue, p_channel);
    return new_queue;
end
$$;

create function public.bus_publish(p_channel text, p_my_queue text, p_message jsonb) returns bigint[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    peer_queue text;
    ids bigint[] := '{}';
begin
    perform bench.require_peer(p_my_queue, p_channel);
    for peer_queue in select queue from bench.peer where channel = p_channel loop
        ids := ids || array(select pgmq.send(peer_queue, p_message));
    end loop;
    return ids;
end
$$;

create function public.bus_subscribe(
    p_my_queue text, p_channel text, p_vt integer, p_qty integer, p_max_seconds integer
) returns table (msg_id bigint, message jsonb)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform bench.require_peer(p_my_queue, p_channel);
    return query
        select r.msg_id, r.message from pgmq.read_with_poll(p_my_queue, p_vt, p_qty, p_max_seconds, 100) as r;
end
$$;

create function public.bus_archive(p_my_queue text, p_channel text, p_msg_id bigint) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform bench.require_peer(p_my_queue, p_channel);
    return pgmq.delete(p_my_queue, p_msg_id);
end
$$;

create function public.bus_leave(p_my_queue text, p_channel text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from bench.peer where queue = p_my_queue and channel = p_channel;
    if found then
        perform pgmq.drop_queue(p_my_queue);
    end if;
end
$$;
