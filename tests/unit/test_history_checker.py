"""The checker finds what is wrong with a history, says so precisely, and finds nothing in one that is right."""

import re
from pathlib import Path

import pytest
from chaos.checker import check
from chaos.history import Event, Recorder, read, read_all
from chaos.promises import Promise
from chaos.verdict import Broken

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Script:
    """A history, told step by step; each takes a millisecond."""

    def __init__(self):
        self.now = 0
        self.files = {"driver": []}

    def write(self, process, kind, message="", /, **details):
        self.now += MILLISECOND
        self.files[process].append(Event(kind, self.now, message, details))

    def open(self, *processes, channel="orders", client="bus_runtime"):
        for process in processes:
            self.files[process] = []
            self.write(process, "opened", process=process, channel=channel, client=client)

    def join(self, *processes, peer=None, acknowledge="on_handled", in_hand=1000, **options):
        self.open(*processes, **options)
        for process in processes:
            self.write(process, "joining", peer=peer, acknowledge=acknowledge, in_hand=in_hand)
            self.write(process, "joined")

    def publish(self, process, *messages, outcome="published"):
        for message in messages:
            self.write(process, "publish", message)
            self.write(process, outcome, message)

    def publish_at_once(self, process, *messages):
        for message in messages:
            self.write(process, "publish", message)
        for message in messages:
            self.write(process, "published", message)

    def receive(self, process, *messages):
        for message in messages:
            self.write(process, "received", message)

    def handle(self, *processes, messages):
        for process in processes:
            for message in messages.split():
                self.write(process, "received", message)
                self.write(process, "handled", message)

    def kill(self, process):
        self.write("driver", "ended", process=process, how="killed")

    def leave(self, process):
        self.write(process, "ended", how="left")

    def fault(self, kind, seconds=0.0):
        began = self.now
        self.now += int(seconds * SECOND)
        self.write("driver", "fault", fault=kind, began=began)

    def pause(self, seconds):
        self.now += int(seconds * SECOND)

    def settle(self):
        self.write("driver", "settled")

    def check(self, promise=None):
        return check(list(self.files.values()), promise or Promise())


@pytest.fixture
def script():
    return Script()


def broken(verdict):
    return set(verdict.counts)


def texts(verdict):
    """What it says, with T for each time."""
    return re.sub(r"\d+\.\d{3} s", "T", "\n".join(violation.text for violation in verdict.violations))


# What is right.


def test_a_right_history(script):
    script.open("p1", "p2")
    script.join("s1", "s2")
    script.join("b1", peer="billing")
    script.publish("p1", "p1-1", "p1-2")
    script.publish("p2", "p2-1")
    script.handle("s1", "s2", "b1", messages="p1-1 p1-2 p2-1")
    script.settle()
    verdict = script.check()
    assert verdict, verdict
    assert (verdict.tally.published, verdict.tally.received, verdict.tally.peers, verdict.tally.processes) == (
        3,
        9,
        3,
        5,
    )
    assert "all promises kept: 3 published" in str(verdict)


def test_an_empty_history_is_right(script):
    assert script.check()


def test_messages_at_the_same_time_may_come_in_either_order_but_the_same_for_all(script):
    script.open("p1", "p2")
    script.join("s1", "s2")
    for process in ("p1", "p2"):
        script.write(process, "publish", f"{process}-1")
    for process in ("p1", "p2"):
        script.write(process, "published", f"{process}-1")
    script.handle("s1", messages="p2-1 p1-1")
    script.handle("s2", messages="p2-1 p1-1")
    script.settle()
    assert script.check(), script.check()


@pytest.mark.parametrize("seen", [True, False])
def test_an_unknown_outcome_is_fine_either_way(script, seen):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", outcome="unknown")
    script.publish("p1", "p1-2")
    # It may be carried out late.
    script.handle("s1", "s2", messages="p1-2 p1-1" if seen else "p1-2")
    script.settle()
    verdict = script.check()
    assert verdict, verdict
    assert verdict.tally.unknown == 1


