"""What a message is about: its sentences without courtesies, cut to the opening and the asking ones when it rambles.

Not covered: what kind of answer is asked for (`kinds`), which subject is named (`names`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WORDS = 90
"""Messages up to this length are searched whole: their details help; of longer ones the gist is taken."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|\b(?:SUBJECT|MESSAGE|Subject|Message):\s*")
_MASK = re.compile(r"\[[A-Z]{3,}\]")
_ASKS = re.compile(
    r"\?|^(?:what|how|why|when|where|who|which|is|are|can|could|do|does|should|will|would)\b"
    r"|\b(?:wonder|(?:want|like|need) to know|looking for|information|advi[cs]e|suggest|tell me|treatments?|cure)\b",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"^(?:(?:hi|hello|hey|dear|greetings|good (?:day|morning|evening|afternoon)|sirs?|madam|doctors?|dr|all|everyone"
    r"|there|team)\b[\s,./!&:-]*)+",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"clinicaltrials\.gov|^(?:many )?(?:thanks?|thx|regards|sincerely|(?:best|kind|warm) regards)\b(?:\W+\w+){0,6}\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Gist:
    """`opening` is the first sentence that says something (a subject line, often); `text` what is searched for."""

    opening: str
    text: str


def gist(message: str, most: int = WORDS) -> Gist:
    """The gist of `message`, its sentences in their order; at least one sentence of a message that has words."""
    sentences = [" ".join(s.split()) for s in _SENTENCE.split(_MASK.sub(" ", message)) if re.search(r"\w", s)]
    telling = [rest for s in sentences if not _THANKS.search(s) and re.search(r"\w", rest := _GREETING.sub("", s))]
    telling = telling or sentences
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
