-- How this database keeps text.
select pg_encoding_to_char(encoding)::text as encoding, datcollate::text as collation, datctype::text as ctype
from pg_database
where datname = current_database()
