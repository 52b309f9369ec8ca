-- Runs the statements in the setting pgmq_bus.probes, a JSON array of texts, each so that nothing of it remains; and puts there what
-- became of each: SQLSTATE and message, BUS00 for what succeeded. As the login, in one round trip, in a transaction that the
-- caller rolls back.
do $probes$
declare
    statement text;
    state text;
    words text;
    results jsonb := '[]';
begin
    for statement in select p.value from jsonb_array_elements_text(current_setting('pgmq_bus.probes')::jsonb) as p loop
        begin
            execute statement;
            raise exception using errcode = 'BUS00';
        exception when others then
            get stacked diagnostics state = returned_sqlstate, words = message_text;
            results := results || jsonb_build_array(jsonb_build_array(state, words));
        end;
    end loop;
    perform set_config('pgmq_bus.probes', results::text, true);
end
$probes$
