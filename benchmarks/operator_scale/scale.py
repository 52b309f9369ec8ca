"""How large the cluster is that the operator is measured in."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """The sizes; the defaults are those of the goals.

    Attributes:
        databases: BusDatabases, the dead one included.
        channels: BusChannels over all databases.
        namespaces: Over how many namespaces the channels are spread.
        secrets: Secrets that are none of the operator's business, in the same namespaces.
        reconciles: BusChannels that the leader has to make when it is killed.
        probes: BusChannels that are created one after the other to measure how long one takes.
        deleted: BusChannels in the namespace that is deleted while their database is away.
        idle_seconds: How long idleness is watched.
    """

    databases: int = 20
    channels: int = 5000
    namespaces: int = 50
    secrets: int = 10_000
    reconciles: int = 500
    probes: int = 100
    deleted: int = 200
    idle_seconds: float = 180.0

    def times(self, factor: float) -> "Scale":
        """The same cluster with fewer of everything; at least three databases, one of them dead."""
        if factor == 1:
            return self
        return replace(
            self,
            databases=max(3, round(self.databases * min(1.0, factor * 2))),
            channels=max(30, round(self.channels * factor)),
            namespaces=max(2, round(self.namespaces * factor)),
            secrets=round(self.secrets * factor),
            reconciles=max(60, round(self.reconciles * factor)),
            probes=max(10, round(self.probes * min(1.0, factor * 4))),
            deleted=max(10, round(self.deleted * min(1.0, factor * 4))),
            idle_seconds=max(65.0, self.idle_seconds * min(1.0, factor * 2)),
        )
