select pgmq.drop_queue($1)
