"""What kopf is told."""

from itertools import islice

from bus_operator import handlers


def test_watches_are_tried_again_soon_and_for_ever() -> None:
    """However long there was no API server, it is watched at once when it is back, and its absence ends no process."""
    pauses = list(islice(handlers.settings(500).networking.error_backoffs, 10_000))
    assert len(pauses) == 10_000
    assert max(pauses) <= 2


def test_a_page_of_the_largest_objects_fits_into_the_memory() -> None:
    """The API server takes 1.5 MB in each; a page is read as bytes and as text, and parsed."""
    assert handlers.settings(1).watching.chunk_size * 1.5 * 3 <= 100


def test_where_objects_are_small_a_list_takes_few_pages() -> None:
    """kopf tells of no event before its list has ended."""
    assert handlers.settings(500).watching.chunk_size == 500
