-- create functions in schema public
create function public.bus_join(integer) returns integer language sql as 'select 1'
