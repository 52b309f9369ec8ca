select case when $2 then pgmq.create_unlogged($1) else pgmq.create($1) end
