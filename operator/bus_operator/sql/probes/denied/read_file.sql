-- read files of the server
select pg_read_file('PG_VERSION')