def test_a_publisher_that_died_does_not_know_the_outcome(script):
    script.open("p1")
    script.join("s1")
    script.write("p1", "publish", "p1-1")
    script.kill("p1")
    script.settle()
    assert script.check(), script.check()


def test_a_peer_without_a_name_that_was_killed_is_owed_nothing(script):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1")
    script.handle("s1", "s2", messages="p1-1")
    script.kill("s2")
    script.publish("p1", "p1-2")
    script.handle("s1", messages="p1-2")
    script.settle()
    assert script.check(), script.check()


def test_what_was_published_while_a_peer_joined_is_not_owed(script):
    script.open("p1", "s1")
    script.write("s1", "joining", peer=None, acknowledge="on_handled", in_hand=1000)
    script.write("p1", "publish", "p1-1")
    script.write("s1", "joined")
    script.write("p1", "published", "p1-1")
    script.settle()
    assert script.check(), script.check()


def test_a_named_peer_goes_on_and_gets_again_what_it_had_not_acknowledged(script):
    script.open("p1")
    script.join("b1", peer="billing")
    script.publish("p1", "p1-1", "p1-2", "p1-3")
    script.handle("b1", messages="p1-1 p1-2")
    script.receive("b1", "p1-3")
    script.kill("b1")
    script.publish("p1", "p1-4")
    script.join("b2", peer="billing")
    script.write("b2", "redelivered", id=2)
    # The second was handled, and nobody had told the server.
    script.handle("b2", messages="p1-2 p1-3 p1-4")
    script.settle()
    verdict = script.check()
    assert verdict, verdict
    assert verdict.tally.repeated == 2
    assert verdict.tally.peers == 1


def test_without_settling_peers_may_be_anywhere(script):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", "p1-2")
    script.handle("s1", messages="p1-1 p1-2")
    script.handle("s2", messages="p1-1")
    assert script.check(), script.check()


# What is lost.


def test_a_lost_message(script):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", "p1-2", "p1-3")
    script.handle("s1", messages="p1-1 p1-2 p1-3")
    script.handle("s2", messages="p1-1 p1-3")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.LOST}
    assert [violation.text for violation in verdict.violations] == [
        "process s2 missed p1-2 (published 0.009 s to 0.010 s)"
    ]
    assert "PROMISES BROKEN" in str(verdict)


def test_a_message_that_nobody_got_is_lost(script):
    script.open("p1")
    script.join("s1")
    script.publish("p1", "p1-1")
    script.settle()
    assert script.check().counts == {Broken.LOST: 1}


def test_a_peer_that_was_killed_may_not_have_skipped_anything(script):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", "p1-2", "p1-3")
    script.handle("s1", messages="p1-1 p1-2 p1-3")
    script.handle("s2", messages="p1-1 p1-3")
    script.kill("s2")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.LOST}
    assert "process s2 missed p1-2" in texts(verdict)


def test_a_named_peer_that_does_not_get_again_what_it_had_not_handled(script):
    script.open("p1")
    script.join("b1", peer="billing")
    script.publish("p1", "p1-1", "p1-2")
    script.receive("b1", "p1-1")
    script.kill("b1")
    script.join("b2", peer="billing")
    script.handle("b2", messages="p1-2")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.LOST}
    assert "peer billing (process b1) received it, had not handled it when it ended (killed)" in texts(verdict)


def test_a_named_peer_that_does_not_get_what_was_published_while_it_was_away(script):
    script.open("p1")
    script.join("b1", peer="billing")
    script.kill("b1")
    script.publish("p1", "p1-1")
    script.join("b2", peer="billing")
    script.settle()
    assert "peer billing missed p1-1" in texts(script.check())


