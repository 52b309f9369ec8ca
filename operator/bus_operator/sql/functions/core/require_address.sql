-- An address that other peers may send datagrams to: a literal IP address and a port that needs no privilege.
create or replace function pgmq_bus.require_address(p_address text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_address !~ '^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]{2,45}\]):\d{4,5}$' then
        raise invalid_parameter_value using message = 'bus: address must look like 10.0.0.1:12345 or [fd00::1]:12345';
    end if;
end
$$;
