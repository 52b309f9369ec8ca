"""What kopf is told."""

from itertools import islice

from bus_operator import handlers


def test_watches_are_tried_again_soon_and_for_ever() -> None:
    """However long there was no API server, it is watched at once when it is back, and its absence ends no process."""
    pauses = list(islice(handlers.settings().networking.error_backoffs, 10_000))
    assert len(pauses) == 10_000
    assert max(pauses) <= 2
