"""Names of objects in PostgreSQL: what they tell, how long they are, that they do not collide."""

import re

from bus_operator import naming


def test_names_follow_one_token():
    names = naming.new_channel_names()
    token = names.queue.removeprefix("bus_")
    assert re.fullmatch(r"[0-9a-f]{12}", token)
    assert names.role == f"bus_channel_{token}"
    assert naming.login_name(names.role, 7) == f"bus_login_{token}_g7"
    assert naming.channel_functions(names.queue) == (f"publish_{token}", f"read_{token}")


def test_names_are_new_each_time():
    assert len({naming.new_channel_names().role for _ in range(100)}) == 100


def test_names_fit_an_identifier_and_pgmqs_limit():
    names = naming.new_channel_names()
    assert len(names.queue) <= 47  # pgmq.validate_queue_name
    assert len(naming.login_name(names.role, 10**12)) <= 63


def test_defaults_of_kubernetes_names():
    assert naming.binding_secret("orders") == "orders-bus"
    assert naming.default_wire_name("team", "orders") == "team.orders"


def test_shards_are_named_after_their_first():
    assert [naming.shard_database("app", index) for index in (0, 1, 12)] == ["app", "app_bus_1", "app_bus_12"]
