-- make itself a superuser
alter role {{login}} superuser
