-- read another channel's log
select msg_id from pgmq.{{other_log}}
