"""The rows of the table, in the order in which they are measured: those that disturb the others come last."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.rows import (
    apply_ready,
    cold_start,
    dead_database,
    idle,
    leader_killed,
    memory,
    namespace_deleted,
    rotation,
)
from benchmarks.operator_scale.world import ScaleWorld


@dataclass(frozen=True)
class Row:
    """One situation that is measured.

    Attributes:
        measure: Brings it about and measures. What it needs of the large cluster it asks for with `world.populate()`;
            what it adds stays within its own namespaces, and is gone or settled when it returns.
        what: One line.
    """

    measure: Callable[[ScaleWorld], list[Figure]]
    what: str


ROWS = {
    "cold_start": Row(cold_start.measure, "the operator starts, with everything there already"),
    "idle": Row(idle.measure, "nothing happens: processor time, writes to the API server"),
    "apply_ready": Row(apply_ready.measure, "one more BusChannel, from apply to Ready"),
    "dead_database": Row(
        dead_database.measure, "one more BusChannel while a database accepts connections and is silent"
    ),
    "memory": Row(memory.measure, "resident memory, after all that"),
    "rotation": Row(rotation.measure, "credentials replaced 20 times in a row under load"),
    "namespace_deleted": Row(namespace_deleted.measure, "a namespace deleted while its channels' database is away"),
    "leader_killed": Row(leader_killed.measure, "kill -9 of the leader in the middle of 500 reconciles"),
}