def test_what_one_peer_got_the_others_get_also_if_its_outcome_is_unknown(script):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", outcome="unknown")
    script.handle("s1", messages="p1-1")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.PARTIAL}
    assert "process s2 missed p1-1 (published T, without an acknowledgement); others had it from" in texts(verdict)


@pytest.mark.parametrize("in_hand", [2, 1])
def test_acknowledged_on_dispatch_a_killed_process_takes_with_it_what_it_held(script, in_hand):
    script.open("p1")
    script.join("b1", peer="billing", acknowledge="on_dispatch", in_hand=in_hand)
    script.publish("p1", "p1-1", "p1-2", "p1-3", "p1-4")
    script.handle("b1", messages="p1-1")
    script.receive("b1", "p1-2")
    script.kill("b1")
    script.join("b2", peer="billing", acknowledge="on_dispatch", in_hand=in_hand)
    script.handle("b2", messages="p1-4")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == (set() if in_hand == 2 else {Broken.LOST})
    assert verdict.tally.forgiven == in_hand


def test_acknowledged_on_dispatch_nothing_is_lost_that_was_published_after_the_end(script):
    script.open("p1")
    script.join("b1", peer="billing", acknowledge="on_dispatch")
    script.kill("b1")
    script.publish("p1", "p1-1")
    script.join("b2", peer="billing", acknowledge="on_dispatch")
    script.settle()
    assert broken(script.check()) == {Broken.LOST}


@pytest.mark.parametrize(
    ("told", "trims", "expected"),
    [
        (2, True, set()),
        (5, True, set()),
        (1, True, {Broken.UNTOLD}),
        (0, True, {Broken.LOST}),
        (2, False, {Broken.LOST}),
    ],
)
def test_what_is_trimmed_is_told(script, told, trims, expected):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", "p1-2", "p1-3")
    script.handle("s1", messages="p1-1 p1-2 p1-3")
    if told:
        script.write("s2", "lost", count=told)
    script.handle("s2", messages="p1-3")
    script.settle()
    verdict = script.check(Promise(trims=trims))
    assert broken(verdict) == expected
    assert verdict.tally.told == told


# What a fault may take.


@pytest.mark.parametrize(
    ("promise", "fault", "age", "lost"),
    [
        (Promise("Sync"), "crash", 0.0, True),
        (Promise("Sync"), "failover", 0.0, True),
        (Promise("Sync", standby="asynchronous", replication_lag=1.0), "failover", 0.9, False),
        (Promise("Sync", standby="asynchronous", replication_lag=1.0), "failover", 1.1, True),
        (Promise("Sync", standby="asynchronous", replication_lag=1.0), "crash", 0.0, True),
        (Promise("Async"), "crash", 0.5, False),
        (Promise("Async"), "crash", 0.7, True),
        (Promise("Async", wal_writer_delay=1.0), "crash", 2.9, False),
        (Promise("Async", wal_writer_delay=1.0), "failover", 2.9, False),
        (Promise("Async", standby="asynchronous", replication_lag=1.0), "failover", 1.5, False),
        (Promise("Async", standby="asynchronous", replication_lag=1.0), "failover", 1.7, True),
        (Promise("Async"), "disruption", 0.0, True),
        (Promise("Unlogged"), "crash", 100.0, False),
        (Promise("Unlogged"), "failover", 100.0, False),
        (Promise("Unlogged"), "disruption", 0.0, True),
    ],
)
def test_a_fault_takes_what_is_so_old_and_no_more(script, promise, fault, age, lost):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1")
    script.handle("s1", "s2", messages="p1-1")
    script.publish("p1", "p1-2")
    script.handle("s1", messages="p1-2")
    script.pause(age)
    script.fault(fault, seconds=2)
    script.publish("p1", "p1-3")
    script.handle("s1", "s2", messages="p1-3")
    script.settle()
    verdict = script.check(promise)
    assert broken(verdict) == ({Broken.LOST} if lost else set()), verdict
    assert verdict.tally.forgiven == (not lost)


