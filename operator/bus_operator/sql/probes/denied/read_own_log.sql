-- read its channel's log past the functions
select msg_id from pgmq.{{own_log}}
