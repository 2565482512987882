"""A conversation in, a reply out that can be answered for: the same object behind terminal, API, page and evaluation.

Covered: the order of the steps and what each may do, events while they run, faults. Not covered: the guards
(`guards`), what is said in an emergency (`escalation`), searching (`knowledge`), wording an answer (`answer`), checking
it (`grounding`), putting all of this together from a run's folder (`open`).

The order: guards, on the user's own turns (a client's system message is dropped: it can switch nothing off); in an
emergency or crisis fixed text and nothing else; out of scope a refusal that says what can be asked; a note where the
question asks for individual advice; search; answer; at the end disclaimer and sources. The model sees a conversation
only after all guards have let it through. Whatever breaks, a guard above all, ends in a fixed reply with `is_error`.

Urgency: `emergency` where the emergency or crisis guard fires. `urgent` where the emergency guard comes near its
threshold (`NEAR`), or where individual advice is asked for in pregnancy or for a child; the first of these is told to
see a doctor today, the second to ask one before acting. `not_medical` out of scope. Else `routine`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from medtune.assistant import answer
from medtune.assistant.draft import Draft
from medtune.assistant.escalation import escalation, number, phone
from medtune.assistant.grounding import Grounding
from medtune.assistant.query import find
from medtune.assistant.wording import Wording, wording
from medtune.errors import MedtuneError
from medtune.models.engine import Engine, Sampling
from medtune.recipe_assistant import AssistantSection
from medtune.run_dir import hash_of
from medtune.types import Event, Hit, Message, Passage, Reply, Verdict

log = logging.getLogger(__name__)

NEAR = 0.3
"""Share of the emergency threshold from which a message that does not reach it is treated as urgent."""
ANSWERS = 0.05
"""Least probability of answering, as the search gives it, from which a passage is used. On the starter library this
keeps 95 % of people's own ways of asking and refuses three in four questions about diseases that it does not hold."""
FRAGILE = ("pregnancy", "child")


