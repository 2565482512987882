"""Text to sentences, whole or as it streams in.

Covered: abbreviations, initials, decimals, numbered and bulleted lists, headings on a line of their own, English and
Spanish. Not covered: languages without spaces between sentences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ABBREVIATIONS = frozenset(
    """dr dra mr mrs ms prof sr sra st vs etc eg ie e.g i.e cf al fig no approx ca resp incl esp min max mg mcg ml kg
    vol ref dept hosp pt pts tab tabs cap caps inj p.ej ej aprox pág núm u.s u.k a.m p.m d.c ph.d m.d""".split()  # noqa: SIM905
)
MAY_END = frozenset("a.m p.m u.s u.k etc mg ml kg mcg no min max".split())  # noqa: SIM905
"""Abbreviations that often end a sentence: a capital letter after them begins a new one."""
_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|\n+")
_ITEM = re.compile(r"\s*(?:[-*•·–]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+(?=\S)")
_MARK = re.compile(r"\s*(?:\d{1,2}|[a-zA-Z])[.)]\s*$")


def split(text: str) -> list[str]:
    """The sentences of `text`, trimmed, without list marks; nothing else is changed or lost."""
    splitter = Splitter()
    return [*splitter.feed(text), *splitter.rest()]


class Splitter:
    """Sentences as text comes in: each is given out once, as soon as it cannot grow any more."""

    def __init__(self) -> None:
        self.held = ""

    def feed(self, text: str) -> list[str]:
        """Sentences that are whole now."""
        self.held += text
        done, start = [], 0
        for hit in _END.finditer(self.held):
            # Until the next sentence has begun, a full stop may be an abbreviation's.
            after = self.held[hit.end() :].lstrip()
            if not after and "\n" not in hit[0]:
                break
            if "\n" in hit[0] or _ends_here(self.held[start : hit.end()], after):
                done.append(self.held[start : hit.end()])
                start = hit.end()
        self.held = self.held[start:]
        return _clean(done)

    def rest(self) -> list[str]:
        """What is left when no more text comes."""
        held, self.held = self.held, ""
        return _clean([held])


def _ends_here(sentence: str, after: str) -> bool:
    """Whether the full stop at the end of `sentence` ends it, given what stands `after` it."""
    if sentence.rstrip("\"'”’)]").endswith(("!", "?", "…")):
        return True
    if _MARK.fullmatch(sentence):
        return False  # the number of a list item
    word = sentence.rstrip(".\"'”’)]").rsplit(None, 1)[-1].lower().lstrip("(\"'“‘[") if sentence.strip(" .") else ""
    if word in MAY_END:
        return after[:1].isupper() or bool(_ITEM.match(after))
    if word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
        return False
    return not after[:1].islower()


def _clean(sentences: Sequence[str]) -> list[str]:
    kept = (_ITEM.sub("", sentence, count=1) if _ITEM.match(sentence) else sentence for sentence in sentences)
    return [text for sentence in kept if (text := " ".join(sentence.split())) and any(map(str.isalnum, text))]
