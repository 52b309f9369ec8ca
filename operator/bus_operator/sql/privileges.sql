-- Who may call what. Runs as pgmq_bus_owner after the functions were created; the roles exist.
revoke all on schema pgmq_bus, pgmq_bus_v1, pgmq_bus_channel from public, pgmq_bus_client;
revoke all on all tables in schema pgmq_bus from public, pgmq_bus_client;
revoke all on all sequences in schema pgmq_bus from public, pgmq_bus_client;
-- What is in pgmq_bus_channel is granted to each channel's own role, when its functions are made.
grant usage on schema pgmq_bus_v1, pgmq_bus_channel to pgmq_bus_client;

alter default privileges for role pgmq_bus_owner revoke execute on functions from public;
revoke all on all functions in schema pgmq_bus, pgmq_bus_v1 from public;
revoke all on all functions in schema pgmq_bus from pgmq_bus_client;
grant execute on all functions in schema pgmq_bus_v1 to pgmq_bus_client;

revoke all on function
    public.bus_join(text),
    public.bus_publish(text, text, jsonb),
    public.bus_subscribe(text, text, integer, integer, integer),
    public.bus_archive(text, text, bigint),
    public.bus_leave(text, text)
from public;
grant execute on function
    public.bus_join(text),
    public.bus_publish(text, text, jsonb),
    public.bus_subscribe(text, text, integer, integer, integer),
    public.bus_archive(text, text, bigint),
    public.bus_leave(text, text)
to pgmq_bus_client;
