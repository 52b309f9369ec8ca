"""What pods ask for by label and annotation."""

from typing import Any

import pytest

from bus_operator.pod_requests import MAX_CHANNELS, MalformedPodError, Request, may_be_selected, requested_channels

LONG = "a" * 63

Pod = dict[str, Any]


def labelled(value: str | None, label: str = "true") -> Pod:
    annotations = {} if value is None else {"pgmqbus.dev/channels": value}
    return {"metadata": {"labels": {"pgmqbus.dev/inject": label}, "annotations": annotations}}


@pytest.mark.parametrize(
    ("value", "channels"),
    [
        ("orders", ("orders",)),
        ("orders,audit", ("orders", "audit")),
        (" orders ,\n audit, ", ("orders", "audit")),
        ("b,a,b,c,a", ("b", "a", "c")),
        (f"eu.orders-1,{LONG}", ("eu.orders-1", LONG)),
    ],
)
def test_requested_channels(value: str, channels: tuple[str, ...]) -> None:
    request = requested_channels(labelled(value))
    assert request.channels == channels
    assert request.warnings == ()


@pytest.mark.parametrize(
    "bad",
    ["Orders", "../etc", "a/b", "a..b", ".a", "-a", "a-", "a b", "a:b", "ordé", "a" * 64, "~1", "a\x00"],
)
def test_a_bad_name_is_skipped_and_named_while_the_others_are_kept(bad: str) -> None:
    request = requested_channels(labelled(f"orders,{bad},audit"))
    assert request.channels == ("orders", "audit")
    (warning,) = request.warnings
    assert warning.startswith("annotation pgmqbus.dev/channels: skipped '")
    assert repr(bad[:31])[:-1] in warning
    assert "lower case letters, digits, '-' and '.'" in warning


def test_many_bad_names_make_one_warning_of_a_length_that_is_shown() -> None:
    (warning,) = requested_channels(labelled(",".join(f"{'X' * 200}{n}" for n in range(1000)))).warnings
    assert "and 997 more" in warning
    assert len(warning) <= 256, "the API server may cut longer ones"


@pytest.mark.parametrize("value", [None, "", " , "])
def test_asking_for_nothing_says_what_to_write(value: str | None) -> None:
    request = requested_channels(labelled(value))
    assert request.channels == ()
    assert request.warnings == (
        "label pgmqbus.dev/inject is set but no BusChannel is named:"
        ' add an annotation such as pgmqbus.dev/channels: "orders,audit"',
    )


@pytest.mark.parametrize(
    "unlabelled", [{}, {"metadata": None}, labelled("orders", "false"), {"metadata": {"labels": None}}]
)
def test_without_the_label_nothing_is_asked(unlabelled: Pod) -> None:
    assert requested_channels(unlabelled) == requested_channels({})
    assert requested_channels(unlabelled).channels == ()


def asking(label: str | None, channels: str | None) -> Pod:
    labels = {} if label is None else {"pgmqbus.dev/inject": label}
    return {
        "metadata": {"labels": labels, "annotations": {} if channels is None else {"pgmqbus.dev/channels": channels}}
    }


@pytest.mark.parametrize(
    ("label", "channels", "request_"),
    [
        ("true", "orders", Request(("orders",))),
        ("true", None, Request(("a", "b"))),
        ("true", " ,", Request(("a", "b"))),
        (None, "orders", Request(("orders",))),
        (None, "", Request(("a", "b"), asked=False)),
        (None, None, Request(("a", "b"), asked=False)),
        ("false", "orders", Request()),
        ("false", None, Request()),
        ("", None, Request()),
    ],
)
def test_a_selected_pod(label: str | None, channels: str | None, request_: Request) -> None:
    assert requested_channels(asking(label, channels), ("a", "b")) == request_


@pytest.mark.parametrize(
    ("label", "channels", "matters"),
    [
        ("true", "orders", False),
        ("true", "", True),
        (None, "orders", True),
        (None, None, True),
        ("false", None, False),
    ],
)
def test_whether_selectors_matter(label: str | None, channels: str | None, matters: bool) -> None:
    assert may_be_selected(asking(label, channels)) is matters


def test_more_selecting_channels_than_allowed() -> None:
    request = requested_channels(asking(None, None), [f"c{n:03}" for n in range(MAX_CHANNELS + 1)])
    assert request.channels == tuple(f"c{n:03}" for n in range(MAX_CHANNELS))
    assert request.warnings == ("101 BusChannels select the pod: only the first 100 by name are injected",)


def test_more_channels_than_allowed() -> None:
    request = requested_channels(labelled(",".join(f"c{n}" for n in range(MAX_CHANNELS + 1))))
    assert request.channels == tuple(f"c{n}" for n in range(MAX_CHANNELS))
    assert request.warnings == ("annotation pgmqbus.dev/channels: only the first 100 of 101 are injected",)


@pytest.mark.parametrize(
    "malformed",
    [
        {"metadata": []},
        {"metadata": {"labels": "x"}},
        {"metadata": {"labels": {"pgmqbus.dev/inject": "true"}, "annotations": {"pgmqbus.dev/channels": 5}}},
    ],
)
def test_malformed_metadata(malformed: Pod) -> None:
    with pytest.raises(MalformedPodError, match=r"^/metadata"):
        requested_channels(malformed)
