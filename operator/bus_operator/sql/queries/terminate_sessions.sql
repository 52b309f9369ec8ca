-- Waits for each to end, at most five seconds: its temporary objects, wherever they are, go with it.
select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1
