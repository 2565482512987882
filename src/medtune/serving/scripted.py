"""The test double for `Assistant`: replies from a table, word by word. No model, no guards' weights, no torch.

Covered: the same interface and the same order of events as `assistant.assistant.Assistant`, pauses, faults, a count of
what was generated. Not covered: understanding anything: an emergency is a message that contains a word of `EMERGENCY`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from medtune.models.engine import Piece, Sampling
from medtune.types import (
    Completion,
    Event,
    Message,
    Reply,
    ReplySection,
    Sentence,
    Source,
    Support,
    Verdict,
    Withheld,
)

EMERGENCY = ("chest pain", "stroke now", "dolor de pecho")
OUT_OF_SCOPE = ("football", "tax return", "fútbol")
SOURCE = Source(
    "anaemia-1",
    "Iron-deficiency anaemia",
    "https://example.org/anaemia",
    "2025-03-01",
    "CC BY 4.0",
    reviewed=True,
    quote="Iron-deficiency anaemia makes people tired.",
)


@dataclass
class ScriptedEngine:
    """Answers every prompt with one word; `is_dead` makes it fail as a model that is away."""

    name: str = "scripted"
    hash: str = "scripted"
    parameters: int | None = None
    window: int | None = None
    is_dead: bool = False
    asked: int = 0

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Piece]:
        del messages, sampling
        self.asked += 1
        if self.is_dead:
            raise ConnectionError("the scripted engine is dead")
        yield Piece("yes", Completion("yes", "stop", 1, 1, 0.0))


@dataclass
class ScriptedAssistant:
    """`answers` maps the last user turn to its answer; others get `default`. Each word takes `seconds_per_word`.

    `generated` counts the words that the script spoke in the model's name; a fixed reply adds none. `cut_after` breaks
    with an error of the assistant itself after so many words, as a fault would. `calls` keeps (messages, sampling).
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    default: str = "Iron-deficiency anaemia makes people tired. It is common."
    seconds_per_word: float = 0.0
    cut_after: int | None = None
    engine: ScriptedEngine | None = field(default_factory=ScriptedEngine)
    generated: int = 0
    languages: list[str] = field(default_factory=list)
    calls: list[tuple[tuple[Message, ...], Sampling | None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def in_language(self, code: str) -> ScriptedAssistant:
        """Itself; `languages` keeps what was asked for."""
        self.languages.append(code)
        return self

    def check(self, messages: Sequence[Message]) -> Mapping[str, Verdict]:
        text = next((m.content for m in reversed(messages) if m.role == "user"), "").lower()
        found = next((word for word in EMERGENCY if word in text), "")
        is_foreign = any(word in text for word in OUT_OF_SCOPE)
        return {
            "emergency": Verdict(
                "emergency", bool(found), float(bool(found)), f"names {found!r}" if found else "", found
            ),
            "scope": Verdict("scope", not is_foreign, float(not is_foreign), "not about health" if is_foreign else ""),
        }

    def stream(self, messages: Sequence[Message], sampling: Sampling | None = None) -> Iterator[Event]:
        """Verdicts, text, sources, withheld, reply."""
        self.calls.append((tuple(messages), sampling))
        verdicts = self.check(messages)
        for verdict in verdicts.values():
            yield Event("verdict", verdict=verdict)
        reply = self._reply(messages, verdicts)
        yield from self._words(reply)
        yield Event("sources", sources=reply.sources)
        yield Event("withheld", withheld=reply.withheld)
        yield Event("reply", reply=reply)

    def _words(self, reply: Reply) -> Iterator[Event]:
        is_fixed = reply.urgency != "routine"
        parts = [("disclosure", reply.disclosure), *((s.name, s.text) for s in reply.sections)]
        parts = [part for part in (*parts, ("disclaimer", reply.disclaimer)) if part[1]]
        for number, (name, text) in enumerate(parts):
            if number:
                yield Event("text", "\n\n", name)
            is_generated = not is_fixed and name not in ("disclosure", "disclaimer")
            for count, word in enumerate(re.findall(r"\S+\s*", text)):
                if is_generated:
                    with self._lock:
                        self.generated += 1
                    if self.cut_after is not None and count >= self.cut_after:
                        raise RuntimeError("the script breaks here")
                    time.sleep(self.seconds_per_word)
                yield Event("text", word, name)

    def _reply(self, messages: Sequence[Message], verdicts: Mapping[str, Verdict]) -> Reply:
        question = next((m.content for m in reversed(messages) if m.role == "user"), "")
        kept = tuple(verdicts.values())
        if verdicts["emergency"].verdict:
            advice = _section("escalation", "fixed", "Call 112 now.", "Do not drive yourself.")
            return Reply("emergency", (advice,), verdicts=kept, phone="112")
        disclosure = "" if any(m.role == "assistant" for m in messages) else "I am a program, not a doctor."
        disclaimer = "This is information, not medical advice."
        if not verdicts["scope"].verdict:
            notice = _section("notice", "fixed", "I answer questions about health.")
            return Reply("not_medical", (notice,), verdicts=kept, disclosure=disclosure, disclaimer=disclaimer)
        text = self.answers.get(question, self.default)
        words = len(text.split())
        return Reply(
            "routine",
            (_answer(text),),
            sources=(SOURCE,),
            withheld=(Withheld("Take 500 mg.", "a dose that no source names"),),
            verdicts=kept,
            prompt_tokens=sum(len(m.content.split()) for m in messages),
            completion_tokens=words,
            seconds={"total": words * self.seconds_per_word},
            disclosure=disclosure,
            disclaimer=disclaimer,
        )


def _answer(text: str) -> ReplySection:
    """The first sentence rests on the source, the others on nothing."""
    sentences = re.split(r"(?<=[.!?]) ", text)
    return ReplySection(
        "in_short",
        "",
        tuple(
            Sentence(s, "unsupported" if n else "supported", () if n else (SOURCE.id,), 0.1 if n else 0.9)
            for n, s in enumerate(sentences)
        ),
    )


def _section(name: str, support: Support, *sentences: str) -> ReplySection:
    return ReplySection(name, "", tuple(Sentence(text, support) for text in sentences))
