"""What Prometheus is told: definitions, and one function for each thing worth counting.

Labels are platforms, accounts, commands, lanes and states: never people, texts or ids. Values of labels that come
from outside (commands, accounts) are bounded: after `MOST_VALUES` different ones the rest count as `other`.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from parley.metrics.bounded import MOST_VALUES, OTHER, Bounded
from parley.metrics.machinery import Machinery
from parley.metrics.way import Way

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Media type of what `Metrics.text` returns."""

# When each series was made: half the lines, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client leaves it untyped

_ANSWER_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.48, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_DELIVERY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)


class Metrics:
    """One hub's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: CollectorRegistry = CollectorRegistry()
        self._bounded = Bounded()
        self.way: Way = Way(self.registry, self._bounded)
        self.machinery: Machinery = Machinery(self.registry, self._bounded)
        # Processor time, memory and open files of the hub.
        ProcessCollector(namespace="ai_assistant", registry=self.registry)
        self._requests = Counter(
            "ai_assistant_requests",
            "Requests that came to an end.",
            ["command", "outcome", "platform"],
            registry=self.registry,
        )
        self._messages = Counter(
            "ai_assistant_messages",
            "Events taken from platforms, redeliveries left out.",
            ["platform", "type"],
            registry=self.registry,
        )
        self._answers = Histogram(
            "ai_assistant_answer_seconds",
            "From the receipt of a message to its final answer being written.",
            ["command"],
            buckets=_ANSWER_BUCKETS,
            registry=self.registry,
        )
        self._deliveries = Counter(
            "ai_assistant_deliveries",
            "Attempts to deliver a reply, by how they ended.",
            ["platform", "state"],
            registry=self.registry,
        )
        self._delivery_seconds = Histogram(
            "ai_assistant_delivery_seconds",
            "From a reply being written to the platform taking it.",
            ["platform"],
            buckets=_DELIVERY_BUCKETS,
            registry=self.registry,
        )
        self._failures = Counter(
            "ai_assistant_failures",
            "Runs that failed, by the kind of failure.",
            ["command", "kind"],
            registry=self.registry,
        )
        self._alerts = Counter(
            "ai_assistant_alerts", "Alerts sent to the people on duty.", ["command"], registry=self.registry
        )
        self._refusals = Counter(
            "ai_assistant_refusals",
            "What was turned away before anything ran, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._hooks = Counter(
            "ai_assistant_hook_requests",
            "Requests on the hooks' port.",
            ["account", "status"],
            registry=self.registry,
        )
        self._queue = Gauge(
            "ai_assistant_queue_size", "Requests that wait for their run.", ["lane"], registry=self.registry
        )
        self._running = Gauge(
            "ai_assistant_runs_in_flight", "Runs that are going on.", registry=self.registry
        )
        self._outbox = Gauge(
            "ai_assistant_outbox_size", "Replies that wait to be delivered.", registry=self.registry
        )
        self._dead_letters = Gauge(
            "ai_assistant_dead_letters",
            "What ended without having been carried out or delivered, and nobody has decided about.",
            ["kind"],
            registry=self.registry,
        )
        self._accounts = Gauge(
            "ai_assistant_accounts_up",
            "Whether an account's connection is up.",
            ["account"],
            registry=self.registry,
        )

    def request_ended(self, command: str, outcome: str, platform: str) -> None:
        """A request came to its end: done, failed, refused, expired, cancelled ..."""
        self._requests.labels(self._bounded("command", command), outcome, platform).inc()

    def message(self, platform: str, kind: str) -> None:
        """A new event was stored; `kind` is message, edit or action."""
        self._messages.labels(platform, kind).inc()

    def answered(self, command: str, seconds: float) -> None:
        """The final answer to a message was written this long after its receipt."""
        self._answers.labels(self._bounded("command", command)).observe(max(0.0, seconds))

    def delivery(self, platform: str, state: str, seconds: float | None = None) -> None:
        """An attempt to deliver ended as sent, pending (again later), ambiguous or dead; `seconds` when sent."""
        self._deliveries.labels(platform, state).inc()
        if seconds is not None:
            self._delivery_seconds.labels(platform).observe(max(0.0, seconds))

    def failure(self, command: str, kind: str) -> None:
        """A run failed; `kind` is error, timeout, arguments, lost ..."""
        self._failures.labels(self._bounded("command", command), kind).inc()

    def alert(self, command: str) -> None:
        """An alert was sent."""
        self._alerts.labels(self._bounded("command", command)).inc()

    def refusal(self, reason: str) -> None:
        """Something was turned away: denied, rate-limited, too-large, bad-origin ... (words of ours, never texts)."""
        self._refusals.labels(self._bounded("reason", reason)).inc()

    def hook(self, account: str, status: int) -> None:
        """A request on the hooks' port was answered; unknown accounts count as `other`."""
        known = OTHER if status == 404 else self._bounded("account", account)
        self._hooks.labels(known, str(status)).inc()

    def queue(self, sizes: Mapping[str, int]) -> None:
        """How many requests wait, by lane."""
        for lane, size in sizes.items():
            self._queue.labels(lane).set(size)

    def runs_in_flight(self, count: int) -> None:
        """How many runs are going on."""
        self._running.set(count)

    def outbox(self, waiting: int) -> None:
        """How many replies wait to be delivered."""
        self._outbox.set(waiting)

    def dead_letters(self, counts: Mapping[str, int]) -> None:
        """How many wait for a decision, by kind."""
        for kind, count in counts.items():
            self._dead_letters.labels(kind).set(count)

    def account(self, name: str, up: bool) -> None:
        """Whether this account is listening."""
        self._accounts.labels(self._bounded("account", name)).set(1 if up else 0)

    def account_gone(self, name: str) -> None:
        """This account is no longer configured."""
        if self._bounded.forget("account", name):
            self._accounts.remove(name)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self.registry)


__all__ = ["CONTENT_TYPE", "MOST_VALUES", "OTHER", "Metrics"]
