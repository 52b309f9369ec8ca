-- read who may connect
select type from pg_catalog.pg_hba_file_rules
