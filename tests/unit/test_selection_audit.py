"""Which namespaces are looked into next for pods without their binding."""

from bus_operator.selection_audit import next_in_turn


def test_every_namespace_has_its_turn() -> None:
    namespaces = {"a", "b", "c", "d", "e"}
    first = next_in_turn(namespaces, "", most=2)
    second = next_in_turn(namespaces, first[-1], most=2)
    third = next_in_turn(namespaces, second[-1], most=2)
    assert (first, second, third) == (["a", "b"], ["c", "d"], ["e", "a"])


def test_few_are_all_looked_into_whatever_came_and_went() -> None:
    assert next_in_turn({"b", "a"}, "zzz") == ["a", "b"]
    assert next_in_turn({"b", "a"}, "a") == ["b", "a"]
    assert next_in_turn(set(), "a") == []