def test_what_was_published_after_a_crash_is_not_lost_by_it(script):
    script.open("p1")
    script.join("s1")
    script.fault("crash", seconds=1)
    script.publish("p1", "p1-1")
    script.settle()
    assert broken(script.check(Promise("Unlogged"))) == {Broken.LOST}


def test_what_waited_through_a_crash_and_was_published_after_it_is_not_lost_by_it(script):
    script.open("p1")
    script.join("s1")
    script.write("p1", "publish", "p1-1")
    script.fault("crash", seconds=1)
    script.pause(3)
    script.write("p1", "published", "p1-1")
    script.settle()
    assert broken(script.check(Promise("Async"))) == {Broken.LOST}


def test_a_crash_takes_the_end_of_the_log_and_nothing_before_it(script):
    script.open("p1")
    script.join("s1", "s2")
    script.publish("p1", "p1-1", "p1-2", "p1-3")
    script.handle("s1", messages="p1-1 p1-2 p1-3")
    script.handle("s2", messages="p1-1 p1-3")
    script.fault("crash")
    script.settle()
    verdict = script.check(Promise("Async"))
    assert broken(verdict) == {Broken.HOLE}
    assert "process s2 missed p1-2" in texts(verdict)


# What comes again.


def test_a_duplicate_in_one_process(script):
    script.open("p1")
    script.join("s1")
    script.publish("p1", "p1-1")
    script.handle("s1", messages="p1-1 p1-1")
    script.fault("crash")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.DUPLICATE}
    assert "process s1 received p1-1 (published T to T) at T and again at T" in texts(verdict)


@pytest.mark.parametrize("fault", [True, False])
def test_pipecats_client_may_be_handed_something_again_after_a_fault(script, fault):
    script.open("p1")
    script.join("s1", client="pipecat", acknowledge="on_dispatch")
    script.publish("p1", "p1-1", "p1-2")
    script.handle("s1", messages="p1-1 p1-2")
    if fault:
        script.fault("disruption")
    script.handle("s1", messages="p1-1 p1-2")
    script.settle()
    assert broken(script.check()) == (set() if fault else {Broken.DUPLICATE})


@pytest.mark.parametrize("published_before", [True, False])
def test_pipecats_client_may_hold_what_it_read_before_a_fault(script, published_before):
    """It handles one after the other, and so some after the fault; then they come again."""
    script.open("p1")
    script.join("s1", client="pipecat", acknowledge="on_dispatch")
    if published_before:
        script.publish("p1", "p1-1")
    script.fault("disruption")
    if not published_before:
        script.publish("p1", "p1-1")
    script.handle("s1", messages="p1-1 p1-1")
    script.settle()
    assert broken(script.check()) == (set() if published_before else {Broken.DUPLICATE})


@pytest.mark.parametrize("fault", [True, False])
def test_a_duplicate_after_the_peer_had_left(script, fault):
    script.open("p1")
    script.join("b1", peer="billing")
    script.publish("p1", "p1-1")
    script.handle("b1", messages="p1-1")
    script.leave("b1")
    if fault:
        script.fault("crash")
    script.join("b2", peer="billing")
    script.handle("b2", messages="p1-1")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == (set() if fault else {Broken.DUPLICATE})
    if not fault:
        assert "process b1 had handled it at T and left the channel" in texts(verdict)


@pytest.mark.parametrize(("seconds", "fine"), [(5, True), (11, False)])
def test_a_duplicate_of_what_had_long_been_acknowledged(script, seconds, fine):
    script.open("p1")
    script.join("b1", peer="billing")
    script.publish("p1", "p1-1")
    script.handle("b1", messages="p1-1")
    script.pause(seconds)
    script.kill("b1")
    script.join("b2", peer="billing")
    script.handle("b2", messages="p1-1")
    script.settle()
    assert broken(script.check()) == (set() if fine else {Broken.DUPLICATE})


