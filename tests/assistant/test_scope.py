"""What is about health passes, with and without the encoder; a follow-up is read in its conversation."""

import pytest

from medtune.assistant import cases, scope
from medtune.assistant.guards import load_guards
from medtune.models.encoder import load_encoder
from medtune.recipe_assistant import GuardsSection
from medtune.types import Message

SCORES = {
    "my son has impetigo": 0.99,
    "who won the match": 0.01,
    "is it contagious?": 0.3,
    "write a poem about rain": 0.002,
}


def verdict(*turns):
    return scope.verdict([Message("user", turn) for turn in turns], lambda text: SCORES.get(text, 0.5), 0.6)


def test_a_follow_up_is_carried_by_a_conversation_about_health():
    assert not verdict("is it contagious?").verdict
    followed = verdict("my son has impetigo", "is it contagious?")
    assert followed.verdict
    assert "follow-up" in followed.reason
    assert not verdict("who won the match", "is it contagious?").verdict


def test_a_change_of_subject_is_not_carried():
    assert not verdict("my son has impetigo", "write a poem about rain").verdict


def test_a_longer_message_speaks_for_itself():
    long = " ".join(["word"] * (scope.TERSE_WORDS + 1))
    assert verdict("my son has impetigo", long).score == pytest.approx(0.5)


def test_a_follow_up_is_never_worse_than_the_message_alone():
    alone = verdict("my son has impetigo")
    assert verdict("who won the match", "my son has impetigo").score >= alone.score


def test_spanish_words_of_illness_count():
    assert verdict("me duele la garganta").score > verdict("me gusta la música").score


def test_without_a_user_turn_there_is_no_verdict():
    with pytest.raises(ValueError, match="no user turn"):
        scope.verdict([Message("assistant", "Hello")], lambda _: 0.9, 0.5)


@pytest.fixture(scope="module", params=["none", pytest.param("auto", marks=pytest.mark.slow)])
def guards(request):
    encoder = load_encoder(request.param)
    if request.param == "auto" and encoder is None:
        pytest.skip("no sentence encoder is installed")
    return load_guards(GuardsSection(), encoder)


def shares(guards, chosen):
    head, encoder = guards.classifiers["scope"], guards.encoder
    vectors = encoder.encode([case.text for case in chosen]) if encoder else [None] * len(chosen)
    known = {case.text: head.score(*pair) for case, pair in zip(chosen, grams(chosen, vectors), strict=True)}

    def score_of(text):
        vector = encoder.encode([text])[0] if encoder else None
        return known.get(text) or head.score(*next(grams([text], [vector])))

    threshold = guards.thresholds["scope"]
    right = {True: [], False: []}
    for case in chosen:
        found = scope.verdict(case.messages, score_of, threshold).verdict
        right[case.labels["in_scope"]].append(found == case.labels["in_scope"])
    return {label: sum(found) / len(found) for label, found in right.items()}


def grams(chosen, vectors):
    from medtune.assistant.classifier import ngrams

    for case, vector in zip(chosen, vectors, strict=True):
        yield ngrams(case if isinstance(case, str) else case.text), vector


def test_the_written_test_set(guards):
    """Every third case; the whole set is for `medtune guard evaluate`."""
    chosen = cases.read(cases.EXAMPLES / "scope_test.jsonl")
    assert sum(case.labels["in_scope"] for case in chosen) >= 290
    assert sum(not case.labels["in_scope"] for case in chosen) >= 300
    found = shares(guards, chosen[::3])
    floor = 0.9 if guards.encoder else 0.75
    assert found[True] >= floor
    assert found[False] >= floor


def test_nothing_of_the_test_set_was_trained_on():
    trained = {case.text.casefold() for case in cases.read(cases.EXAMPLES / "scope_train.jsonl")}
    held_out = cases.read(cases.EXAMPLES / "scope_test.jsonl")
    assert [case.text for case in held_out if case.text.casefold() in trained and len(case.messages) == 1] == []
