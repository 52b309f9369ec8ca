-- load files of the server
select lo_import('/dev/null')
