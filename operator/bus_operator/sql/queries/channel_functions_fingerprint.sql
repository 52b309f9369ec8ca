-- Changes with any change of a channel's own functions: text, owner, privileges, a missing or an extra one. $1 are the channels'
-- numbers and $2 the names of their functions, one of each a line.
select f.channel_id, md5(coalesce(string_agg(f.line, E'\n' order by f.identity), '')) as fingerprint
from (
    select
        wanted.channel_id,
        p.oid::regprocedure::text as identity,
        case when p.oid is not null then
            concat_ws(
                '|',
                p.oid::regprocedure::text,
                case p.prokind when 'a' then '' else pg_get_functiondef(p.oid) end,
                p.proowner::regrole::text,
                p.proacl::text
            )
        end as line
    from unnest($1::integer[], $2::text[]) as wanted (channel_id, name)
    left join pg_proc as p on p.proname = wanted.name and p.pronamespace = to_regnamespace('pgmq_bus_channel')
) as f
group by f.channel_id
