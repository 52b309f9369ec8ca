-- write its channel's log past the functions
insert into pgmq.{{own_log}} (vt) values (now())
