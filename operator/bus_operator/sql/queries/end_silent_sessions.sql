-- Ends sessions of this administrator, by the operator, whose client has said nothing for $2 seconds within a transaction: it is
-- frozen or lost, and its locks hold up everybody. In the middle of a statement of the extended protocol no timeout of the
-- server applies: such a session is active, and waits for its client. $1 is the application's name.
select count(pg_terminate_backend(pid))
from pg_stat_activity
where
    usename = current_user
    and application_name = $1
    and pid <> pg_backend_pid()
    and xact_start is not null
    and wait_event = 'ClientRead'
    and state_change < clock_timestamp() - make_interval(secs => $2)
