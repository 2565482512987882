from __future__ import annotations

import pytest

from medtune.assistant.sentences import Splitter, split

TEXTS = {
    "Take it with food. Dr. Lee agrees.": ["Take it with food.", "Dr. Lee agrees."],
    "Give 2.5 mg. Then wait 3 hr. between doses.": ["Give 2.5 mg.", "Then wait 3 hr. between doses."],
    "Some foods, e.g. nuts, i.e. seeds vs. beans, harm. Others don't!": [
        "Some foods, e.g. nuts, i.e. seeds vs. beans, harm.",
        "Others don't!",
    ],
    "It starts at 9 a.m. It ends late.": ["It starts at 9 a.m.", "It ends late."],
    "J. Smith found it. Is it so? Yes.": ["J. Smith found it.", "Is it so?", "Yes."],
    "Do this:\n- Rest well\n- Drink water\n1. Call a doctor.\n2) Wait.": [
        "Do this:",
        "Rest well",
        "Drink water",
        "Call a doctor.",
        "Wait.",
    ],
    "1. Rest. 2. Drink.": ["Rest.", "Drink."],
    'He said "stop." Then he left.': ['He said "stop."', "Then he left."],
    "La Dra. Ruiz lo vio. ¿Es grave? No.": ["La Dra. Ruiz lo vio.", "¿Es grave?", "No."],
    "no full stop": ["no full stop"],
    " \n- \n": [],
}


@pytest.mark.parametrize("text", TEXTS)
def test_sentences_are_found(text: str) -> None:
    assert split(text) == TEXTS[text]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_stream_gives_the_same_sentences(text: str, size: int) -> None:
    splitter = Splitter()
    found = [s for at in range(0, len(text), size) for s in splitter.feed(text[at : at + size])]
    assert [*found, *splitter.rest()] == TEXTS[text]


def test_a_sentence_comes_as_soon_as_the_next_begins() -> None:
    splitter = Splitter()
    assert splitter.feed("Rest well.") == []
    assert splitter.feed(" N") == ["Rest well."]
    assert splitter.feed("ow drink\n") == ["Now drink"]
