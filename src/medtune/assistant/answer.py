"""From a question that may be answered to the sections of its answer, each sentence with what supports it.

Covered: `quote`, the passages' own sentences under the headings they belong to, where the model phrases the lead alone;
`generate`, where it answers from the passages and every sentence is checked before it is shown; saying that no source
was found. Not covered: what must come first (`assistant`), how support is measured (`grounding`).

Nothing generated is shown before it was checked: the model's pieces are held back until a sentence is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.assistant import injection, window
from medtune.assistant.draft import Draft
from medtune.assistant.query import query_of
from medtune.assistant.quoting import SECTION_OF, quotes
from medtune.assistant.sentences import Splitter, split
from medtune.assistant.words import content
from medtune.errors import MedtuneError
from medtune.models.engine import Engine, Sampling
from medtune.types import Completion, Event, Message, Passage, Sentence

if TYPE_CHECKING:
    from medtune.assistant.assistant import Assistant

log = logging.getLogger(__name__)

PROMPTS = Path(__file__).parent / "prompts"
CAPABLE_PARAMETERS = 500_000_000
"""From this size `answer: auto` lets the model answer; a smaller one quotes better than it writes."""
LEAD_TOKENS, LEAD_SENTENCES = 48, 2
LEAD_SUPPORT = 0.8
"""Support that a lead needs at least: small models make false sentences of a passage's own words (scores to .62)."""
PASSAGE_CHARACTERS = 1200
SAID = 0.6
"""Share of a quoted sentence's words from which the lead has said it already."""
WINDOW = 4096
"""Tokens that an engine is taken to hold where it does not say."""


@cache
def prompt(name: str) -> str:
    """The text of prompts/NAME.md."""
    return (PROMPTS / f"{name}.md").read_text(encoding="utf-8").strip()


def answer(
    assistant: Assistant, draft: Draft, turns: Sequence[Message], engine: Engine | None, sampling: Sampling
) -> Iterator[Event]:
    """The answer's text events; what it rests on and what was withheld is noted in `draft`.

    `engine` None quotes alone. What the engine raises passes through in `generate`; a quoted answer does without it.
    """
    with draft.timed("search"):
        passages = assistant.passages(turns)
    if not passages:
        yield from draft.say_all("notice", draft.wording.fixed("no_source"))
        return
    if engine is not None and mode(assistant.section.answer, engine) == "generate":
        yield from _generate(assistant, draft, turns, passages, engine, sampling)
    else:
        yield from _quote(assistant, draft, turns, passages, engine, sampling)


def mode(asked: str, engine: Engine) -> str:
    """`quote` or `generate`: what the recipe says, and for `auto` by the model's size (unknown: generate)."""
    if asked != "auto":
        return asked
    return "quote" if engine.parameters is not None and engine.parameters < CAPABLE_PARAMETERS else "generate"


def _quote(
    assistant: Assistant,
    draft: Draft,
    turns: Sequence[Message],
    passages: Sequence[Passage],
    engine: Engine | None,
    sampling: Sampling,
) -> Iterator[Event]:
    """The lead in the model's words where they are backed, then what the best passage's document says."""
    draft.topic = passages[0].title
    document = assistant.neighbours(passages[0]) if passages[0].section in SECTION_OF else passages[:1]
    lead = ""
    if engine is not None:
        known = list({passage.id: passage for passage in (*document, *passages)}.values())
        for event in _lead(assistant, draft, turns, known, engine, sampling):
            lead += event.text
            yield event
    said = "\n".join(message.content for message in turns if message.role == "assistant")
    with draft.timed("quoting"):
        found = quotes(assistant.grounding, turns[-1].content, document, said)
    if not found and not lead:
        yield from draft.say_all("notice", draft.wording.fixed("no_source"))
    for quote in found:
        if quote.section == "in_short" and lead and assistant.grounding.recall(content(quote.text), lead) > SAID:
            continue
        draft.cite(quote.passage, quote.text)
        yield draft.say(quote.section, Sentence(quote.text, "supported", (quote.passage.id,), 1.0))


