"""The acknowledged position moves only over what is handled, whatever the order of handling."""

import itertools

import pytest

from bus_runtime.acknowledgement import AcknowledgementTracker


@pytest.mark.parametrize("order", list(itertools.permutations([3, 5, 8, 9])))
def test_position_is_the_last_of_the_handled_prefix(order: tuple[int, ...]) -> None:
    tracker = AcknowledgementTracker(2)
    ids = [3, 5, 8, 9]
    for msg_id in ids:
        tracker.add(msg_id)
    done: set[int] = set()
    for msg_id in order:
        before = tracker.position
        moved = tracker.complete(msg_id)
        done.add(msg_id)
        prefix = list(itertools.takewhile(done.__contains__, ids))
        assert tracker.position == (prefix[-1] if prefix else 2)
        assert moved == (tracker.position != before)
        assert tracker.in_flight == len(ids) - len(done)
