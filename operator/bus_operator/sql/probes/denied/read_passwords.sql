-- read the verifiers of all roles
select rolpassword from pg_catalog.pg_authid
