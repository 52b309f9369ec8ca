-- Lets this transaction's commit not wait for the disk, unless the transaction has already written: what it wrote before,
-- such as a message of a Sync channel, keeps the durability it was given.
create or replace function pgmq_bus.commit_lazily() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_current_xact_id_if_assigned() is null then
        perform set_config('synchronous_commit', 'off', true);
    end if;
end
$$;
