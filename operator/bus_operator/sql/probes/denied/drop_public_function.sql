-- drop the bus's functions
drop function public.bus_join(text)
