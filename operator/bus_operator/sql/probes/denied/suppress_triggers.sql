-- switch triggers off
set session_replication_role = replica
