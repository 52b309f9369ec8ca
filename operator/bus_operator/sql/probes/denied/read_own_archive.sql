-- read its channel's archive
select msg_id from pgmq.{{own_archive}}
