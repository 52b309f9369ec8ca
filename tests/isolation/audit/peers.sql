-- As the model keeps them: without times.
select
    queue, channel_id, name, login, acknowledged, delivered, position, is_foreign, application, host, runtime, address,
    listens, former_queue, lost, redelivered
from pgmq_bus.peer
order by queue collate "C"
