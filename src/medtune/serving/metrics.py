"""What Prometheus may know: times, counts, guard decisions. Never a text, and labels from a closed list alone.

Covered: one registry per service, so that two in one process do not mix. Not covered: the route (`api`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from medtune.types import Reply, Verdict

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
GUARDS = ("emergency", "crisis", "scope", "injection", "advice")


class Metrics:
    """The gauges, counters and histograms of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(name, what, buckets=SECONDS, registry=self.registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=self.registry)

        self.first_text_seconds = histogram("medtune_time_to_first_token_seconds", "From request to first text.")
        self.text_seconds = histogram("medtune_time_per_token_seconds", "Between two pieces of text.")
        self.queue_seconds = histogram("medtune_queue_seconds", "Waiting for a free place.")
        self.running = Gauge("medtune_running", "Replies being made.", registry=self.registry)
        self.waiting = Gauge("medtune_waiting", "Requests waiting for a place.", registry=self.registry)
        self.rejected = counter("medtune_rejected", "Requests refused because the queue was full.")
        self.cancelled = counter("medtune_cancelled", "Replies whose client went away or said stop.")
        self.replies = counter("medtune_replies", "Replies by urgency.", "urgency", "is_error")
        self.tokens = counter("medtune_tokens", "Tokens read and written.", "kind")
        self.guards = counter("medtune_guard_decisions", "Guard decisions.", "guard", "decision")
        self.requests = counter("medtune_requests", "HTTP requests under /v1 by status.", "status")

    def guard(self, verdict: Verdict) -> None:
        """Count one decision; a guard that is not in the list counts as `other`."""
        decision = "error" if verdict.is_error else str(verdict.verdict).lower()
        self.guards.labels(verdict.guard if verdict.guard in GUARDS else "other", decision).inc()

    def count(self, reply: Reply) -> None:
        """Count a finished reply and its tokens."""
        self.replies.labels(reply.urgency, str(reply.is_error).lower()).inc()
        self.tokens.labels("prompt").inc(reply.prompt_tokens)
        self.tokens.labels("completion").inc(reply.completion_tokens)

    def clock(self, start: float) -> Clock:
        """Times the text of one reply; `start` is the request's `time.monotonic()`."""
        return Clock(self, start)

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)


@dataclass
class Clock:
    """Observes the time to the first `tick` and from each to the next."""

    metrics: Metrics
    last: float
    has_ticked: bool = False

    def tick(self) -> None:
        now = time.monotonic()
        histogram = self.metrics.text_seconds if self.has_ticked else self.metrics.first_text_seconds
        histogram.observe(now - self.last)
        self.last, self.has_ticked = now, True