@dataclass(frozen=True)
class Assistant:
    """Everything that a reply rests on. Frozen and without state of its own: any number of threads may ask it.

    `check` is the guards on a conversation, by name; `search(text, k)` the best passages first; `neighbours(passage)`
    all passages of the same document, in order; `grounding` compares texts. `engine` None answers by quoting alone.
    `hashes` names what was loaded (guards, index, engine ...). `emergency_threshold` is the emergency guard's.
    """

    section: AssistantSection
    check: Callable[[Sequence[Message]], Mapping[str, Verdict]]
    search: Callable[[str, int], Sequence[Hit]]
    neighbours: Callable[[Passage], Sequence[Passage]]
    grounding: Grounding = field(default_factory=Grounding)
    engine: Engine | None = None
    emergency_threshold: float = 0.5
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Equal for assistants that answer alike: over what was loaded, the section and the fixed texts."""
        engine = self.engine.hash if self.engine else ""
        return hash_of(dict(self.hashes), engine, self.section.model_dump(mode="json"), self.wording.texts)

    @property
    def wording(self) -> Wording:
        """The fixed texts in the section's language."""
        country, language = self.section.country, self.section.language
        return wording(language, number("emergency", country, language))

    def in_language(self, code: str) -> Assistant:
        """The same with its fixed texts in that language; itself where it has none in it."""
        known = get_args(AssistantSection.model_fields["language"].annotation)
        return replace(self, section=self.section.model_copy(update={"language": code})) if code in known else self

    def reply(self, messages: Sequence[Message], sampling: Sampling | None = None) -> Reply:
        """The reply to a conversation that ends with the user's turn: the last event of `stream`."""
        *_, last = self.stream(messages, sampling)
        assert last.reply is not None
        return last.reply

    def stream(self, messages: Sequence[Message], sampling: Sampling | None = None) -> Generator[Event, None, None]:
        """The reply as it is made; see `Event` for the order. Never raises on what a conversation holds.

        `sampling` steers the model's wording; `assistant.max_new_tokens` stays the upper bound of its tokens. Closing
        the iterator stops the model.
        """
        turns = _conversation(messages)
        words = self.wording
        disclosure = "" if any(m.role == "assistant" for m in turns) else words.line("disclosure")
        draft = Draft(
            words, self.section.disclaimer or words.line("disclaimer"), disclosure, phone(self.section.country)
        )
        with draft.timed("total"):
            try:
                yield from self._steps(draft, turns, sampling or Sampling(self.section.max_new_tokens))
            except MedtuneError as error:
                log.error("The reply could not be made: %s", error)
                yield from _broken(draft)
            except Exception:  # whatever breaks, people get a safe reply and the log the reason
                log.exception("The reply could not be made.")
                yield from _broken(draft)
            yield from draft.disclose()
            yield from draft.plain(draft.disclaimer, "disclaimer")
        yield Event("sources", sources=tuple(draft.sources))
        yield Event("withheld", withheld=tuple(draft.withheld))
        yield Event("reply", reply=draft.reply())

    def passages(self, turns: Sequence[Message]) -> tuple[Passage, ...]:
        """What an answer to the last question may rest on, the best first; none where nothing found answers it."""
        hits = find(self.search, turns, self.section.knowledge.passages)
        return tuple(hit.passage for hit in hits if hit.score >= ANSWERS)

    def _steps(self, draft: Draft, turns: Sequence[Message], sampling: Sampling) -> Iterator[Event]:
        if not turns:
            yield from draft.disclose()
            yield from _turned_away(draft)
            return
        with draft.timed("guards"):
            verdicts = self.check(turns)
        draft.verdicts = tuple(verdicts.values())
        for verdict in draft.verdicts:
            yield Event("verdict", verdict=verdict)
        alarms = [v for name in ("emergency", "crisis") if (v := verdicts[name]).verdict and not v.is_error]
        if alarms:
            draft.urgency = "emergency"
            for alarm in alarms:
                for section in escalation(alarm, self.section.country, self.section.language):
                    yield draft.show(section)
            return
        yield from draft.disclose()
        if any(verdict.is_error for verdict in draft.verdicts):
            log.error("A guard could not decide: %s", "; ".join(v.reason for v in draft.verdicts if v.is_error))
            yield from _broken(draft)
            return
        if not verdicts["scope"].verdict:
            yield from _turned_away(draft)
            return
        yield from self._notices(draft, verdicts)
        # A conversation that tries to instruct the assistant is answered from the passages' own words alone.
        engine = None if verdicts["injection"].verdict else self.engine
        yield from answer.answer(self, draft, turns, engine, sampling)

    def _notices(self, draft: Draft, verdicts: Mapping[str, Verdict]) -> Iterator[Event]:
        """What must be said before an answer, and how urgent the question is."""
        if verdicts["emergency"].score >= NEAR * self.emergency_threshold:
            draft.urgency = "urgent"
            yield from draft.say_all("notice", draft.wording.fixed("urgent"))
        advice = verdicts["advice"]
        if advice.verdict:
            draft.urgency = "urgent" if advice.kind in FRAGILE else draft.urgency
            yield from draft.say_all("notice", draft.wording.fixed("advice", advice.kind))


def _turned_away(draft: Draft) -> Iterator[Event]:
    """The reply to what is no question about health: what can be asked instead."""
    draft.urgency = "not_medical"
    yield from draft.say_all("notice", draft.wording.fixed("out_of_scope"))


def _broken(draft: Draft) -> Iterator[Event]:
    """The safe reply where something failed: nothing generated, the emergency number, whom else to ask."""
    draft.is_error, draft.finish_reason = True, "error"
    draft.urgency = "urgent" if draft.urgency == "routine" else draft.urgency
    if draft.urgency != "emergency":
        yield from draft.disclose()
    words = draft.wording.fixed("broken")
    if any(section.name != "notice" for section in draft.sections):
        words = (*draft.wording.fixed("cut_off"), *words[1:])
    yield from draft.say_all("notice", words)


def _conversation(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The user's and the assistant's turns that say something, up to the user's last one."""
    turns = [m for m in messages if m.role in ("user", "assistant") and m.content.strip()]
    while turns and turns[-1].role != "user":
        turns.pop()
    return tuple(turns)
