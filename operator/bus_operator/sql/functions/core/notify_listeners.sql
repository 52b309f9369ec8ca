-- Wakes those peers of a channel that LISTEN. Not while the server's notification queue is half full: a session that listens and
-- stays in a transaction keeps it from being emptied, any login of the server can fill it, and a transaction that notifies then
-- fails as it commits, with all that it did. Peers that are not woken look by themselves.
create or replace function pgmq_bus.notify_listeners(p_wake text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify(p_wake, '');
    end if;
end
$$;
