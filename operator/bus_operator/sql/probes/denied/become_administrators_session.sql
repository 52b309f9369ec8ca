-- become the administrator's session
set session authorization {{administrator}}
