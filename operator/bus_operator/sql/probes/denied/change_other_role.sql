-- change another channel's role
alter role {{other_role}} nologin
