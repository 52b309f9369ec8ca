-- read the verifiers of all logins
select verifier from pgmq_bus.login
