-- write all tables of the server
set role pg_write_all_data
