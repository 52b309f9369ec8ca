-- The wire names of all channels, for the shell's completion.
select name from pgmq_bus.channel order by name
