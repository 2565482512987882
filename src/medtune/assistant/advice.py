"""Questions that need more than a passage: an individual dose, pregnancy, a child, medicines together.

Covered: which of the four, what is missing to ask for, and the numbers with units that a reply may only repeat.
Not covered: the answer. The gate never computes a dose.
"""

from __future__ import annotations

from collections.abc import Sequence

from medtune.types import Message, Verdict


def verdict(messages: Sequence[Message]) -> Verdict:
    """Fires with `kind` `dose`, `pregnancy`, `child` or `interaction`."""
    del messages
    return Verdict("advice", False, 0.0, "no individual advice asked for")
