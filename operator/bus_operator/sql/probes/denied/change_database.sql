-- change the database's settings
alter database {{database}} set work_mem = '1MB'
