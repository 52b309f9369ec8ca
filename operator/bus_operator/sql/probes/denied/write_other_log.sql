-- write another channel's log
insert into pgmq.{{other_log}} (vt) values (now())
