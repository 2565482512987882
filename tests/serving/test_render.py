"""The page's HTML and texts without a browser."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medtune.errors import PrerequisiteError
from medtune.serving.page import render, talk
from medtune.serving.page.talk import Talk, Turn
from medtune.serving.page.texts import languages, texts
from medtune.serving.scripted import SOURCE, ScriptedAssistant
from medtune.types import Message, Verdict

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def turn_of(question: str, **parts) -> Turn:
    turn = Turn(question=question)
    for event in ScriptedAssistant(**parts).stream([Message("user", question)]):
        turn.add(event)
    return turn


def shape(value):
    """The keys of a language's texts, all the way down."""
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else type(value)


def test_every_language_has_the_same_texts():
    assert set(languages()) >= {"en", "es"}
    english = texts("en")
    for code in languages():
        assert shape(texts(code)) == shape(english)
        for key in ("call", "source", "withheld_many", "voted", "too_long"):
            fields = english[key].split("{")[1:]
            assert all("{" + field.split("}")[0] + "}" in texts(code)[key] for field in fields)


def test_a_language_without_texts_is_explained():
    with pytest.raises(PrerequisiteError, match="en, es"):
        texts("xx")


def test_everything_written_by_others_is_escaped():
    turn = turn_of(EVIL, default=EVIL)
    evil = replace(SOURCE, title=EVIL, url="javascript:alert(1)", licence=EVIL, quote=EVIL)
    turn.reply = replace(turn.reply, sources=(evil,), disclaimer=EVIL, phone=EVIL, disclosure=EVIL)
    turn.error = turn.model = EVIL
    for state in ("done", "failed"):
        turn.state = state
        for options in ({}, {"is_live": True}, {"is_side": True}, {"can_rate": True}):
            html = render.turns([turn], texts("en"), **options)
            assert "<script" not in html
            assert "<img" not in html
            assert "javascript:" not in html
    streaming = Turn(question=EVIL, parts=[(EVIL, EVIL)])
    assert "<script" not in render.turns([streaming], texts("en"), is_live=True)
    assert "<h1>" not in render.report("<h1>x</h1>", texts("en"))
    assert "<b>" not in render.status("<b>") + render.notice("<b>")


@pytest.mark.parametrize(("url", "is_link"), [
    ("https://a.b/c", True), ("http://a", True), ("javascript:alert(1)", False), ("data:text/html,x", False),
    ("", False), ("//a.b", False), ("http://[", False), ("java\tscript:alert(1)", False),
])  # fmt: skip
def test_only_the_web_is_linked(url, is_link):
    assert render.is_link(url) is is_link


def test_a_phone_link_holds_digits_alone():
    assert render.phone_link("+1 (800) 22-1222; ext=x") == "+1800221222"


def test_the_emergency_shows_before_the_text():
    turn = Turn(question="q")
    turn.add(next(iter(ScriptedAssistant().stream([Message("user", "chest pain")]))))
    assert 'role="alert"' in render.turns([turn], texts("en"), is_live=True)
    turn.verdicts = [Verdict("emergency", True, 1.0, "", is_error=True)]
    assert turn.urgency == "routine"  # a guard that broke is no emergency; the reply says what it is


@pytest.mark.parametrize("kept", [
    None, 5, "x", [], {"turns": 1}, {"turns": [{"question": 3}]}, {"id": "../x"}, {"turns": [{"question": "q"}] * 101},
    {"turns": [{"question": "q", "reply": {"urgency": "maybe"}}]},
])  # fmt: skip
def test_what_the_browser_sends_may_be_anything(kept):
    assert talk.read(kept).turns == []


def test_a_conversation_survives_the_browser():
    before = Talk(turns=[turn_of("Why am I tired?"), Turn(question="cut off", parts=[("in_short", "Half an")])])
    after = talk.read(json.loads(json.dumps(before.model_dump(mode="json"))))
    assert after.turns[0] == before.turns[0]
    assert after.turns[1].state == "stopped"
    after.turns.append(Turn(question="And?"))
    assert [m.content for m in after.messages()][2:] == ["cut off", "Half an", "And?"]
