select pgmq.create($1)
