-- Before the migration from version 2, which replaces what its functions are made of: each function that clients call becomes
-- one that first looks at the installation. Whoever comes while the migration has that table locked waits there, holding
-- nothing, and then calls the new function; and what it holds to the end of its transaction keeps the migration from
-- beginning in the middle of a call. The functions themselves go on under other names until then.
alter function public.bus_join(text) rename to former_bus_join;
alter function public.bus_publish(text, text, jsonb) rename to former_bus_publish;
alter function public.bus_subscribe(text, text, integer, integer, integer) rename to former_bus_subscribe;
alter function public.bus_archive(text, text, bigint) rename to former_bus_archive;
alter function public.bus_leave(text, text) rename to former_bus_leave;
alter function public.former_bus_join(text) set schema pgmq_bus;
alter function public.former_bus_publish(text, text, jsonb) set schema pgmq_bus;
alter function public.former_bus_subscribe(text, text, integer, integer, integer) set schema pgmq_bus;
alter function public.former_bus_archive(text, text, bigint) set schema pgmq_bus;
alter function public.former_bus_leave(text, text) set schema pgmq_bus;
alter function pgmq_bus_v1.join_channel(text, jsonb) set schema pgmq_bus;
alter function pgmq_bus_v1.publish(text, text, jsonb[]) set schema pgmq_bus;
alter function pgmq_bus_v1.read(text, text, bigint, bigint, integer, integer) set schema pgmq_bus;
alter function pgmq_bus_v1.leave(text, text) set schema pgmq_bus;

create function public.bus_join(p_channel text) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    answer text;
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return pgmq_bus.former_bus_join(p_channel);
    end if;
    execute 'select public.bus_join($1)' into answer using p_channel;
    return answer;
end
$$;

create function public.bus_publish(p_channel text, p_my_queue text, p_message jsonb) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    answer bigint[];
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return pgmq_bus.former_bus_publish(p_channel, p_my_queue, p_message);
    end if;
    execute 'select public.bus_publish($1, $2, $3)' into answer using p_channel, p_my_queue, p_message;
    return answer;
end
$$;

create function public.bus_subscribe(p_my_queue text, p_channel text, p_vt integer, p_qty integer, p_max_seconds integer)
returns table (msg_id bigint, message jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return query select * from pgmq_bus.former_bus_subscribe(p_my_queue, p_channel, p_vt, p_qty, p_max_seconds);
        return;
    end if;
    return query execute 'select * from public.bus_subscribe($1, $2, $3, $4, $5)'
        using p_my_queue, p_channel, p_vt, p_qty, p_max_seconds;
end
$$;

create function public.bus_archive(p_my_queue text, p_channel text, p_msg_id bigint) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    answer boolean;
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return pgmq_bus.former_bus_archive(p_my_queue, p_channel, p_msg_id);
    end if;
    execute 'select public.bus_archive($1, $2, $3)' into answer using p_my_queue, p_channel, p_msg_id;
    return answer;
end
$$;

create function public.bus_leave(p_my_queue text, p_channel text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        perform pgmq_bus.former_bus_leave(p_my_queue, p_channel);
        return;
    end if;
    execute 'select public.bus_leave($1, $2)' using p_my_queue, p_channel;
end
$$;

create function pgmq_bus_v1.join_channel(p_channel text, p_options jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    answer jsonb;
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return pgmq_bus.join_channel(p_channel, p_options);
    end if;
    execute 'select pgmq_bus_v1.join_channel($1, $2)' into answer using p_channel, p_options;
    return answer;
end
$$;

create function pgmq_bus_v1.publish(p_channel text, p_queue text, p_messages jsonb[]) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    answer bigint[];
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return pgmq_bus.publish(p_channel, p_queue, p_messages);
    end if;
    execute 'select pgmq_bus_v1.publish($1, $2, $3)' into answer using p_channel, p_queue, p_messages;
    return answer;
end
$$;

create function pgmq_bus_v1.read(
    p_channel text, p_queue text, p_after bigint, p_acknowledge bigint, p_visibility_seconds integer, p_limit integer
) returns table (msg_id bigint, message jsonb, lost bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return query select * from pgmq_bus.read(p_channel, p_queue, p_after, p_acknowledge, p_visibility_seconds, p_limit);
        return;
    end if;
    return query execute 'select * from pgmq_bus_v1.read($1, $2, $3, $4, $5, $6)'
        using p_channel, p_queue, p_after, p_acknowledge, p_visibility_seconds, p_limit;
end
$$;

create function pgmq_bus_v1.leave(p_channel text, p_queue text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    answer boolean;
begin
    if (select schema_version from pgmq_bus.installation) = 2 then
        return pgmq_bus.leave(p_channel, p_queue);
    end if;
    execute 'select pgmq_bus_v1.leave($1, $2)' into answer using p_channel, p_queue;
    return answer;
end
$$;

revoke all on all functions in schema pgmq_bus from public, pgmq_bus_client;
revoke all on all functions in schema pgmq_bus_v1 from public;
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
