select has_table_privilege('pg_authid', 'SELECT')
