-- reload the server's configuration
select pg_reload_conf()
