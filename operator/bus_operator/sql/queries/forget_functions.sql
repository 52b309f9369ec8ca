-- What was recorded at the installation is no longer so: the next plan makes the functions anew.
update pgmq_bus.installation set functions_fingerprint = null
