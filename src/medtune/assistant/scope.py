"""Is this about somebody's health? Real patients' questions pass, what is not about health is turned away.

Covered: long, misspelt and rambling messages, terse follow-ups ("and for kids?") by the conversation they stand in,
and the errands of being ill (insurance, finding a doctor, forms). Animals are out of scope: the library is on people.
Not covered: whether it can be answered (`grounding`), emergencies in messages that are out of scope otherwise (those
guards run by themselves).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medtune.assistant.classifier import logit, sigmoid
from medtune.types import Message, Verdict

TERSE_WORDS = 14  # a longer message speaks for itself
_TURNS = 4  # earlier user turns that a follow-up may refer to
_CARRY = 5.0  # logits that a health conversation adds to a one-word follow-up


def verdict(messages: Sequence[Message], score_of: Callable[[str], float], threshold: float) -> Verdict:
    """In scope where `score` >= `threshold`. `score_of` scores one text. Raises ValueError without a user turn."""
    turns = [message.content for message in messages if message.role == "user" and message.content.strip()]
    if not turns:
        raise ValueError("no user turn to look at")
    alone = score_of(turns[-1])
    score, reason = alone, "about health" if alone >= threshold else "not about health"
    words = len(turns[-1].split())
    if len(turns) > 1 and words <= TERSE_WORDS:
        context = max(score_of(turn) for turn in turns[-1 - _TURNS : -1])
        carried = _CARRY * (1 - words / (TERSE_WORDS + 1)) * context
        score = max(alone, float(sigmoid(logit(alone) + carried)))
        if alone < threshold <= score:
            reason = "a follow-up in a conversation about health"
    return Verdict("scope", score >= threshold, score, reason)
