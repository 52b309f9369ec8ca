-- write files of the server
copy (select 1) to '/dev/null'
