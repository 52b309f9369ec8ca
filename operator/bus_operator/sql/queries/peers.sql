-- The peers of the channels with these wire names, or of all where $1 is null: who they are, how far behind, since when silent.
-- Materialized: else the head and the generation are looked up for each peer, and thrice.
with head as materialized (
    select
        c.*,
        pgmq_bus.head(c.id) as head,
        (select max(l.generation) from pgmq_bus.login as l
         where l.channel_id = c.id and l.published_at is not null and l.verifier <> '') as current_generation
    from pgmq_bus.channel as c
    where $1::text[] is null or c.name = any ($1)
)
select
    c.name as channel, c.owner_reference,
    p.name as durable, p.host, p.application, p.runtime, p.is_foreign,
    l.generation,
    -- A login that is not even registered any more is one that has ended.
    coalesce(l.generation < c.current_generation, true) as is_retired,
    case when p.listens then 'listen' when p.address is not null then 'doorbell' else 'poll' end as wake,
    -- It says that it listens only when it does not rely on its doorbell.
    p.listens and p.address is not null as is_deaf,
    coalesce(pgmq_bus.given_between(c.id, p.acknowledged, c.head), 0) as behind,
    case when p.acknowledged < c.head then pgmq_bus.age_after(c.queue, p.acknowledged) end as behind_seconds,
    p.last_seen, p.joined_at,
    extract(epoch from clock_timestamp() - p.last_seen)::double precision as silent_seconds,
    extract(epoch from c.peer_timeout)::double precision as timeout_seconds,
    p.last_seen > clock_timestamp() - c.peer_timeout as is_live,
    p.redelivered, p.lost,
    -- Since when there is a later process of its pod: one that joined when this one was not heard of any more.
    case when p.name is null and p.host is not null
        then extract(epoch from clock_timestamp() - nullif(greatest(p.last_seen, max(p.joined_at) over later), p.last_seen))
    end::double precision as succeeded_seconds
from head as c
join pgmq_bus.peer as p on p.channel_id = c.id
left join pgmq_bus.login as l on l.role = p.login::text and l.channel_id = c.id
window later as (
    partition by c.id, p.host, p.application, p.name order by p.joined_at, p.queue
    rows between 1 following and unbounded following
)
order by c.name, p.name nulls last, p.host, p.joined_at
