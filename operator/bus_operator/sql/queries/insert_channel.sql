-- The doorbell key and the name to listen to are chosen by the server: as parameters they would be in its log.
with inserted as (
    insert into pgmq_bus.channel (
        name, queue, role, wake, owner_uid, owner_reference, durability, self_delivery,
        max_peers, max_message_bytes, max_connections, peer_timeout, max_age, max_messages, max_bytes
    )
    values (
        $1, $2, $3, 'bus_' || replace(gen_random_uuid()::text, '-', ''), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
    )
    returning id
),
gate as (
    insert into pgmq_bus.channel_gate select id from inserted
),
alive as (
    insert into pgmq_bus.channel_alive select id from inserted
)
insert into pgmq_bus.channel_state (channel_id)
select id from inserted
returning channel_id
