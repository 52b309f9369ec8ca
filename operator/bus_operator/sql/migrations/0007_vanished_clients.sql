-- Version 7: a session whose client's machine has vanished ends after a minute. Logins that are there get what new ones have
-- from the start. What another administrator made is left to the look for drift, which names what is wrong and why.
do $$
declare
    login text;
begin
    for login in select r.rolname from pgmq_bus.login as l join pg_roles as r on r.rolname = l.role loop
        begin
            execute format('alter role %I set tcp_keepalives_idle to 30', login);
            execute format('alter role %I set tcp_keepalives_interval to 10', login);
            execute format('alter role %I set tcp_keepalives_count to 3', login);
            execute format('alter role %I set tcp_user_timeout to ''60s''', login);
        exception when insufficient_privilege then
            null;
        end;
    end loop;
end
$$;
