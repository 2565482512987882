"""Text normalisation, and the reasons for which a single conversation is dropped.

Covered: Unicode and white space; what one conversation shows by itself. Not covered: duplicates, which need all of them
(`duplicates`), and what a layout alone knows (`convert`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from medtune.recipe import CleanSection
from medtune.types import Conversation, Message

EMPTY, JUNK, TOO_LONG, EXCLUDED = (
    "empty question or answer",
    "fewer words than min_answer_words",
    "more words than max_answer_words",
    "answer matches data.clean.exclude",
)

_CONTROL = (*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F)
_ZERO_WIDTH = (0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF)
_HALF_CHARACTERS = range(0xD800, 0xE000)  # JSON can spell them; no file can hold them
_LINE_ENDS = {0x0D: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n\n"}
_TABLE = {**dict.fromkeys((*_CONTROL, *_ZERO_WIDTH, *_HALF_CHARACTERS)), **_LINE_ENDS}
_ODD = re.compile("[" + "".join(map(re.escape, map(chr, _TABLE))) + "]")
_BLANKS = re.compile(r" *[^\S\n ][^\S\n]*|  +")
_AROUND_BREAKS = re.compile(r" \n ?|\n ")
_MANY_BREAKS = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """NFC, no invisible characters, single spaces, lines without ragged ends, at most one empty line in a row."""
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if _ODD.search(text):
        text = text.replace("\r\n", "\n").translate(_TABLE)
    text = _AROUND_BREAKS.sub("\n", _BLANKS.sub(" ", text))
    return _MANY_BREAKS.sub("\n\n", text).strip()


def normalised(conversation: Conversation) -> Conversation:
    """The conversation with every turn and its topic normalised."""
    messages = tuple(Message(message.role, normalise(message.content)) for message in conversation.messages)
    return replace(conversation, messages=messages, topic=" ".join(normalise(conversation.topic).split()))


def rejection(conversation: Conversation, section: CleanSection) -> str:
    """Why this conversation is dropped; the empty string keeps it."""
    if not all(message.content for message in conversation.messages):
        return EMPTY
    words = len(conversation.answer.split())
    if words < section.min_answer_words:
        return JUNK
    if section.max_answer_words is not None and words > section.max_answer_words:
        return TOO_LONG
    if section.exclude and re.search(section.exclude, conversation.answer):
        return EXCLUDED
    return ""
