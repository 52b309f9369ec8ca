-- read all tables of the server
set role pg_read_all_data
