-- A log that was made anew goes on where the lost one cannot have been: lower ids would be behind the cursors of peers. They are
-- told that what they had not read is lost.
select pgmq_bus.recover(id) from pgmq_bus.channel where queue = $1
