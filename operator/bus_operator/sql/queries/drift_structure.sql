-- What was added to the private schema's relations, or is gone from them. Columns: see drift_functions.sql.
-- $1: one channel's id, for which there is nothing to say, or null for everything. $2: what there should be, as in structure.txt.
with expected as (
    select l.line from unnest($2::text[]) as l (line) where $1::integer is null
),
actual as (
    select s.line from ({{structure}}) as s where $1::integer is null
),
differing as (
    select e.line, true as missing from expected as e where e.line not in (select a.line from actual as a)
    union all
    select a.line, false from actual as a where a.line not in (select e.line from expected as e)
),
parsed as (
    select d.line, d.missing, p[1] as relation, p[2] as kind, p[3] as name, p[4] as rest
    from differing as d
    cross join lateral regexp_match(d.line, '^(\S+) (relation|column|constraint|index|trigger|rule|policy|row) (\S+)(?: (.*))?$') as p
)
select
    null as channel,
    format('%s pgmq_bus.%s', case when p.relation ~ '_seq$' then 'sequence' else 'table' end, p.relation) as object,
    format(
        case
            when p.kind = 'relation' and p.missing then 'is missing'
            when p.kind = 'relation' then 'does not belong there'
            when p.missing then '%s %s is missing'
            else '%s %s was added'
        end,
        p.kind, p.name
    ) as problem,
    case
        when p.kind in ('trigger', 'rule', 'policy', 'row') or p.kind in ('constraint', 'index') then 'statement'
        else 'report'
    end as repair,
    case
        when p.kind = 'relation' and p.missing then 'restore it from a backup'
        when p.kind = 'relation' then format('drop table or view pgmq_bus.%I after a look at it', p.relation)
        when p.kind = 'column' and p.missing then format('alter table pgmq_bus.%I so that it has %s', p.relation, substr(p.line, length(p.relation) + 2))
        when p.kind = 'column' then format('alter table pgmq_bus.%I so that it has not %s', p.relation, substr(p.line, length(p.relation) + 2))
        when p.kind = 'constraint' and p.missing then format('alter table pgmq_bus.%I add constraint %I %s', p.relation, p.name, p.rest)
        when p.kind = 'constraint' then format('alter table pgmq_bus.%I drop constraint %I cascade', p.relation, p.name)
        when p.kind = 'index' and p.missing then p.rest
        when p.kind = 'index' then format('drop index %s', p.name)
        when p.kind = 'row' then format('alter table pgmq_bus.%I disable row level security, no force row level security', p.relation)
        else format('drop %s %I on pgmq_bus.%I', p.kind, p.name, p.relation)
    end as statement
from parsed as p
-- What was added goes before what is missing comes: they may have the same name.
order by p.missing, p.kind = 'constraint' and p.rest like 'FOREIGN KEY%', p.line
