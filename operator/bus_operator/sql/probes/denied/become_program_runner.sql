-- run programs on the server
set role pg_execute_server_program
