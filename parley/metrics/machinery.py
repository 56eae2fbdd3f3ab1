"""What the way runs on: the store, Prefect's API, the link, the workers' children, the hub's own event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from parley.metrics.bounded import Bounded

_COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30)
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Machinery:
    """Counts what happens, and holds gauges that the hub sets when it is asked for figures."""

    def __init__(self, registry: CollectorRegistry, bounded: Bounded) -> None:
        self._bounded = bounded
        self._registry = registry
        self._commit = self._histogram(
            "store_commit_seconds", "One commit, with all its writes.", _COMMIT_BUCKETS
        )
        self._writes = self._histogram("store_commit_writes", "Writes that shared one commit.", _SIZE_BUCKETS)
        self._lag = self._histogram(
            "loop_lag_seconds", "How late the hub's event loop is, looked at twice a second.", _LAG_BUCKETS
        )
        self._prefect = Histogram(
            "ai_assistant_prefect_api_seconds",
            "Calls of Prefect's API by the hub that were answered.",
            ["call"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._prefect_errors = Counter(
            "ai_assistant_prefect_api_errors",
            "Calls of Prefect's API by the hub that failed: unavailable, or refused.",
            ["call", "kind"],
            registry=registry,
        )
        self._cache = Counter(
            "ai_assistant_cache", "Looks into a cache of the hub's.", ["cache", "result"], registry=registry
        )
        self._erased = Counter(
            "ai_assistant_retention_erased", "Rows that retention took away.", ["kind"], registry=registry
        )
        self.prefect_up: Gauge = self._gauge("prefect_up", "Whether Prefect's server answers the hub.")
        self.store_waiting: Gauge = self._gauge("store_waiting", "Writes that wait for the store.")
        self.store_bytes: Gauge = self._gauge(
            "store_bytes", "Size of the store's file with its log; 0 on PostgreSQL."
        )
        self.disk_free_bytes: Gauge = self._gauge("disk_free_bytes", "Free space on the disk of PARLEY_HOME.")
        self.disk_bytes: Gauge = self._gauge("disk_bytes", "Size of the disk of PARLEY_HOME.")
        self.unhandled: Gauge = self._gauge(
            "messages_unhandled", "Messages that are stored and not handled yet."
        )
        self.outbox_oldest: Gauge = self._gauge(
            "outbox_oldest_seconds", "Age of the oldest reply that waits to be delivered."
        )
        self.room: Gauge = self._gauge("runs_room", "Runs that may go on at once on this hub's own worker.")
        self.retention_at: Gauge = self._gauge(
            "retention_last_success_timestamp_seconds",
            "When retention last had nothing left to do; the hub's start before that.",
        )
        self._oldest = self._gauge(
            "queue_oldest_seconds", "Age of the oldest request that waits for its run.", "lane"
        )
        self._children = self._gauge(
            "children", "Children of the workers: busy, warm, changing (coming or leaving).", "state"
        )
        self._certificates = self._gauge(
            "certificate_end_timestamp_seconds", "When the certificate of a port of ours ends.", "port"
        )
        self._link = self._gauge(
            "link_seconds", "Round trip over the link, the slowest peer of a role.", "role"
        )

    def committed(self, writes: int, seconds: float) -> None:
        """The store committed so many writes at once."""
        self._commit.observe(seconds)
        self._writes.observe(writes)

    def prefect_called(self, call: str, seconds: float | None, wrong: str) -> None:
        """A call of Prefect's API: `seconds` when it was answered; `wrong` is empty, unavailable or refused."""
        named = self._bounded("call", call)
        if seconds is not None:
            self._prefect.labels(named).observe(seconds)
        if wrong:
            self._prefect_errors.labels(named, wrong).inc()

    def cache(self, name: str, *, hit: bool) -> None:
        """Something was looked for in a cache of the hub's."""
        self._cache.labels(name, "hit" if hit else "miss").inc()

    def loop_lag(self, seconds: float) -> None:
        """The event loop came to a timer so late."""
        self._lag.observe(max(0.0, seconds))

    def erased(self, counts: Mapping[str, int]) -> None:
        """Retention took so many rows of each kind away."""
        for kind, count in counts.items():
            self._erased.labels(kind).inc(count)

    def queue_oldest(self, ages: Mapping[str, float]) -> None:
        """The age of the oldest that waits, by lane."""
        _set(self._oldest, ages)

    def children(self, counts: Mapping[str, int]) -> None:
        """The workers' children by state."""
        _set(self._children, counts)

    def certificates(self, ends: Mapping[str, float]) -> None:
        """When the certificates end (Unix time), by port; a port without one is not shown."""
        self._certificates.clear()
        _set(self._certificates, ends)

    def link(self, latencies: Mapping[str, float]) -> None:
        """Seconds there and back, by role; a role without peers is no longer shown."""
        self._link.clear()
        _set(self._link, latencies)

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(f"ai_assistant_{name}", help_, labels, registry=self._registry)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"ai_assistant_{name}", help_, buckets=buckets, registry=self._registry)


PrefectMeasure = Callable[[str, float | None, str], None]
"""Told of each call of Prefect's API: its name, its seconds when it was answered, what went wrong or nothing."""


def _set(gauge: Gauge, values: Mapping[str, float] | Mapping[str, int]) -> None:
    for label, value in values.items():
        gauge.labels(label).set(value)
