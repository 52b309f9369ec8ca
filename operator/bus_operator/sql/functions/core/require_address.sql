-- An address that other peers may send datagrams to: a literal IP address and a port that needs no privilege. No backslashes:
-- a session can change what they mean.
create or replace function pgmq_bus.require_address(p_address text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- The IPv4 address, or the IPv6 address, and the port.
    parts constant text[] := regexp_match(
        p_address, '^(?:((?:[0-9]{1,3}[.]){3}[0-9]{1,3})|[[]([0-9a-fA-F:.]{2,45})[]]):([0-9]{4,5})$'
    );
begin
    begin
        if p_address is null or parts[3]::integer between 1024 and 65535 and coalesce(parts[1], parts[2])::inet is not null then
            return;
        end if;
    exception when invalid_text_representation then
        null;
    end;
    raise invalid_parameter_value using message = 'bus: address must look like 10.0.0.1:12345 or [fd00::1]:12345';
end
$$;
