-- end the sessions of others
set role pg_signal_backend
