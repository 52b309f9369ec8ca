-- What no client changes of the registry.
select jsonb_build_object(
    'logins', (select jsonb_agg(l order by l.role) from pgmq_bus.login as l),
    'installation', (select jsonb_agg(i) from pgmq_bus.installation as i),
    'gates', (select jsonb_agg(g order by g.channel_id) from pgmq_bus.channel_gate as g),
    'alive', (select jsonb_agg(a order by a.channel_id) from pgmq_bus.channel_alive as a),
    'queues', (select jsonb_agg(m order by m.queue_name) from pgmq.meta as m)
)
