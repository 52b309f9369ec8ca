-- The channel of that name, or all of them where $1 is null.
select
    c.id, c.name, c.queue, c.role::text as role, c.owner_uid, c.owner_reference, c.durability, c.self_delivery,
    c.max_peers, c.max_message_bytes, c.max_connections, c.peer_timeout, c.max_age, c.max_messages, c.max_bytes,
    c.functions_fingerprint as installed_fingerprint, clock_timestamp() as observed_at,
    log.oid is not null as log_exists,
    case when sequence.relpersistence = 'p' then log.relpersistence = 'u' end as log_unlogged,
    to_regrole(c.role::text) is not null as role_exists,
    coalesce(pg_has_role(to_regrole(c.role::text)::oid, 'pgmq_bus_client', 'USAGE'), false) as role_is_client
from pgmq_bus.channel as c
left join pg_class as log on log.oid = to_regclass(format('pgmq.%I', 'q_' || c.queue))
left join pg_class as sequence on sequence.oid = to_regclass(format('pgmq.%I', 'q_' || c.queue || '_msg_id_seq'))
where $1::text is null or c.name = $1
