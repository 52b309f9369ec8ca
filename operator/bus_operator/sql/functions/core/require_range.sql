create or replace function pgmq_bus.require_range(p_name text, p_value bigint, p_low bigint, p_high bigint) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_value is null or p_value not between p_low and p_high then
        raise invalid_parameter_value using
            message = format('bus: %s must be between %s and %s, got %s', p_name, p_low, p_high, coalesce(p_value::text, 'null'));
    end if;
end
$$;
