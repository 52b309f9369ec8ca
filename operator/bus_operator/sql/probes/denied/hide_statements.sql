-- keep its statements out of the log
set log_statement = none
