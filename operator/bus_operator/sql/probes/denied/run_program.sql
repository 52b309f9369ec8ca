-- run a program on the server
copy (select 1) to program 'true'
