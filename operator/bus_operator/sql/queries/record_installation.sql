insert into pgmq_bus.installation (schema_version, functions_fingerprint, pgmq_version)
values ($1, $2, $3)
on conflict (singleton) do update
set schema_version = excluded.schema_version,
    functions_fingerprint = excluded.functions_fingerprint,
    pgmq_version = coalesce(excluded.pgmq_version, installation.pgmq_version)
