-- read files of the server
set role pg_read_server_files
