-- empty another channel's log
truncate pgmq.{{other_log}}
