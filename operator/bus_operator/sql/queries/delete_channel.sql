with peers as (
    delete from pgmq_bus.peer where channel_id = $1
)
delete from pgmq_bus.channel where id = $1
