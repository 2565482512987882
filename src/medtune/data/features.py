"""What duplicates, split and data card need to know about each conversation, in columns instead of objects.

A conversation's text goes to the spool file and only its hashes, counts and word set stay in memory: at most 1.6 kB a
row, so that a million rows fit a laptop. Hashes are 64 bits of BLAKE2 over case-folded words, equal on every machine.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.data.near import WORD, Ints, WordSets, word_hashes
from medtune.types import Conversation

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Features:
    """One entry per conversation in every array. A hash of 0 means that there is none (no topic, no prompt)."""

    key: Hashes
    """Prompt and answer: what exact duplicates share."""
    prompt: Hashes
    """All turns before the answer but the system's."""
    answer: Hashes
    topic: Hashes
    words: WordSets
    """The answer's word set."""
    answer_words: Ints
    prompt_words: Ints
    source: Ints
    question_type: Ints
    file: Ints
    number: Ints
    offset: Ints
    """Where its line begins in the spool file."""

    def __len__(self) -> int:
        return len(self.key)


def hash64(text: str) -> int:
    """64 bits of `text`; 0 only for the empty text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") if text else 0


HASHES = ("key", "prompt", "answer", "topic")
COUNTS = ("answer_words", "prompt_words", "source", "question_type", "file", "number", "offset")


@dataclass
class Collector:
    """Grows the columns while conversations stream by. `files` and `question_types` turn names into numbers."""

    columns: dict[str, array[int]] = field(
        default_factory=lambda: {**{h: array("Q") for h in HASHES}, **{c: array("q") for c in COUNTS}}
    )
    words: array[int] = field(default_factory=lambda: array("I"))
    starts: array[int] = field(default_factory=lambda: array("q", [0]))
    files: dict[str, int] = field(default_factory=dict)
    question_types: dict[str, int] = field(default_factory=dict)

    def add(self, conversation: Conversation, *, source: int, file: str, number: int, offset: int) -> str:
        """Add one conversation; returns its id, a hash of its content."""
        answer = WORD.findall(conversation.answer.casefold())
        prompt = WORD.findall(" ".join(m.content for m in conversation.prompt if m.role != "system").casefold())
        folded_prompt, folded_answer = " ".join(prompt), " ".join(answer)
        topic = " ".join(WORD.findall(conversation.topic.casefold()))
        entry = {
            "key": hash64(f"{folded_prompt}\0{folded_answer}"),
            "prompt": hash64(folded_prompt),
            "answer": hash64(folded_answer),
            "topic": hash64(topic),
            "answer_words": len(answer),
            "prompt_words": len(prompt),
            "source": source,
            "question_type": self.question_types.setdefault(conversation.question_type, len(self.question_types)),
            "file": self.files.setdefault(file, len(self.files)),
            "number": number,
            "offset": offset,
        }
        for name, value in entry.items():
            self.columns[name].append(value)
        self.words.extend(word_hashes(answer))
        self.starts.append(len(self.words))
        return f"{entry['key']:016x}"

    def finish(self) -> Features:
        """The columns as arrays, without copying them."""
        arrays: dict[str, Any] = {name: np.frombuffer(self.columns[name], np.uint64) for name in HASHES}
        arrays |= {name: np.frombuffer(self.columns[name], np.int64) for name in COUNTS}
        words = WordSets(np.frombuffer(self.starts, np.int64), np.frombuffer(self.words, np.uint32))
        return Features(words=words, **arrays)
