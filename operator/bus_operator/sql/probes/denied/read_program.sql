-- read from a program on the server
copy pg_catalog.pg_class from program 'true'
