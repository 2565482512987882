"""What is searched for: the last question, with what it leaves unsaid taken from earlier turns.

Covered: follow-ups ("is it contagious?", "and for children?"). Not covered: the gist of a long message, which the
search itself finds (`knowledge`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medtune.assistant.words import content, plain
from medtune.types import Message

FEW = 3
"""A last turn with at most so many content words, or one that points back, is read together with earlier ones."""
_POINTS_BACK = re.compile(
    r"\b(?:it|its|that|this|these|those|they|them|he|she|him|her|one|same|there|eso|esto|ese|esa|ello|lo|la|los|las)\b"
)
_OPENS = re.compile(r"^\s*(?:and|but|so|what about|how about|what if|or|y|pero|entonces|que tal)\b")


def query_of(messages: Sequence[Message], turns: int = 3) -> str:
    """The text to search for; of earlier user turns, at most `turns`, the newest that says what the topic is."""
    asked = [message.content for message in messages if message.role == "user"]
    if not asked:
        return ""
    query = asked[-1]
    for earlier in reversed(asked[-1 - turns : -1]):
        if not _is_open(query):
            break
        query = f"{earlier}\n{query}"
        if len(content(earlier)) > 1 and not _OPENS.search(plain(earlier)):
            break
    return query


def _is_open(question: str) -> bool:
    """Whether a question cannot be understood without what was said before."""
    words = content(question)
    few = len(words) <= FEW
    return (
        not words or bool(_OPENS.search(plain(question)) and few) or bool(_POINTS_BACK.search(plain(question)) and few)
    )
