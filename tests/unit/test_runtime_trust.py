"""When doorbells are relied on, when no longer, and when again."""

import pytest

from bus_runtime import trust as module
from bus_runtime.trust import DoorbellTrust


class Scene:
    """A verdict and its clock; ids are announced in order unless a test says otherwise."""

    def __init__(self, hung: bool = True) -> None:
        self.now = 1000.0
        self.trust = DoorbellTrust(hung, lambda: self.now)
        self.next_id = 1

    @property
    def trusted(self) -> bool:
        return self.trust.trusted

    def ring(self, seconds: float = 0.0, count: int = 1, skip: int = 0) -> None:
        """After so many seconds, a ring arrives; before it, `skip` messages that nobody rings for."""
        self.now += seconds
        self.next_id += skip
        self.trust.rang(self.next_id, count)
        self.next_id += count

    def rings(self, seconds: float, every: float = 1.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.ring(every)

    def overlook(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.trust.overlooked()


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def fallen() -> Scene:
    scene = Scene()
    scene.overlook()
    assert not scene.trusted
    return scene


def test_a_doorbell_is_relied_on_to_begin_with(scene: Scene) -> None:
    assert scene.trusted
    assert not Scene(hung=False).trusted


def test_without_a_doorbell_nothing_changes_that() -> None:
    scene = Scene(hung=False)
    scene.rings(100)
    scene.overlook()
    assert not scene.trusted


def test_a_doorbell_that_never_rang_is_not_relied_on_after_the_first_miss(scene: Scene) -> None:
    scene.overlook()
    assert not scene.trusted


def test_a_datagram_lost_now_and_then_changes_nothing(scene: Scene) -> None:
    for _ in range(20):
        scene.ring(1)
        scene.overlook(30)
    assert scene.trusted


def test_repeated_misses_among_rings_do(scene: Scene) -> None:
    """One publisher's datagrams arrive, another's do not."""
    for _ in range(module._STRIKES - 1):
        scene.ring(1)
        scene.overlook(1)
        assert scene.trusted
    scene.ring(1)
    scene.overlook(1)
    assert not scene.trusted


def test_two_misses_without_a_ring_between_them_do(scene: Scene) -> None:
    scene.ring()
    scene.overlook()
    assert scene.trusted
    scene.overlook(1)
    assert not scene.trusted


def test_rings_without_a_gap_prove_the_contrary(fallen: Scene) -> None:
    fallen.rings(module._PATIENCE - 1)
    assert not fallen.trusted
    fallen.rings(2)
    assert fallen.trusted


def test_it_takes_several_rings(fallen: Scene) -> None:
    fallen.now += 10_000
    fallen.ring()
    fallen.ring()
    assert not fallen.trusted
    fallen.ring()
    assert fallen.trusted


def test_missing_rings_prove_nothing(fallen: Scene) -> None:
    """Every fifth message is another publisher's, whose datagrams are dropped."""
    for _ in range(1000):
        for _ in range(4):
            fallen.ring(0.5)
        fallen.ring(0.5, skip=1)
    assert not fallen.trusted


def test_rings_may_overtake_each_other(fallen: Scene) -> None:
    for first in range(1, 400, 2):
        fallen.now += 0.5
        fallen.trust.rang(first + 1, 1)
        fallen.now += 0.1
        fallen.trust.rang(first, 1)
    assert fallen.trusted


def test_a_batch_may_fill_several_gaps_in_part(fallen: Scene) -> None:
    fallen.now += 10_000
    fallen.trust.rang(1, 1)
    fallen.trust.rang(10, 1)
    fallen.trust.rang(20, 1)
    fallen.trust.rang(4, 2)
    fallen.trust.rang(11, 9)
    assert not fallen.trusted
    fallen.trust.rang(2, 8)
    assert fallen.trusted


def test_own_messages_leave_no_gap_and_prove_nothing(fallen: Scene) -> None:
    for _ in range(100):
        fallen.now += 1
        fallen.trust.published(fallen.next_id, 1)
        fallen.next_id += 1
    assert not fallen.trusted
    for _ in range(3):
        fallen.ring(0.1)
        fallen.trust.published(fallen.next_id, 2)
        fallen.next_id += 2
    assert fallen.trusted


def test_replays_prove_nothing(fallen: Scene) -> None:
    fallen.now += 10_000
    for _ in range(1000):
        fallen.now += 1
        fallen.trust.rang(5, 1)
    assert not fallen.trusted


def test_a_miss_begins_the_proof_anew(fallen: Scene) -> None:
    fallen.rings(20)
    fallen.overlook()
    fallen.rings(20)
    assert not fallen.trusted
    fallen.rings(11)
    assert fallen.trusted


def test_each_relapse_takes_longer_to_recover_from(fallen: Scene) -> None:
    fallen.rings(31)
    assert fallen.trusted
    fallen.overlook()
    fallen.overlook(1)
    assert not fallen.trusted
    fallen.rings(58)
    assert not fallen.trusted
    fallen.rings(3)
    assert fallen.trusted


def test_patience_has_an_end(fallen: Scene) -> None:
    for _ in range(20):
        fallen.rings(module._MAX_PATIENCE + 1, every=60)
        assert fallen.trusted
        fallen.overlook()
        fallen.overlook()
        assert not fallen.trusted


def test_a_long_good_time_makes_up_for_the_past(fallen: Scene) -> None:
    fallen.rings(31)
    fallen.rings(module._PATIENCE * module._FORGIVE, every=10)
    fallen.overlook()
    fallen.overlook()
    assert not fallen.trusted
    fallen.rings(module._PATIENCE + 1)
    assert fallen.trusted


def test_gaps_do_not_pile_up(fallen: Scene) -> None:
    for _ in range(100_000):
        fallen.ring(0.00001, skip=1)
    assert len(fallen.trust._holes) <= module._MAX_HOLES + 1


def test_gaps_between_own_messages_do_not_pile_up(fallen: Scene) -> None:
    """All other peers ring nobody, as pipecat's do."""
    for _ in range(10_000):
        fallen.now += 0.00001
        fallen.trust.published(fallen.next_id, 1)
        fallen.next_id += 2
    assert len(fallen.trust._holes) <= module._MAX_HOLES + 1
