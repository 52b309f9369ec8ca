-- Refuses a caller who is no member, in the same words whatever the reason. Only who holds a durable peer's former queue
-- name, a secret of this channel, is told that a later process took its place.
create or replace function pgmq_bus.deny(p_queue text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (
        select from pgmq_bus.peer as p
        join pgmq_bus.channel as c on c.id = p.channel_id
        where p.former_queue = p_queue and pg_has_role(session_user, to_regrole(c.role::text), 'MEMBER')
    ) then
        raise exception using errcode = 'BUS01', message = 'bus: a later process took the place of this durable peer';
    end if;
    raise insufficient_privilege using message = 'bus: access denied';
end
$$;
