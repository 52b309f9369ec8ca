-- list files of the server
select pg_ls_dir('.')
