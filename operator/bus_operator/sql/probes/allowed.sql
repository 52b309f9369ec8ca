-- Everything a peer does, without a trace: the peer is rolled back, and so is what would wake others. Nothing is published,
-- since that would use up ids and make publishers wait: a call without a message is refused by the function, which shows that it may
-- be called, and it makes the same check of membership as the others.
do $allowed$
declare
    joined jsonb;
    queue text;
begin
    perform set_config('lock_timeout', '500ms', true);
    joined := pgmq_bus_v1.join_channel({{channel}}, '{"application": "pgmq-bus-operator"}');
    queue := joined ->> 'queue';
    perform pgmq_bus_v1.roster({{channel}}, queue);
    perform pgmq_bus_v1.wake_by({{channel}}, queue, null, false);
    perform pgmq_bus_v1.notify({{channel}}, queue);
    perform r.msg_id
    from pgmq_bus_channel.{{own_read}}(queue, (joined ->> 'position')::bigint, (joined ->> 'position')::bigint, 1, null) as r;
    begin
        perform p.ids from pgmq_bus_channel.{{own_publish}}(queue, '{}') as p;
    exception when invalid_parameter_value then
        null;
    end;
    perform pgmq_bus_v1.leave({{channel}}, queue);
    queue := public.bus_join({{channel}});
    begin
        perform public.bus_publish({{channel}}, queue, null);
    exception when invalid_parameter_value then
        null;
    end;
    perform s.msg_id from public.bus_subscribe(queue, {{channel}}, 1, 1, 0) as s;
    perform public.bus_archive(queue, {{channel}}, 0);
    perform public.bus_leave(queue, {{channel}});
end
$allowed$
