"""Similarity is measured once per answer, with the encoder that is there; without one there is no such score."""

import numpy as np
import pytest

from medtune.evaluation.runner import RecordFile, ask
from medtune.evaluation.similarity import Similarity
from medtune.evaluation.systems import System
from medtune.models.encoder import load_encoder
from medtune.types import Completion


class Counting:
    """The encoder in use, counting the texts that it is given."""

    name, dimensions = "counting", 3

    def __init__(self, fingerprint="a"):
        self.fingerprint, self.texts = fingerprint, []

    def encode(self, texts, batch_size=64):
        del batch_size
        self.texts += texts
        vectors = np.array([[len(text), 1.0, text.count("a")] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def system(*answers):
    return System("base", "f", lambda *_: ((i, Completion(text)) for i, text in enumerate(answers)))


def test_headings_of_the_library_are_not_compared(tmp_path, conversation):
    encoder = Counting()
    records = RecordFile(tmp_path / "r.jsonl", encoder.fingerprint)
    questions, asked = [conversation(1, answer="A flu.\nWhat you can do:\nRest.")], system("Rest.\nWhat you can do:")
    ask(asked, questions, records, 2)
    Similarity(encoder).measure(asked, questions, records)
    assert sorted(encoder.texts) == ["A flu.\nRest.", "Rest."]


def test_each_graded_answer_has_its_cosine(tmp_path, conversation):
    questions, encoder = [conversation(i, answer="It is a flu.") for i in range(3)], Counting()
    records, asked = RecordFile(tmp_path / "r.jsonl", encoder.fingerprint), system("It is a flu.", "", "Nothing")
    ask(asked, questions, records, 2)
    found = Similarity(encoder).measure(asked, questions, records)
    assert found[0].scores["similarity"] == pytest.approx(1)
    assert found[1].scores["similarity"] == 0
    assert found[2].scores["similarity"] < 1
    assert encoder.texts.count("It is a flu.") == 2, "the reference once, for all three, and the answer"
    again = Counting()
    assert Similarity(again).measure(asked, questions, RecordFile(records.path, "a")) == found
    assert again.texts == []
    other = Counting("b")
    Similarity(other).measure(asked, questions, RecordFile(records.path, "b"))
    assert other.texts


def test_without_an_encoder_nothing_is_measured(tmp_path, conversation):
    records, asked = RecordFile(tmp_path / "r.jsonl"), system("It is 1.")
    ask(asked, [conversation(1)], records, 2)
    (record,) = Similarity(None).measure(asked, [conversation(1)], records)
    assert "similarity" not in record.scores


@pytest.mark.slow
def test_the_real_encoder_knows_a_paraphrase_from_another_subject(tmp_path, conversation):
    encoder = load_encoder("auto")
    if encoder is None:
        pytest.skip("needs the extra `encoder`")
    questions = [conversation(i, answer="Drink plenty of water.") for i in range(2)]
    records = RecordFile(tmp_path / "r.jsonl", encoder.fingerprint)
    asked = system("Make sure to have enough fluids.", "The heart has four chambers.")
    ask(asked, questions, records, 2)
    near, far = Similarity(encoder).measure(asked, questions, records)
    assert near.scores["similarity"] > far.scores["similarity"] + 0.3
