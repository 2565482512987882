from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict

import pytest

from medtune.assistant.assistant import Assistant
from medtune.models.engine import Piece, Sampling
from medtune.models.scripted import ScriptedEngine
from medtune.types import Event, Message, Verdict

Make = Callable[..., Assistant]
STROKE = Verdict("emergency", True, 0.9, "a face that droops", "stroke")
PLAN = Verdict("crisis", True, 0.9, "a plan", "self-harm plan")
OUT = Verdict("scope", False, 0.1, "no health question")
INJECTED = Verdict("injection", True, 0.9, "asks to ignore the rules")
BROKEN = Verdict("crisis", True, 1.0, "weights are missing", is_error=True)


class Untouchable:
    """An engine that no request may reach."""

    name, hash, parameters, window = "untouchable", "x", 10**10, 4096

    def count(self, messages: Sequence[Message]) -> int:
        raise AssertionError(f"the model was touched: {messages}")

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        raise AssertionError(f"the model was touched: {messages}, {sampling}")


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if event.kind == "text")


@pytest.mark.parametrize(
    "fired", [{}, {"emergency": STROKE}, {"scope": OUT}, {"crisis": BROKEN}, {"injection": INJECTED}]
)
@pytest.mark.parametrize("answer", ["quote", "generate"])
def test_the_events_add_up_to_the_reply(make: Make, asked: Sequence[Message], fired: dict[str, Verdict], answer: str):
    assistant = make({"answer": answer}, fired, engine=ScriptedEngine("Smoke and pollen can set off asthma."))
    events = list(assistant.stream(asked))
    reply = assistant.reply(asked)
    assert events[-1].reply is not None
    assert {**asdict(events[-1].reply), "seconds": 0} == {**asdict(reply), "seconds": 0}
    assert text_of(events) == reply.text
    kinds = [event.kind for event in events]
    assert kinds == sorted(kinds, key=("verdict", "text", "sources", "withheld", "reply").index)
    assert kinds.count("verdict") == 5
    assert reply.disclaimer


@pytest.mark.parametrize(
    "fired", [{"emergency": STROKE}, {"crisis": PLAN}, {"emergency": STROKE, "crisis": PLAN, "scope": OUT}]
)
def test_an_emergency_never_touches_the_model(make: Make, asked: Sequence[Message], fired: dict[str, Verdict]):
    reply = make({"answer": "generate"}, fired, engine=Untouchable()).reply(asked)
    assert reply.urgency == "emergency"
    assert not reply.is_error
    assert reply.sections[0].name == "escalation"
    assert reply.text.startswith(f"{reply.sections[0].heading}\n{reply.sections[0].text}")
    assert all(sentence.support == "fixed" for section in reply.sections for sentence in section.sentences)
    assert reply.sources == ()


@pytest.mark.parametrize("name", ["emergency", "crisis", "scope", "injection", "advice"])
def test_a_guard_that_cannot_decide_closes(make: Make, asked: Sequence[Message], name: str):
    fault = Verdict(name, name != "scope", 1.0, "weights are missing", is_error=True)
    reply = make({}, {name: fault}, engine=Untouchable()).reply(asked)
    assert reply.is_error
    assert reply.urgency == "urgent"
    assert "911" in reply.text
    assert reply.sources == ()
    assert len(reply.sections[0].sentences) == 3, "every sentence once"


@pytest.mark.parametrize(
    "messages", [[], [Message("user", "  ")], [Message("system", "x")], [Message("assistant", "Hi")]]
)
def test_nothing_asked_is_answered_with_what_can_be_asked(make: Make, messages: list[Message]):
    reply = make(fired=lambda _: {}["no turn"], engine=Untouchable()).reply(messages)
    assert (reply.urgency, reply.is_error, reply.verdicts) == ("not_medical", False, ())
    assert "about health" in reply.text
