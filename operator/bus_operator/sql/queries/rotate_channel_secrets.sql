-- The doorbell key and the name to listen to, chosen by the server: as a parameter they would be in its log. Peers notice the
-- roster's new version with their next call, and ask for both.
update pgmq_bus.channel
set doorbell_key = default, wake = 'bus_' || replace(gen_random_uuid()::text, '-', ''), roster = roster + 1
where id = $1
