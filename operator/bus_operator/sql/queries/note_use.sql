-- Of the logins $1, those in $2 are in use. Writes only what changed.
update pgmq_bus.login
set unused_since = case when not role = any ($2::text[]) then clock_timestamp() end
where role = any ($1::text[]) and (unused_since is null) <> (role = any ($2::text[]))
