-- How old the first message after $1 is; no row where there is none.
select clock_timestamp() - l.enqueued_at as age
from pgmq.{{log}} as l
where l.msg_id > $1
order by l.msg_id
limit 1
