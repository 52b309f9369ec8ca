-- What is told of a login's way from being issued to being retired. Those that are there were written to a binding.
alter table pgmq_bus.login
    add column published_at timestamptz,
    add column request text,
    add column unused_since timestamptz,
    add column warned_at timestamptz;
update pgmq_bus.login set published_at = created_at;
comment on column pgmq_bus.login.published_at is 'When the binding held it first. The one that was published last is current, earlier ones retire.';
comment on column pgmq_bus.login.request is 'A digest of what had asked for a rotation last when it was issued: each asks once.';
comment on column pgmq_bus.login.unused_since is 'Since when nobody was seen to use it, where that was looked for.';
comment on column pgmq_bus.login.warned_at is 'When it was told who still uses it.';
