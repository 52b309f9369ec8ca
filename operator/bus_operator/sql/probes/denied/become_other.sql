-- become another channel's role
set role {{other_role}}