def test_who_takes_over_gets_what_the_former_process_is_still_at(script):
    script.open("p1")
    script.join("b1", peer="billing")
    script.publish("p1", "p1-1")
    script.receive("b1", "p1-1")
    script.join("b2", peer="billing")
    script.handle("b2", messages="p1-1")
    script.write("b1", "handled", "p1-1")
    script.write("b1", "refused")
    script.leave("b1")
    script.settle()
    assert script.check(), script.check()


# What comes in another order.


def test_messages_of_one_publisher_out_of_order(script):
    script.open("p1")
    script.join("s1")
    script.publish_at_once("p1", "p1-1", "p1-2")
    script.handle("s1", messages="p1-2 p1-1")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.PUBLISHER_ORDER}
    assert "process s1 received p1-1" in texts(verdict)
    assert "after p1-2 (published T to T), whose publish was called later" in texts(verdict)


def test_pipecats_client_does_not_order_calls_that_do_not_wait_for_each_other(script):
    script.open("p1", client="pipecat")
    script.join("s1")
    script.publish_at_once("p1", "p1-1", "p1-2")
    script.handle("s1", messages="p1-2 p1-1")
    script.settle()
    assert script.check(), script.check()


def test_pipecats_client_orders_calls_that_wait_for_each_other(script):
    script.open("p1", client="pipecat")
    script.join("s1")
    script.publish("p1", "p1-1", "p1-2")
    script.handle("s1", messages="p1-2 p1-1")
    script.settle()
    assert broken(script.check()) == {Broken.REAL_TIME_ORDER}


def test_two_peers_that_disagree(script):
    script.open("p1", "p2")
    script.join("s1", "s2")
    for process in ("p1", "p2"):
        script.write(process, "publish", f"{process}-1")
    for process in ("p1", "p2"):
        script.write(process, "published", f"{process}-1")
    script.handle("s1", messages="p1-1 p2-1")
    script.handle("s2", messages="p2-1 p1-1")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.TOTAL_ORDER}
    for process, first, second in (("s1", "p1-1", "p2-1"), ("s2", "p2-1", "p1-1")):
        assert f"process {process} received {first} (" in texts(verdict)
        assert f"and then {second} (" in texts(verdict)


def test_three_peers_that_disagree_in_a_circle(script):
    script.open("p1", "p2", "p3")
    script.join("s1", "s2", "s3")
    for process in ("p1", "p2", "p3"):
        script.write(process, "publish", f"{process}-1")
    for process in ("p1", "p2", "p3"):
        script.write(process, "published", f"{process}-1")
    script.handle("s1", messages="p1-1 p2-1")
    script.handle("s2", messages="p2-1 p3-1")
    script.handle("s3", messages="p3-1 p1-1")
    assert broken(script.check()) == {Broken.TOTAL_ORDER}


def test_a_real_time_inversion(script):
    script.open("p1", "p2")
    script.join("s1", "s2")
    script.publish("p1", "p1-1")
    script.publish("p2", "p2-1")
    script.handle("s1", "s2", messages="p2-1 p1-1")
    script.settle()
    verdict = script.check()
    assert broken(verdict) == {Broken.REAL_TIME_ORDER}
    assert verdict.counts[Broken.REAL_TIME_ORDER] == 2
    assert "process s1 received p1-1 (published T to T) at T, after p2-1 (published T" in texts(verdict)


def test_a_real_time_inversion_that_no_peer_sees_alone(script):
    """One sees early before concurrent, another concurrent before late; late had been published before early began."""
    script.open("p1", "p2", "p3")
    script.join("s1", "s2")
    script.write("p3", "publish", "concurrent")
    script.publish("p1", "late")
    script.publish("p2", "early")
    script.write("p3", "published", "concurrent")
    script.handle("s1", messages="early concurrent")
    script.handle("s2", messages="concurrent late")
    verdict = script.check()
    assert broken(verdict) == {Broken.REAL_TIME_ORDER}
    assert "late (published T to T) had been published before early" in texts(verdict)


