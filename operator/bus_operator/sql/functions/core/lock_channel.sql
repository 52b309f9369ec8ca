-- Takes the channel's publish lock: ids are allocated and committed under it, so a reader that has seen n never later
-- finds n-1. A row lock, because anyone may take any advisory lock, and nobody but the owner can lock this row.
create or replace function pgmq_bus.lock_channel(p_channel_id integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
begin
    -- Free most of the time: without an exception block no subtransaction is paid for.
    perform from pgmq_bus.channel where id = p_channel_id for no key update skip locked;
    if found then
        return;
    end if;
    begin
        perform from pgmq_bus.channel where id = p_channel_id for no key update;
    exception when lock_not_available then
        raise lock_not_available using
            message = 'bus: channel is busy: another session holds its publish lock',
            hint = 'A member of this channel keeps a transaction open after publishing. Try again; end that transaction.';
    end;
end
$$;
