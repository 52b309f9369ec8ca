-- Waits for it to end, at most five seconds.
select pg_terminate_backend($1, 5000)
