"""What is searched for: the last question, and with what it leaves unsaid taken from earlier turns.

Covered: follow-ups ("is it contagious?", "what should I avoid eating?") and new topics in the middle of a conversation.
Not covered: the gist of a long message, which the search itself finds (`knowledge`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from medtune.assistant.words import content, plain
from medtune.types import Hit, Message

FEW = 2
"""Content words up to which a question says little by itself."""
ALONE, ALONE_FEW = 0.6, 0.85
"""Probability of answering from which what was found for the last question alone is taken; for one of few words."""
TURNS = 3
_POINTS_BACK = re.compile(
    r"\b(?:it|its|that|this|these|those|they|them|he|she|him|her|one|same|there|eso|esto|ese|esa|ello|lo)\b"
)
_OPENS = re.compile(r"^\s*(?:and|but|so|what about|how about|what if|or|y|pero|entonces|que tal)\b")


def find(search: Callable[[str, int], Sequence[Hit]], messages: Sequence[Message], k: int) -> Sequence[Hit]:
    """The hits for a conversation's last question: read alone where it says what it is about, else with its context."""
    asked = [message.content for message in messages if message.role == "user"]
    if not asked:
        return []
    context = query_of(messages)
    if context == asked[-1]:
        return search(context, k)
    words = content(asked[-1])
    if words and not (_POINTS_BACK.search(plain(asked[-1])) and len(words) <= FEW + 1):
        hits = search(asked[-1], k)
        if hits and hits[0].score >= (ALONE_FEW if len(words) <= FEW else ALONE):
            return hits
    return search(context, k)


def query_of(messages: Sequence[Message]) -> str:
    """The last question under the newest earlier one that names a topic, and what stands between them."""
    asked = [message.content for message in messages if message.role == "user"]
    query = asked[-1] if asked else ""
    for earlier in reversed(asked[-1 - TURNS : -1]):
        query = f"{earlier}\n{query}"
        if (
            len(content(earlier)) > FEW
            and not _OPENS.search(plain(earlier))
            and not _POINTS_BACK.search(plain(earlier))
        ):
            break
    return query
