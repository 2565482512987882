"""A reply in the making: what has been said so far, as events and as the value that they add up to.

Covered: the separators that make the joined text events equal `Reply.text`, sources, what was withheld, timings.
Not covered: what is said (`assistant`, `answer`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from medtune.assistant.wording import Wording
from medtune.types import (
    Completion,
    Event,
    FinishReason,
    Passage,
    Reply,
    ReplySection,
    Sentence,
    Source,
    Urgency,
    Verdict,
    Withheld,
)

QUOTE_CHARACTERS = 240
T = TypeVar("T")


@dataclass
class Draft:
    """Grows while a reply is made; `reply` freezes it. `topic` stands in the heading of the short answer."""

    wording: Wording
    disclaimer: str
    disclosure: str
    phone: str = ""
    topic: str = ""
    urgency: Urgency = "routine"
    verdicts: tuple[Verdict, ...] = ()
    sections: list[ReplySection] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)
    completion: Completion | None = None
    finish_reason: FinishReason = "stop"
    is_error: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    has_text: bool = False
    disclosing: str = ""

    def __post_init__(self) -> None:
        self.disclosing = self.disclosure

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time spent inside to `seconds[step]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start

    def timing(self, step: str, items: Iterable[T]) -> Iterator[T]:
        """`items`, with the time that each one takes added to `seconds[step]`."""
        iterator = iter(items)
        while True:
            with self.timed(step):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def disclose(self) -> Iterator[Event]:
        """The AI disclosure, once; an emergency's comes after its sections."""
        text, self.disclosing = self.disclosing, ""
        yield from self.plain(text, "disclosure")

    def say(self, section: str, sentence: Sentence) -> Event:
        """One more sentence. A section that is not the last one said opens a new one."""
        heading = self.wording.heading(section)
        if section == "in_short" and self.topic:
            heading = f"{heading}: {self.topic}"
        if not self.sections or self.sections[-1].name != section:
            self.sections.append(ReplySection(section, heading, (sentence,)))
            return self._text(f"{heading}\n{sentence.text}" if heading else sentence.text, section)
        last = self.sections[-1]
        self.sections[-1] = ReplySection(section, last.heading, (*last.sentences, sentence))
        return Event("text", " " + sentence.text, section)

    def say_all(self, section: str, sentences: Sequence[Sentence]) -> Iterator[Event]:
        """Several sentences of one section."""
        for sentence in sentences:
            yield self.say(section, sentence)

    def show(self, section: ReplySection) -> Event:
        """A whole section that brings its own heading."""
        self.sections.append(section)
        return self._text(f"{section.heading}\n{section.text}" if section.heading else section.text, section.name)

    def plain(self, text: str, section: str) -> Iterator[Event]:
        """Disclosure or disclaimer, which stand beside the sections."""
        if text:
            yield self._text(text, section)

    def withhold(self, text: str, reason: str) -> None:
        """Note a generated sentence that is not shown."""
        self.withheld.append(Withheld(text, reason))

    def cite(self, passage: Passage, quote: str) -> None:
        """List a passage among the sources, once."""
        if passage.id in {source.id for source in self.sources}:
            return
        quote = quote if len(quote) <= QUOTE_CHARACTERS else quote[:QUOTE_CHARACTERS].rsplit(" ", 1)[0] + " ..."
        facts = (passage.title, passage.url, passage.date, passage.licence, passage.reviewed)
        self.sources.append(Source(passage.id, *facts, quote))

    def _text(self, text: str, section: str) -> Event:
        before, self.has_text = "\n\n" if self.has_text else "", True
        return Event("text", before + text, section)

    def reply(self) -> Reply:
        """The finished value."""
        spent = self.completion or Completion("")
        return Reply(
            self.urgency,
            tuple(self.sections),
            tuple(self.sources),
            tuple(self.withheld),
            self.verdicts,
            self.disclaimer,
            self.disclosure,
            self.wording.language,
            self.phone,
            self.finish_reason,
            self.is_error,
            spent.prompt_tokens,
            spent.completion_tokens,
            {step: round(seconds, 6) for step, seconds in self.seconds.items()},
        )
