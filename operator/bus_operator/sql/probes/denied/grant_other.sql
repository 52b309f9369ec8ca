-- make itself a member of another channel's role
grant {{other_role}} to {{login}}
