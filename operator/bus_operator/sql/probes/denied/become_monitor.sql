-- see what others do
set role pg_monitor
