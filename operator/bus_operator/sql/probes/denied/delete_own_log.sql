-- delete from its channel's log
delete from pgmq.{{own_log}}
