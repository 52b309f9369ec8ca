-- What the private schema's relations consist of, one fact a row: the shape of ../structure.txt.
select format('%s %s', r.relname, f.fact) as line
from pg_class as r
cross join lateral (
    select format('relation %s%s', r.relkind, r.relpersistence) as fact
    union all
    select format(
        'column %s %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
        ' collate ' || nullif(nullif(a.attcollation, 0)::regcollation::text, '"default"'), case when a.attnotnull then ' not null' end
    ) || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') || coalesce(' identity ' || nullif(a.attidentity::text, ''), '')
    from pg_attribute as a
    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped and r.relkind in ('r', 'v')
    union all
    select format('constraint %s %s', c.conname, pg_get_constraintdef(c.oid))
    from pg_constraint as c
    -- From PostgreSQL 18 on, NOT NULL is a constraint as well.
    where c.conrelid = r.oid and c.contype <> 'n'
    union all
    select format('index %s %s', i.indexrelid::regclass, pg_get_indexdef(i.indexrelid))
    from pg_index as i
    where i.indrelid = r.oid and not exists (select from pg_constraint as c where c.conindid = i.indexrelid and c.conrelid = r.oid)
    union all
    select format('trigger %s', t.tgname) from pg_trigger as t where t.tgrelid = r.oid and not t.tgisinternal
    union all
    select format('rule %s', u.rulename) from pg_rewrite as u where u.ev_class = r.oid and u.rulename <> '_RETURN'
    union all
    select format('policy %s', p.polname) from pg_policy as p where p.polrelid = r.oid
    union all
    select 'row security' where r.relrowsecurity or r.relforcerowsecurity
) as f
where r.relnamespace = 'pgmq_bus'::regnamespace and r.relkind in ('r', 'v', 'm', 'f', 'p', 'S')
order by line
