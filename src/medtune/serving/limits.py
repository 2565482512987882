"""How often one key or one address may ask: a token bucket each, in memory.

Covered: a rate with a burst, a bounded number of buckets. Not covered: several processes behind one balancer, each of
which counts for itself, and how much runs at once (`service.Limits`).
"""

from __future__ import annotations

import time
from collections import OrderedDict

BUCKETS = 10_000


class RateLimit:
    """`per_minute` requests for each name, as many of them at once; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Count one request of `name`: 0 where it may go on, else the seconds until the next may."""
        if not self.per_minute:
            return 0.0
        now = time.monotonic()
        tokens, last = self._buckets.pop(name, (float(self.per_minute), now))
        tokens = min(self.per_minute, tokens + (now - last) * self.per_minute / 60)
        wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self.per_minute
        self._buckets[name] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        return wait
