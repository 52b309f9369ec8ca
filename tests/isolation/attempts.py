"""What somebody with a login tries against what is not his own, one attempt a row, and what he gets.

Two try each: a login of another channel of the same database, and one of another database of the server. The tests make every
attempt on every server; docs/threat-model.md shows the table.
"""
# ruff: noqa: E501  a table, with a row a line

from dataclasses import dataclass

DENIED = "42501"
"""insufficient_privilege."""

ALLOWED = "allowed"
"""PostgreSQL lets everybody; what it is worth stands beside it."""


@dataclass(frozen=True)
class Attempt:
    """One statement and its SQLSTATE, or ALLOWED and why that is harmless, or what it costs.

    Names in braces: {login}, {token}, {queue} are the own channel's, {victim}, {victim_queue}, {victim_login}, {victim_role},
    {victim_name}, {message} the other's; {database} is where both are.
    """

    statement: str
    gets: str = DENIED
    remark: str = ""


SUBJECTS: dict[str, list[Attempt]] = {
    "Functions of the bus, with the victim's channel, queue and message id": [
        Attempt("select public.bus_join('{victim_name}')"),
        Attempt("select public.bus_publish('{victim_name}', '{victim_queue}', '1')"),
        Attempt("select public.bus_publish('own', '{victim_queue}', '1')"),
        Attempt("select public.bus_publish('{victim_name}', '{queue}', '1')"),
        Attempt("select * from public.bus_subscribe('{victim_queue}', '{victim_name}', 30, 100, 0)"),
        Attempt("select * from public.bus_subscribe('{victim_queue}', 'own', 30, 100, 0)"),
        Attempt("select public.bus_archive('{victim_queue}', '{victim_name}', {message})"),
        Attempt("select public.bus_archive('{victim_queue}', 'own', {message})"),
        Attempt("select public.bus_leave('{victim_queue}', '{victim_name}')", ALLOWED, "says and does nothing"),
        Attempt("select pgmq_bus_v1.join_channel('{victim_name}', null)"),
        Attempt("select pgmq_bus_v1.join_channel('{victim_name}', '{{\"peer\": \"victim\"}}')"),
        Attempt("select pgmq_bus_v1.publish('{victim_name}', '{victim_queue}', array['1'::jsonb])"),
        Attempt("select * from pgmq_bus_v1.read('{victim_name}', '{victim_queue}', 0, {message}, 30, 100)"),
        Attempt("select pgmq_bus_v1.roster('{victim_name}', '{victim_queue}')"),
        Attempt("select pgmq_bus_v1.notify('{victim_name}', '{victim_queue}')"),
        Attempt("select pgmq_bus_v1.wake_by('{victim_name}', '{victim_queue}', '10.0.0.1:4000', true)"),
        Attempt(
            "select pgmq_bus_v1.leave('{victim_name}', '{victim_queue}')",
            ALLOWED,
            "returns false, as for what never was",
        ),
        Attempt("select * from pgmq_bus_channel.publish_{victim}('{victim_queue}', array['1'])"),
        Attempt("select * from pgmq_bus_channel.read_{victim}('{victim_queue}', 0, {message}, 100, null)"),
        Attempt("select * from pgmq_bus_channel.publish_{token}('{victim_queue}', array['1'])"),
        Attempt("select * from pgmq_bus_channel.read_{token}('{victim_queue}', 0, {message}, 100, null)"),
        Attempt(
            "prepare p as select * from pgmq_bus_channel.read_{victim}('{victim_queue}', 0, null, 100, null); execute p"
        ),
        Attempt(
            "begin; declare c cursor for select * from pgmq_bus_channel.read_{victim}('{victim_queue}', 0, null, 100, null); fetch all c"
        ),
        Attempt(
            "declare c cursor with hold for select * from public.bus_subscribe('{victim_queue}', '{victim_name}', 30, 100, 0)"
        ),
        Attempt("do $$ begin perform pgmq_bus_channel.publish_{victim}('{victim_queue}', array['1']); end $$"),
    ],
    "The registry, the logs, PGMQ and what the functions use": [
        Attempt("select * from pgmq_bus.channel"),
        Attempt("select wake, doorbell_key from pgmq_bus.channel"),
        Attempt("select * from pgmq_bus.membership"),
        Attempt("insert into pgmq_bus.peer default values"),
        Attempt("update pgmq_bus.peer set acknowledged = 0"),
        Attempt("begin; lock table pgmq_bus.channel in access share mode"),
        Attempt("select from pgmq_bus.channel for update"),
        Attempt("copy pgmq_bus.login to stdout"),
        Attempt("select * from pgmq.q_bus_{victim}"),
        Attempt("insert into pgmq.q_bus_{victim} default values"),
        Attempt("delete from pgmq.q_bus_{token}"),
        Attempt("truncate pgmq.q_bus_{victim}"),
        Attempt("select pg_catalog.setval('pgmq.q_bus_{victim}_msg_id_seq', 1)"),
        Attempt("select pg_catalog.pg_sequence_last_value('pgmq.meta'::pg_catalog.regclass)"),
        Attempt(
            "create trigger planted after insert on pgmq.q_bus_{victim} execute function pg_catalog.suppress_redundant_updates_trigger()"
        ),
        Attempt("create rule planted as on insert to pgmq.q_bus_{token} do also nothing"),
        Attempt("create temp table child () inherits (pgmq.q_bus_{victim})"),
        Attempt("create temp table copied (like pgmq.q_bus_{victim})"),
        Attempt("create temp view seen as select * from pgmq.q_bus_{victim}"),
        Attempt("create temp table referring (queue text references pgmq_bus.peer)"),
        Attempt("select pgmq_bus.recover(1)"),
        Attempt("select pgmq_bus.lock_channel(1)"),
        Attempt("select pgmq_bus.notify_listeners('x')"),
        Attempt("select pgmq.create('mine')"),
        Attempt("select pgmq.send('bus_{victim}', '1')"),
        Attempt("select * from pgmq.read('bus_{victim}', 1, 1)"),
        Attempt("select pgmq.purge_queue('bus_{victim}')"),
        Attempt("select pgmq.drop_queue('bus_{victim}')"),
        Attempt("vacuum pgmq_bus.peer"),
        Attempt("reindex table pgmq.q_bus_{victim}"),
        Attempt(
            "select pg_catalog.pg_relation_size(oid) from pg_catalog.pg_class where relname = 'q_bus_{victim}'",
            ALLOWED,
            "how large a log is, under a random name; see above",
        ),
        Attempt(
            "select n_tup_ins from pg_catalog.pg_stat_all_tables where relname = 'q_bus_{victim}'",
            ALLOWED,
            "how much is published, under a random name; see above",
        ),
    ],
    "Being somebody else": [
        Attempt("set role pgmq_bus_owner"),
        Attempt("set role {victim_role}"),
        Attempt("set role {victim_login}"),
        Attempt("set role postgres"),
        Attempt("select pg_catalog.set_config('role', 'pgmq_bus_owner', false)"),
        Attempt("set session authorization pgmq_bus_owner"),
        Attempt("set session authorization {victim_login}"),
        Attempt("select pg_catalog.set_config('session_authorization', 'postgres', false)"),
        Attempt("grant pgmq_bus_owner to current_user"),
        Attempt("grant {victim_role} to current_user"),
        Attempt("grant {login} to {victim_login}"),
        Attempt("grant pg_read_all_data to current_user"),
        Attempt("alter role current_user superuser"),
        Attempt("alter role current_user createrole"),
        Attempt("alter role current_user connection limit -1"),
        Attempt("alter role {victim_login} password 'x'"),
        Attempt("alter role {victim_login} set search_path to pg_temp"),
        Attempt("alter role pgmq_bus_owner set search_path to pg_temp"),
        Attempt("create role mine"),
        Attempt("drop role {victim_login}"),
        Attempt("drop owned by pgmq_bus_owner"),
        Attempt("set role pgmq_bus_client", ALLOWED, "the group of all channels' roles: it may what each login may"),
        Attempt(
            "drop owned by pgmq_bus_client",
            ALLOWED,
            "only warns: what it was granted is for who granted it to take back",
        ),
        Attempt("reassign owned by pgmq_bus_owner to current_user"),
        Attempt("select pg_catalog.pg_terminate_backend({victim_pid})"),
        Attempt("select pg_catalog.pg_cancel_backend({victim_pid})"),
        Attempt("select rolpassword from pg_catalog.pg_authid"),
        Attempt("select passwd from pg_catalog.pg_shadow"),
    ],
    "Changing the functions, or planting what they would pick up": [
        Attempt(
            "create or replace function public.bus_join(p_channel text) returns text language sql as $$ select 'x' $$"
        ),
        Attempt(
            "create or replace function pgmq_bus_channel.publish_{token}(p_queue text, p_messages text[], out ids bigint[], out roster bigint) language sql as 'select null::bigint[], 1::bigint'"
        ),
        Attempt("create function public.bus_join(p_channel varchar) returns text language sql as $$ select 'x' $$"),
        Attempt("create function pgmq_bus_v1.f() returns text language sql as ''"),
        Attempt("create function pgmq_bus_channel.f() returns text language sql as ''"),
        Attempt("create function pg_catalog.length(text, text) returns integer language sql as 'select 1'"),
        Attempt("drop function public.bus_join(text)"),
        Attempt("alter function public.bus_join(text) security invoker"),
        Attempt("alter function public.bus_join(text) reset search_path"),
        Attempt("grant execute on function pgmq_bus_channel.publish_{victim} to public"),
        Attempt(
            "create operator pg_catalog.= (leftarg = text, rightarg = integer, function = pg_catalog.textregexeq)",
            remark="whatever the types",
        ),
        Attempt("create operator class pg_temp.planted default for type text using btree as operator 1 <(text, text)"),
        Attempt(
            "create cast (text as bigint) with inout as implicit", remark="a cast belongs to who owns one of its types"
        ),
        Attempt("create cast (jsonb as text) without function as implicit"),
        Attempt("alter type pg_catalog.text owner to current_user"),
        Attempt("create schema mine"),
        Attempt("create table public.peer ()"),
        Attempt("create domain public.planted as text"),
        Attempt(
            "create function pg_temp.f() returns event_trigger language plpgsql as 'begin end'; create event trigger planted on ddl_command_end execute function pg_temp.f()"
        ),
        Attempt("create extension hstore"),
        Attempt("create publication planted for all tables"),
        Attempt("alter default privileges for role pgmq_bus_owner grant execute on functions to public"),
        Attempt("alter database {database} set search_path to pg_temp"),
        Attempt("comment on schema pgmq_bus is 'x'"),
        Attempt("security label on schema pgmq_bus is 'x'", "22023", "no provider is loaded"),
    ],
    "Settings": [
        Attempt("set session_replication_role = replica"),
        Attempt("set log_statement = 'none'"),
        Attempt("set log_min_duration_statement = 0"),
        Attempt("set temp_file_limit = -1"),
        Attempt("set allow_system_table_mods = on"),
        Attempt("set dynamic_library_path = '/tmp'"),
        Attempt("set deadlock_timeout = 1"),
        Attempt("set commit_delay = 100000"),
        Attempt("alter system set work_mem = '1GB'"),
        Attempt("set search_path = pg_temp, public", ALLOWED, "its own"),
        Attempt("set statement_timeout = 0", ALLOWED, "its own; it may keep its own channel waiting"),
        Attempt(
            "set idle_in_transaction_session_timeout = 0", ALLOWED, "its own; it may keep vacuum waiting: see above"
        ),
        Attempt("set work_mem = '1GB'", ALLOWED, "its own; memory is shared by the server: see above"),
        Attempt("alter role current_user set work_mem = '1GB'", ALLOWED, "drift: taken back within a minute"),
        Attempt(
            "alter role current_user password 'changed'",
            ALLOWED,
            "its own login; where the administrator may see it, replaced",
        ),
    ],
    "The server's files, programs and processes": [
        Attempt("select pg_catalog.pg_read_file('PG_VERSION')"),
        Attempt("select pg_catalog.pg_read_binary_file('global/pg_control')"),
        Attempt("select pg_catalog.pg_ls_dir('.')"),
        Attempt("select pg_catalog.pg_stat_file('PG_VERSION')"),
        Attempt("select pg_catalog.lo_import('/etc/hostname')"),
        Attempt("select pg_catalog.lo_export(1, '/tmp/x')"),
        Attempt("copy (select 1) to program 'true'"),
        Attempt("copy (select 1) to '/tmp/x'"),
        Attempt("create temp table t (line text); copy t from '/etc/hostname'"),
        Attempt("load '/tmp/x.so'"),
        Attempt("create function pg_temp.f() returns integer language c as 'x', 'y'"),
        Attempt("create function pg_temp.f() returns integer language internal as 'pg_backend_pid'"),
        Attempt("select pg_catalog.pg_reload_conf()"),
        Attempt("select pg_catalog.pg_rotate_logfile()"),
        Attempt("select pg_catalog.pg_switch_wal()"),
        Attempt("select pg_catalog.pg_promote(false)"),
        Attempt("select pg_catalog.pg_stat_reset()"),
        Attempt("select pg_catalog.pg_log_backend_memory_contexts({victim_pid})"),
        Attempt("select * from pg_catalog.pg_hba_file_rules"),
        Attempt("select subconninfo from pg_catalog.pg_subscription"),
        Attempt("select pg_catalog.pg_create_physical_replication_slot('mine')"),
        Attempt("select pg_catalog.pg_create_logical_replication_slot('mine', 'pgoutput')"),
        Attempt(
            "create server mine foreign data wrapper missing",
            "42704",
            "none is installed; making one needs a superuser",
        ),
        Attempt("create foreign data wrapper mine"),
        Attempt("create tablespace mine location '/tmp'"),
        Attempt("create database mine"),
        Attempt("checkpoint"),
    ],
    "Locks, notifications, and transactions held open": [
        Attempt(
            "select pg_catalog.pg_advisory_lock(n) from pg_catalog.generate_series(1, 1000) as n",
            ALLOWED,
            "no function takes any; the table of locks is the server's: see above",
        ),
        Attempt("begin; lock table pg_catalog.pg_proc in access exclusive mode"),
        Attempt("begin; select from pg_catalog.pg_proc for share"),
        Attempt(
            "begin; do $$ begin perform pg_catalog.nextval(oid) from pg_catalog.pg_class where relname = 'q_bus_{victim}_msg_id_seq'; exception when insufficient_privilege then null; end $$",
            ALLOWED,
            "refused, but for a lock that the operator alone minds: it ends the session",
        ),
        Attempt(
            "begin; select pg_catalog.pg_get_viewdef(oid) from pg_catalog.pg_class where relname = 'membership'",
            ALLOWED,
            "its text, which is public, and a lock that a migration waits for: see above",
        ),
        Attempt("listen anything", ALLOWED, "wake names hold 122 random bits and change with the credentials"),
        Attempt("notify \"orders\", 'x'", ALLOWED, "wakes those that listen to it: nobody of the bus"),
        Attempt("select pg_catalog.pg_notify('x', pg_catalog.repeat('x', 8000))", "22023", "PostgreSQL's bound"),
        Attempt(
            "begin isolation level repeatable read; select 1",
            ALLOWED,
            "ended after 15 s, unless its session says otherwise: see above",
        ),
        Attempt(
            "begin; prepare transaction 'mine'", "55000", "max_prepared_transactions is 0, the default; else see above"
        ),
        Attempt("select pg_catalog.pg_export_snapshot()", ALLOWED, "of its own transaction"),
        Attempt(
            "select pg_catalog.lo_create(0)", ALLOWED, "storage; dropped with the login, unless made as the group above"
        ),
    ],
}
