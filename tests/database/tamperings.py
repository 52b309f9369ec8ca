"""What an administrator may have done by hand to a channel called `orders`, and what the look says of it."""
# ruff: noqa: E501  a table, with a row a line

TAMPERINGS: list[tuple[str, str]] = [
    # Functions.
    ("grant execute on function pgmq_bus_v1.roster to public", "function pgmq_bus_v1.roster(text,text): EXECUTE granted to PUBLIC"),
    ("grant execute on function pgmq_bus.trim to public", "function pgmq_bus.trim(integer,boolean): EXECUTE granted to PUBLIC"),
    ("grant execute on function pgmq_bus.trim to stranger", "EXECUTE granted to stranger"),
    ("grant execute on function public.bus_join to {login}", "function public.bus_join(text): EXECUTE granted to {login}"),
    (
        "grant execute on function public.bus_join to pgmq_bus_client with grant option",
        "function public.bus_join(text): EXECUTE WITH GRANT OPTION granted to pgmq_bus_client",
    ),
    (
        "revoke execute on function public.bus_leave from pgmq_bus_client",
        "function public.bus_leave(text,text): EXECUTE revoked from pgmq_bus_client",
    ),
    ("drop function pgmq_bus_v1.leave", "function pgmq_bus_v1.leave(text,text): is missing"),
    (
        "create or replace function public.bus_join(p_channel text) returns text language sql security definer"
        " set search_path = pg_catalog, pg_temp as 'select null::text'",
        "function public.bus_join(text): its text was changed",
    ),
    ("alter function pgmq_bus.append reset search_path", "function pgmq_bus.append(text,text,jsonb): its settings are () instead of"),
    ("alter function pgmq_bus.append security definer", "function pgmq_bus.append(text,text,jsonb): is SECURITY DEFINER"),
    ("alter function pgmq_bus_v1.notify owner to stranger", "function pgmq_bus_v1.notify(text,text): belongs to stranger"),
    ("alter function pgmq_bus_v1.notify volatile cost 7", "function pgmq_bus_v1.notify(text,text): its attributes were changed"),
    (
        "create function pgmq_bus_v1.leave(varchar, varchar) returns boolean language sql as 'select true';"
        "alter function pgmq_bus_v1.leave(varchar, varchar) owner to stranger",
        "function pgmq_bus_v1.leave(character varying,character varying): does not belong there, owner stranger",
    ),
    ("create function pgmq_bus_channel.anything() returns int language sql as 'select 1'", "anything(): does not belong there"),
    (
        "drop function pgmq_bus_v1.roster; create function pgmq_bus_v1.roster(p_wrong text, p_queue text) returns jsonb"
        " language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $f${roster}$f$;"
        "alter function pgmq_bus_v1.roster owner to pgmq_bus_owner; revoke all on function pgmq_bus_v1.roster from public;"
        "grant execute on function pgmq_bus_v1.roster to pgmq_bus_client",
        "the functions in pgmq_bus, pgmq_bus_v1 and public: were changed",
    ),
    # A channel's own.
    ("drop function pgmq_bus_channel.publish_{token}", "function pgmq_bus_channel.publish_{token}(text,text[]): is missing"),
    ("grant execute on function pgmq_bus_channel.read_{token} to public", "read_{token}(text,bigint,bigint,integer,bigint): EXECUTE granted to PUBLIC"),
    ("revoke execute on function pgmq_bus_channel.read_{token} from {role}", "EXECUTE revoked from {role}"),
    ("alter function pgmq_bus_channel.publish_{token} owner to postgres", "publish_{token}(text,text[]): belongs to postgres"),
    (
        "create function pgmq_bus_channel.publish_{token}(text, varchar[]) returns int language sql as 'select 1'",
        "function pgmq_bus_channel.publish_{token}(text,character varying[]): does not belong there, owner postgres",
    ),
    (
        "create or replace function pgmq_bus_channel.publish_{token}(p_queue text, p_messages text[], out ids bigint[],"
        " out roster bigint) language sql as 'select null::bigint[], 1::bigint'",
        "publish_{token}(text,text[]): its text was changed",
    ),
    ("alter function pgmq_bus_channel.read_{token} cost 7", "function pgmq_bus_channel.read_{token}(text,bigint,bigint,integer,bigint): its attributes were changed"),
    # Schemas, the database, and what is not ours.
    ("grant usage on schema pgmq_bus to public", "schema pgmq_bus: USAGE granted to PUBLIC"),
    ("grant create on schema pgmq_bus_v1 to pgmq_bus_client", "schema pgmq_bus_v1: CREATE granted to pgmq_bus_client"),
    ("revoke usage on schema pgmq_bus_channel from pgmq_bus_client", "schema pgmq_bus_channel: USAGE revoked from pgmq_bus_client"),
    ("alter schema pgmq_bus_v1 owner to stranger", "schema pgmq_bus_v1: belongs to stranger"),
    ("grant create on schema public to pgmq_bus_owner", "schema public: CREATE granted to pgmq_bus_owner"),
    ("revoke usage on schema public from public", "schema public: USAGE revoked from PUBLIC"),
    ("grant usage on schema pgmq to {role}", "schema pgmq: a privilege granted to {role}"),
    ("grant execute on function pgmq.read(text, integer, integer, jsonb) to {login}", "a privilege granted to {login}"),
    ("grant select on strange.things to {role}", "table strange.things: a privilege granted to {role}"),
    ("grant update (a) on strange.things to pgmq_bus_client", "table strange.things: a privilege granted to pgmq_bus_client"),
    ("grant create on database {database} to {login}", "database {database}: CREATE granted to {login}"),
    ("grant set on parameter log_statement to {role}", "a privilege granted to {role}"),
    ("revoke connect on database {database} from public, pgmq_bus_client", "database {database}: CONNECT revoked from pgmq_bus_client"),
    (
        "alter default privileges for role pgmq_bus_owner in schema pgmq_bus grant select on tables to stranger",
        "default privileges of pgmq_bus_owner in schema pgmq_bus: SELECT on new objects granted to stranger",
    ),
    (
        "alter default privileges for role pgmq_bus_owner grant execute on functions to public",
        "default privileges of pgmq_bus_owner: functions it creates would be open to PUBLIC",
    ),
    # Roles.
    *[
        (f"alter role {{login}} {attribute}", f"role {{login}}: has {attribute}")
        for attribute in ("SUPERUSER", "CREATEROLE", "CREATEDB", "BYPASSRLS", "REPLICATION", "NOINHERIT", "NOLOGIN")
    ],
    ("alter role {role} login", "role {role}: has LOGIN"),
    ("alter role pgmq_bus_client createdb", "role pgmq_bus_client: has CREATEDB"),
    ("alter role {login} connection limit 5", "role {login}: has CONNECTION LIMIT 5 instead of 101"),
    ("alter role {login} valid until '2020-01-01'", "role {login}: is VALID UNTIL 2020-01-01"),
    ("alter role {login} set search_path = public", "role {login}: its session defaults are ("),
    ("alter role {login} reset statement_timeout", "role {login}: its session defaults are ("),
    ("alter role {login} in database {database} set search_path = public", "its session defaults in this database are (search_path=public) instead of ()"),
    ("alter role {role} set work_mem = '1GB'", "role {role}: its session defaults are (work_mem=1GB) instead of ()"),
    # Memberships.
    ("grant {role} to stranger", "role stranger: is a member of {role}"),
    ("grant pgmq_bus_owner to stranger", "role stranger: is a member of pgmq_bus_owner"),
    ("grant pgmq_bus_client to stranger", "role stranger: is a member of pgmq_bus_client"),
    ("grant stranger to {login}", "role {login}: is a member of stranger"),
    ("grant pgmq_bus_owner to {role}", "role {role}: is a member of pgmq_bus_owner"),
    ("grant pg_read_all_data to pgmq_bus_client", "role pgmq_bus_client: is a member of pg_read_all_data"),
    ("grant {role} to {login} with admin option", "role {login}: is a member of {role} WITH ADMIN OPTION"),
    ("revoke {role} from {login}", "role {login}: is no member of {role}"),
    ("revoke pgmq_bus_client from {role}", "role {role}: is no member of pgmq_bus_client"),
    ("create role bus_login_{token}_g9 login in role {role}", "role bus_login_{token}_g9: is a member of {role}"),
    # The registry.
    ("grant select on pgmq_bus.peer to stranger", "table pgmq_bus.peer: SELECT granted to stranger"),
    ("grant select (wake) on pgmq_bus.channel to public", "table pgmq_bus.channel: SELECT (wake) granted to PUBLIC"),
    ("grant usage on sequence pgmq_bus.peer_id_seq to stranger", "sequence pgmq_bus.peer_id_seq: USAGE granted to stranger"),
    ("revoke update on pgmq_bus.peer from pgmq_bus_owner", "table pgmq_bus.peer: UPDATE revoked from its owner"),
    ("alter table pgmq_bus.login owner to postgres", "table pgmq_bus.login: belongs to postgres"),
    (
        "create function strange.f() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger planted before insert on pgmq_bus.peer for each row execute function strange.f()",
        "table pgmq_bus.peer: trigger planted was added",
    ),
    ("create rule planted as on insert to pgmq_bus.peer do also nothing", "table pgmq_bus.peer: rule planted was added"),
    ("alter table pgmq_bus.peer enable row level security", "table pgmq_bus.peer: row security was added"),
    ("create policy planted on pgmq_bus.peer using (true)", "table pgmq_bus.peer: policy planted was added"),
    ("drop index pgmq_bus.peer_former_queue_idx", "table pgmq_bus.peer: index pgmq_bus.peer_former_queue_idx is missing"),
    ("alter table pgmq_bus.peer drop constraint peer_channel_id_name_key", "constraint peer_channel_id_name_key is missing"),
    ("alter table pgmq_bus.login drop constraint login_channel_id_fkey", "constraint login_channel_id_fkey is missing"),
    ("alter table pgmq_bus.channel add constraint planted check (id < 1000000)", "constraint planted was added"),
    ("delete from pgmq_bus.channel_gate", "table pgmq_bus.channel_gate: the row of the channel is missing"),
    ("delete from pgmq_bus.channel_state", "table pgmq_bus.channel_state: the row of the channel is missing"),
    # A log.
    ("grant select on {log} to {login}", "table {log}: SELECT granted to {login}"),
    ("grant select (message) on {log} to public", "table {log}: SELECT (message) granted to PUBLIC"),
    ("grant usage on sequence {log}_msg_id_seq to stranger", "sequence {log}_msg_id_seq: USAGE granted to stranger"),
    ("alter table {log} owner to stranger", "table {log}: belongs to stranger"),
    ("create rule planted as on insert to {log} do also nothing", "table {log}: rule planted was added"),
    ("alter table {log} enable row level security", "table {log}: row level security was switched on"),
    ("drop table {log}", "table {log}: is missing"),
    ("drop table {archive}", "table {archive}: is missing"),
    ("alter table {log} drop constraint q_bus_{token}_pkey", "table {log}: its primary key is missing"),
    ("drop index {log}_vt_idx", "table {log}: its index is missing"),
    ("delete from pgmq.meta where queue_name = 'bus_{token}'", "table pgmq.meta: the row of queue bus_{token} is missing"),
]  # fmt: skip
"""Statements of a superuser, and words of the difference; the operator puts it right."""

STRANGE: list[tuple[str, str, str, str]] = [
    (
        "create function public.bus_join(varchar) returns text language sql as 'select null::text'",
        "function public.bus_join(character varying): can be called in place of a function of the bus, owner postgres",
        "drop routine public.bus_join(character varying)",
        "drop function public.bus_join(varchar)",
    ),
    (
        "create table pgmq_bus.planted (a integer)",
        "table pgmq_bus.planted: does not belong there",
        "drop table or view pgmq_bus.planted after a look at it",
        "drop table pgmq_bus.planted",
    ),
    (
        "alter table pgmq_bus.peer add column planted integer",
        "table pgmq_bus.peer: column planted was added",
        "alter table pgmq_bus.peer so that it has not column planted integer",
        "alter table pgmq_bus.peer drop column planted",
    ),
    (
        "create function pgmq.create(queue_name varchar) returns void language sql as 'select'",
        "function pgmq.create(character varying): is none of PGMQ's, and functions of the bus may call it, owner postgres",
        'drop routine pgmq."create"(character varying)',
        "drop function pgmq.create(varchar)",
    ),
]
"""Statement, difference, remedy, and the statement that ends it; the operator leaves it to somebody else."""
