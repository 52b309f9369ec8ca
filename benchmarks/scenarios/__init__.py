"""The measurements, in the order in which they are made."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.scenarios import (
    crowd,
    latency,
    memory,
    publish_cost,
    serializer,
    slow_flush,
    soak,
    thousand,
    throughput,
)


@dataclass(frozen=True)
class Scenario:
    """One measurement.

    Attributes:
        run: Measures one round.
        rounds: How many rounds, in full and quickly.
        what: One line.
    """

    run: Callable[[Bench], None]
    rounds: tuple[int, int]
    what: str


SCENARIOS = {
    "serializer": Scenario(serializer.run, (3, 1), "messages to bytes and back, ours and pipecat's"),
    "latency": Scenario(latency.run, (5, 1), "one-way latency of an idle channel, all systems"),
    "throughput": Scenario(throughput.run, (3, 1), "messages delivered to each of 1, 8, 32 subscribers, all systems"),
    "slow_flush": Scenario(slow_flush.run, (3, 1), "a disk that takes 5 ms: 16 publishers, 64 channels"),
    "publish_cost": Scenario(publish_cost.run, (3, 1), "server CPU for a publish, 1 to 128 peers"),
    "crowd": Scenario(crowd.run, (3, 1), "a busy channel beside 300 idle peers of others"),
    "thousand": Scenario(thousand.run, (2, 1), "1,000 peers join at once, and are idle"),
    "memory": Scenario(memory.run, (3, 1), "100,000 messages wait for a stalled subscriber"),
    "soak": Scenario(soak.run, (1, 1), "5,000 messages a second for 10 minutes"),
}