# What comes from nowhere.


def test_a_phantom(script):
    script.join("s1")
    script.handle("s1", messages="p9-1")
    verdict = script.check()
    assert broken(verdict) == {Broken.PHANTOM}
    assert texts(verdict) == "process s1 received p9-1 at T"


def test_a_message_before_its_publish_began(script):
    script.open("p1")
    script.join("s1")
    script.handle("s1", messages="p1-1")
    script.publish("p1", "p1-1")
    assert broken(script.check()) == {Broken.PHANTOM}


def test_a_message_of_another_channel(script):
    script.open("p1", channel="audit")
    script.join("a1", channel="audit")
    script.join("s1")
    script.publish("p1", "p1-1")
    script.handle("a1", "s1", messages="p1-1")
    script.settle()
    verdict = check(list(script.files.values()), {"orders": Promise("Sync"), "audit": Promise("Async")})
    assert broken(verdict) == {Broken.CHANNEL}
    assert texts(verdict) == "process s1 received p1-1 at T on 'orders'; it was published to 'audit'"


def test_a_failed_publish_that_was_delivered(script):
    script.open("p1")
    script.join("s1")
    script.publish("p1", "p1-1", outcome="failed")
    script.handle("s1", messages="p1-1")
    assert broken(script.check()) == {Broken.FAILED}


def test_a_message_from_before_the_peer_joined(script):
    script.open("p1")
    script.publish("p1", "p1-1")
    script.join("s1")
    script.handle("s1", messages="p1-1")
    assert broken(script.check()) == {Broken.EARLY}


# Histories that are none.


def test_contradictions_are_not_judged(script):
    script.open("p1", "p2")
    script.publish("p1", "p1-1")
    script.publish("p2", "p1-1")
    with pytest.raises(ValueError, match="'p1-1' was published twice"):
        script.check()


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        (("received", "p1-1"), "received 'p1-1' before it joined"),
        (("published", "p1-1"), "was told of 'p1-1', which it had not published"),
        (("lost", ""), "which had not joined"),
    ],
)
def test_events_out_of_place(script, event, complaint):
    script.open("s1")
    script.write("s1", *event)
    with pytest.raises(ValueError, match=complaint):
        script.check()


def test_an_end_of_nobody(script):
    script.kill("s1")
    with pytest.raises(ValueError, match="process 's1' ended, and has no history"):
        script.check()


def test_many_violations_are_counted_and_a_few_described(script):
    script.open("p1")
    script.join("s1")
    script.publish("p1", *(f"p1-{number}" for number in range(25)))
    script.settle()
    verdict = script.check()
    assert verdict.counts == {Broken.LOST: 25}
    assert len(verdict.violations) == 10
    assert "and 15 more" in str(verdict)


# Files.


def test_a_file_is_read_as_it_was_written(tmp_path: Path):
    path = tmp_path / "s1.jsonl"
    for _ in range(2):  # appended to
        with Recorder(path) as recorder:
            recorder.write("joining", peer="ä\n", acknowledge="on_handled", in_hand=1)
            recorder.write("received", "p1-1")
    events = list(read(path))
    assert [(event.kind, event.message, dict(event.details)) for event in events] == [
        ("joining", "", {"peer": "ä\n", "acknowledge": "on_handled", "in_hand": 1}),
        ("received", "p1-1", {}),
    ] * 2
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert [list(history) for history in read_all(tmp_path)] == [events]


def test_a_line_that_was_cut_short_by_a_death_is_left_out(tmp_path: Path):
    path = tmp_path / "s1.jsonl"
    with Recorder(path) as recorder:
        recorder.write("joined")
    with path.open("a") as file:
        file.write('{"event":"received","ti')
    assert [event.kind for event in read(path)] == ["joined"]
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="line 2: no event"):
        list(read(path))
