-- become the administrator
set role {{administrator}}
