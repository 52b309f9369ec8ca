-- The schema's version, whatever else somebody may have done to the table.
select (to_jsonb(i) ->> 'schema_version')::integer from pgmq_bus.installation as i
