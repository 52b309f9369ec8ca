"""Metrics of the bus: of each channel, of at most so many, and of each database, for all its channels.

What is kept is the surveys' compact rows; the samples are made at a scrape. Each channel costs eleven series in
Prometheus, so there is a bound, and the channels that need attention come first: those that are not ready, that lose
messages, whose messages wait longest.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from bus_operator import status
from bus_operator.catalog import ChannelUsage
from bus_operator.inventory import Inventory, Resource
from bus_operator.surveys import Survey, Surveys

WAKE = ("doorbell", "listen", "poll")


class _Channel(NamedTuple):
    labels: tuple[str, str, str]
    ready: bool
    losing: bool
    usage: ChannelUsage | None

    @property
    def unimportance(self) -> tuple[bool, bool, float, int, tuple[str, str, str]]:
        """By name in the end, so that it is the same channels at each scrape."""
        oldest, backlog = (self.usage.oldest or 0.0, self.usage.backlog) if self.usage else (0.0, 0)
        return self.ready, not self.losing, -oldest, -backlog, self.labels


_LABELS = ("namespace", "name", "database")
"""Of what is said about a channel."""


class ChannelMetrics:
    """Gives the families of metrics.

    Args:
        inventory: The BusChannels there are; one that is deleted has no metrics any more.
        surveys: How they are used; None where another replica leads, which has all of these metrics then.
        overdue: Whose credentials should have changed, and since how many seconds.
        limit: Of how many channels there are metrics at most.
    """

    def __init__(
        self,
        inventory: Inventory,
        surveys: Callable[[], Surveys | None],
        overdue: Callable[[], Iterable[tuple[Resource, float]]],
        *,
        limit: int,
    ) -> None:
        self._inventory = inventory
        self._surveys = surveys
        self._overdue = overdue
        self._limit = limit

    def families(self) -> Iterator[Metric]:
        """What is known now."""
        surveys = self._surveys()
        if surveys is None:
            return
        surveys.keep_only(self._inventory.databases)
        yield self._resources()
        channels = [_channel(resource, surveys) for resource in self._inventory.channels.values()]
        left_out = max(len(channels) - self._limit, 0)
        if left_out:
            channels = heapq.nsmallest(self._limit, channels, key=lambda channel: channel.unimportance)
        yield GaugeMetricFamily(
            "pgmq_bus_channels_left_out",
            "BusChannels without metrics of their own, because there are more than metrics.maxChannels.",
            value=left_out,
        )
        yield from _of_channels(channels)
        yield self._overdue_rotations()
        yield from _of_databases([("/".join(key), survey) for key, survey in surveys.current()])

    def _overdue_rotations(self) -> Metric:
        family = GaugeMetricFamily(
            "pgmq_bus_channel_rotation_overdue_seconds",
            "Since when a BusChannel's credentials should have been replaced, or replaced ones ended; else no series.",
            labels=_LABELS,
        )
        for channel, seconds in heapq.nlargest(self._limit, self._overdue(), key=lambda item: item[1]):
            family.add_metric(_labels(channel), seconds)
        return family

    def _resources(self) -> Metric:
        counts = Counter(
            (kind, *_readiness(resource))
            for kind in ("BusDatabase", "BusChannel")
            for resource in self._inventory.of(kind).values()
        )
        family = GaugeMetricFamily(
            "pgmq_bus_resources",
            "BusDatabases and BusChannels, by their condition Ready and its reason.",
            labels=("kind", "ready", "reason"),
        )
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return family


def _readiness(resource: Resource) -> tuple[str, str]:
    condition = status.find(resource.status.get("conditions", ()), "Ready") or {}
    return condition.get("status", "Unknown"), condition.get("reason", "NotReconciledYet")


def _labels(channel: Resource) -> tuple[str, str, str]:
    # Others may write a status as well, and by halves.
    database = channel.status.get("database") or {}
    whole = database.keys() >= {"namespace", "name"}
    return channel.namespace, channel.name, f"{database['namespace']}/{database['name']}" if whole else ""


def _channel(resource: Resource, surveys: Surveys) -> _Channel:
    reference = resource.status.get("database") or {}
    survey = surveys.of((reference.get("namespace", ""), reference.get("name", "")))
    labels = _labels(resource)
    ready = _readiness(resource)[0] == "True"
    if survey is None:
        return _Channel(labels, ready, losing=False, usage=None)
    return _Channel(labels, ready, resource.uid in survey.losing, survey.by_uid.get(resource.uid))


_MEASURES: tuple[tuple[str, type[CounterMetricFamily | GaugeMetricFamily], str, str], ...] = (
    (
        "backlog_messages",
        GaugeMetricFamily,
        "backlog",
        "Messages that the slowest live peer has not acknowledged",
    ),
    ("published_messages", CounterMetricFamily, "published", "Messages published"),
    ("redelivered_messages", CounterMetricFamily, "redelivered", "Messages given to a peer once more"),
    (
        "lost_messages",
        CounterMetricFamily,
        "lost",
        "Messages that were trimmed before a peer had read them, for each such peer",
    ),
    ("log_messages", GaugeMetricFamily, "messages", "Messages in the log"),
    ("log_bytes", GaugeMetricFamily, "bytes", "Size of the log on disk with its indexes"),
)
"""Name, type, field of a usage, and what it is, of what channels have and databases as well."""


def _of_channels(channels: Sequence[_Channel]) -> Iterator[Metric]:
    labels = _LABELS
    ready = GaugeMetricFamily("pgmq_bus_channel_ready", "Whether the BusChannel is Ready.", labels=labels)
    for channel in channels:
        ready.add_metric(channel.labels, channel.ready)
    yield ready
    used = [(channel.labels, channel.usage) for channel in channels if channel.usage is not None]
    peers = GaugeMetricFamily("pgmq_bus_channel_peers", "Live peers, by how they are woken.", labels=(*labels, "wake"))
    oldest = GaugeMetricFamily(
        "pgmq_bus_channel_oldest_message_age_seconds",
        "Age of the oldest message that a live peer has not acknowledged; 0 when there is none.",
        labels=labels,
    )
    for values, usage in used:
        for wake in WAKE:
            peers.add_metric((*values, wake), getattr(usage, wake))
        oldest.add_metric(values, usage.oldest or 0.0)
    yield peers
    yield oldest
    for name, family_type, attribute, about in _MEASURES:
        measured = family_type(f"pgmq_bus_channel_{name}", f"{about}.", labels=labels)
        for values, usage in used:
            measured.add_metric(values, getattr(usage, attribute))
        yield measured


def _of_databases(databases: Sequence[tuple[str, Survey]]) -> Iterator[Metric]:
    # Of all channels: also of those left out, and of those retained when their BusChannel was deleted.
    measures: list[tuple[str, str, Callable[[Survey], float]]] = [
        ("channels", "Channels, retained ones included", lambda survey: sum(1 for _ in survey.usages)),
        (
            "channels_retained",
            "Channels whose BusChannel was deleted and that were retained",
            lambda survey: sum(usage.owner_uid is None for usage in survey.usages),
        ),
        (
            "peers",
            "Live peers",
            lambda survey: sum(usage.doorbell + usage.listen + usage.poll for usage in survey.usages),
        ),
        (
            "oldest_message_age_seconds",
            "Age of the oldest message that a live peer has not acknowledged",
            lambda survey: max((usage.oldest or 0.0 for usage in survey.usages), default=0.0),
        ),
    ]
    for name, about, read in measures:
        family = GaugeMetricFamily(f"pgmq_bus_database_{name}", f"{about}, of all channels.", labels=("database",))
        for database, survey in databases:
            family.add_metric((database,), read(survey))
        yield family
    for name, family_type, attribute, about in _MEASURES:
        counted = family_type is CounterMetricFamily
        since = " since the operator began to look" if counted else ""
        measured = family_type(f"pgmq_bus_database_{name}", f"{about}{since}, of all channels.", labels=("database",))
        for database, survey in databases:
            # A counter that falls because a channel was deleted would be taken for one that began anew.
            total = getattr(survey.totals, attribute) if counted else _sum(survey, attribute)
            measured.add_metric((database,), total)
        yield measured


def _sum(survey: Survey, attribute: str) -> float:
    return float(sum(getattr(usage, attribute) for usage in survey.usages))
