"""What a message is about: its sentences without courtesies, cut to the opening and the asking ones when it rambles.

Not covered: what kind of answer is asked for (`kinds`), which subject is named (`names`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WORDS = 90
"""Messages up to this length are searched whole: their details help; of longer ones the gist is taken."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ASKS = re.compile(
    r"\?|^(?:what|how|why|when|where|who|which|is|are|can|could|do|does|should|will|would)\b"
    r"|\b(?:wonder|(?:want|like|need) to know|looking for|information|advi[cs]e|suggest|tell me|treatments?|cure)\b",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"clinicaltrials\.gov|^(?:hi|hello|hey|dear|sir|madam|good (?:day|morning|evening|afternoon)|thanks?|thank you|thx"
    r"|many thanks|regards|sincerely|best regards|greetings)\b(?:\W+\w+){0,5}\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Gist:
    """`opening` is the first sentence that says something (a subject line, often); `text` what is searched for."""

    opening: str
    text: str


def gist(message: str, most: int = WORDS) -> Gist:
    """The gist of `message`, its sentences in their order; at least one sentence of a message that has words."""
    sentences = [s.strip() for s in _SENTENCE.split(message) if re.search(r"\w", s)]
    telling = [s for s in sentences if not _COURTESY.search(s)] or sentences
    if not telling:
        return Gist("", "")
    by_worth = sorted(range(len(telling)), key=lambda n: (n > 0, _ASKS.search(telling[n]) is None, n))
    kept: list[int] = []
    left = most
    for number in by_worth:
        length = len(telling[number].split())
        if kept and length > left:
            continue
        kept.append(number)
        left -= length
    return Gist(telling[0], " ".join(telling[n] for n in sorted(kept)))