def _lead(
    assistant: Assistant,
    draft: Draft,
    turns: Sequence[Message],
    passages: Sequence[Passage],
    engine: Engine,
    sampling: Sampling,
) -> Iterator[Event]:
    """One or two sentences by the model, up to the first that no passage backs; if it fails, the quotes go on alone."""
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, LEAD_TOKENS))
    # A small model reads badly: it is asked as it was tuned. A capable one gets the passage to read.
    small = mode("auto", engine) == "quote"
    asked = (Message("user", query_of(turns)),)
    messages = asked if small else _prompt("lead", turns[-1:], passages[:1], engine, sampling)
    sure, said = max(assistant.section.support, LEAD_SUPPORT), 0
    try:
        with closing(_written(assistant, draft, messages, engine, sampling, passages, sure)) as sentences:
            for sentence, why in sentences:
                if why:
                    draft.withhold(sentence.text, why)
                    return
                yield _cited(draft, "in_short", sentence, passages)
                said += 1
                if said == LEAD_SENTENCES:
                    return
    except (MedtuneError, RuntimeError, OSError) as error:
        log.warning("The lead was left out: %s", error)


def _generate(
    assistant: Assistant,
    draft: Draft,
    turns: Sequence[Message],
    passages: Sequence[Passage],
    engine: Engine,
    sampling: Sampling,
) -> Iterator[Event]:
    """The model's answer as far as the passages back it; where they back none of it, the passages' own words."""
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, assistant.section.max_new_tokens))
    messages = _prompt("generate", turns, passages, engine, sampling)
    said = 0
    for sentence, why in _written(assistant, draft, messages, engine, sampling, passages, assistant.section.support):
        if why and assistant.section.unsupported == "drop":
            draft.withhold(sentence.text, why)
            continue
        marked = _marked(draft, sentence) if why else sentence
        yield _cited(draft, "details" if said else "in_short", marked, passages)
        said += not why
    draft.finish_reason = draft.completion.finish_reason if draft.completion else "stop"
    if not said:
        yield from _quote(assistant, draft, turns, passages, None, sampling)
        return
    care = [p for p in assistant.neighbours(passages[0]) if SECTION_OF.get(p.section) == "seek_care"]
    for passage in care:
        for text in split(passage.text):
            draft.cite(passage, text)
            yield draft.say("seek_care", Sentence(text, "supported", (passage.id,), 1.0))


def _written(
    assistant: Assistant,
    draft: Draft,
    messages: Sequence[Message],
    engine: Engine,
    sampling: Sampling,
    passages: Sequence[Passage],
    threshold: float,
) -> Generator[tuple[Sentence, str], None, None]:
    """Generated sentences as they become whole, each with why it is unsupported ("" where it is supported)."""
    splitter, pieces, seen = Splitter(), 0, set[str]()
    draft.completion = Completion("", prompt_tokens=engine.count(messages))
    with closing(engine.stream(messages, sampling)) as stream:
        for piece in draft.timing("generation", stream):
            pieces += 1
            draft.completion = piece.completion or replace(draft.completion, completion_tokens=pieces)
            whole = splitter.feed(piece.text)
            if piece.completion:
                rest = splitter.rest()
                whole += rest if piece.completion.finish_reason == "stop" else []
                for text in rest if piece.completion.finish_reason != "stop" else ():
                    draft.withhold(text, "cut off")
            for text in whole:
                if text.endswith(":") or text in seen:  # a heading that the model has learned, or it turns in circles
                    continue
                seen.add(text)
                with draft.timed("grounding"):
                    checked = assistant.grounding.check(text, passages, threshold)
                yield checked


def _marked(draft: Draft, sentence: Sentence) -> Sentence:
    return replace(sentence, text=f"{draft.wording.line('unsupported')} {sentence.text}")


def _cited(draft: Draft, section: str, sentence: Sentence, passages: Sequence[Passage]) -> Event:
    for passage in passages:
        if passage.id in sentence.passages:
            draft.cite(passage, split(passage.text)[0])
    return draft.say(section, sentence)


def _prompt(
    name: str, turns: Sequence[Message], passages: Sequence[Passage], engine: Engine, sampling: Sampling
) -> tuple[Message, ...]:
    """System text, earlier turns, and the question under as many passages as the engine's window takes."""
    texts = [injection.neutralise(f"{p.title}. {p.section}. {p.text}", PASSAGE_CHARACTERS) for p in passages]

    def question(shown: int) -> str:
        return "\n\n".join([*texts[:shown], f"Question: {turns[-1].content}"])

    room = max((engine.window or WINDOW) - sampling.max_new_tokens, 64)
    return window.fit(prompt(name), turns[:-1], question, len(texts), engine.count, room)
