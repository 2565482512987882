"""What is found: subject, kind of answer, misspelt names, and nothing where there is nothing."""

import pytest

from medtune.knowledge.gist import gist
from medtune.knowledge.index import build, open_index
from medtune.knowledge.kinds import CUES, cues
from medtune.knowledge.names import names_of
from medtune.knowledge.passages import read_entries
from medtune.knowledge.search import all_weights, features, search
from medtune.knowledge.words import words
from medtune.models.encoder import load_encoder
from medtune.recipe_assistant import KnowledgeSource

RAMBLING = (
    "Hello dear sir\nMy father is 71 and lives alone since my mother left. We drove six hours to see him last week. "
    "Our car broke down twice and the weather was bad. He has had gout for years. He eats what he likes and sleeps "
    "well. The dog is fine too. My sister says that all of us should move there, which is not possible for me now. "
    "I work nights and my wife works days so that there is always somebody at home. Last summer he fell off a ladder "
    "but nothing came of it. What are the best treatments for his gout? Thanks a lot"
)


@pytest.fixture
def by_words(tmp_path, corpus):
    build(corpus, tmp_path / "index", None)
    return open_index(tmp_path / "index", None)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("what are the treatments for asthma", "Asthma/treatment"),
        ("Is Marfan syndrome hereditary? my son has it", "Marfan syndrome/inheritance"),
        ("is MFS inherited", "Marfan syndrome/inheritance"),
        ("what causes astma", "Asthma/causes"),
        (RAMBLING, "Gout/treatment"),
    ],
)
def test_subject_and_kind_are_found_by_words_alone(by_words, message, expected):
    assert search(by_words, message, 3)[0].passage.id == expected


def test_meaning_finds_what_words_do_not(tmp_path, corpus, encoder):
    build(corpus, tmp_path / "index", encoder)
    index = open_index(tmp_path / "index", encoder)
    found = features(index, "airways narrow")
    assert found["text"].argmax() == 3
    assert set(found) > {"question", "text"}


def test_scores_fall_and_lie_between_0_and_1(by_words):
    scores = [hit.score for hit in search(by_words, "treatment of gout", 9)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)


@pytest.mark.parametrize("text", ["", "   ", "?!", "zzzz qqqq"])
def test_nothing_is_found_where_no_word_is_shared(by_words, text):
    assert search(by_words, text) == []


def test_more_hits_than_passages_are_all_passages(by_words, corpus):
    assert len(search(by_words, "gout asthma marfan syndrome treatment inherited", 50)) <= len(corpus)


def test_lists_of_links_are_not_prose(by_words):
    assert by_words.is_prose.tolist() == [row != 2 for row in range(9)]


def test_a_long_message_is_cut_to_opening_and_questions():
    found = gist(RAMBLING, most=40)
    assert found.opening.startswith("My father is 71")
    assert "best treatments for his gout?" in found.text
    assert "Hello" not in found.text
    assert "Thanks" not in found.text
    assert len(found.text.split()) <= 40


def test_a_short_message_stays_whole_but_for_courtesies():
    assert gist("Dear Sir,\nmy knee hurts. what is it?").text == "my knee hurts. what is it?"
    assert gist("hello").text == "hello"
    mail = gist("SUBJECT: gout MESSAGE: Hi, I am [NAME]. Does gout run in families?")
    assert (mail.opening, mail.text) == ("gout", "gout I am . Does gout run in families?")
    assert gist("Hello Dr, my son has asthma. What helps?").text == "my son has asthma. What helps?"
    assert gist(" ?! ").text == ""


def test_a_misspelt_name_is_read_as_the_nearest():
    names = names_of(["Fibromyalgia", "Gout"], 10, lambda word: 5 if word in ("fibromyalgia", "gout") else 0)
    covered, _ = names.mentioned("i have fibromialgia")
    assert covered[0] == pytest.approx(0.85 * 11 / 12, abs=0.02)
    assert covered[1] == 0
    assert names.mentioned("a goat")[0].max() == 0  # short words are not corrected


def test_rare_words_of_a_name_weigh_more():
    names = names_of(["Marfan syndrome"], 100, {"marfan": 1, "syndrome": 90}.get)
    assert names.mentioned("marfan")[0][0] > 0.8
    assert names.mentioned("syndrome")[0][0] < 0.2


def test_words_are_compared_in_their_plain_form():
    assert words("Crohn's diseases, the babies’ coughs") == ["crohn", "disease", "baby", "cough"]
    assert words("Ménière") == ["meniere"]


def test_cues_tell_kinds_apart():
    named = dict(zip(CUES, cues(gist("how can i treat it")), strict=False))
    assert named["treatment"] == 1
    assert named["inheritance"] == 0


@pytest.mark.slow
def test_the_starter_library_answers_its_own_kind_of_question(tmp_path):
    encoder = load_encoder()
    if encoder is None:
        pytest.skip("no sentence encoder is installed")
    entries = [e for e in read_entries([KnowledgeSource(path="starter")]) if e.passage.section == "In short"][:60]
    build(entries, tmp_path / "index", encoder)
    index = open_index(tmp_path / "index", encoder)
    hits = [search(index, f"please tell me about {e.names[1].lower()}", 3) for e in entries[::3] if len(e.names) > 1]
    right = [e.passage.id in [h.passage.id for h in hit] for e, hit in zip(entries[::3], hits, strict=False)]
    assert sum(right) >= 0.9 * len(right)


def test_the_weights_fit_the_features(tmp_path, corpus, encoder):
    weights = all_weights()
    build(corpus, tmp_path / "index", encoder)
    for name, own in (("rank", encoder), ("rank_by_words", None)):
        found = features(open_index(tmp_path / "index", own), "treatment of gout")
        assert weights[name].keys() == found.keys() | {"bias"}
    assert weights["cues"].keys() == weights["kinds"].keys() == CUES.keys()
    assert {len(row) for row in weights["cues"].values()} == {1 + 2 * len(CUES)}
    assert {len(row) for row in weights["kinds"].values()} == {1 + 2 * len(CUES) + 384}


def test_another_encoder_than_the_fitted_one_goes_by_cues(tmp_path, corpus, encoder):
    build(corpus, tmp_path / "index", encoder)
    index = open_index(tmp_path / "index", encoder)
    assert all_weights()["encoder"] != encoder.fingerprint
    kinds = dict(zip([e.kind for e in corpus], features(index, "how is asthma treated")["kind"], strict=True))
    assert kinds["treatment"] > kinds["inheritance"]
