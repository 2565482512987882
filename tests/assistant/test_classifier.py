"""One head: n-grams, storing, thresholds."""

import dataclasses

import numpy as np
import pytest

from medtune.assistant import classifier, training
from medtune.assistant.classifier import BUCKETS, Classifier
from medtune.assistant.training import Example, Limit
from medtune.errors import DataError, ModelError

HEALTH = ["my head hurts", "is a fever dangerous", "the rash itches", "blood pressure pills", "a cough for weeks"]
OTHER = ["write me a poem", "who won the match", "reset my password", "cheap flights to rome", "paint the fence"]


class Letters:
    """An encoder for tests: how often each of 26 letters occurs."""

    name, dimensions, fingerprint = "letters", 26, "letters-1"

    def encode(self, texts, **_):
        counts = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)


def examples():
    return [
        Example(f"{t} {n}", label, "written")
        for label, ts in ((True, HEALTH), (False, OTHER))
        for t in ts
        for n in "abcd"
    ]


LIMITS = (Limit("written", True, 0.1), Limit("written", False, 0.1))


def score(head, text, encoder=None):
    return head.score(classifier.ngrams(text), None if encoder is None else encoder.encode([text])[0])


def test_ngrams_are_two_unit_halves_and_see_case_and_space_alike():
    buckets, values = classifier.ngrams("My  head\nHURTS")
    assert np.isclose(values @ values, 2, atol=1e-5)
    assert buckets.min() >= 0
    assert buckets.max() < BUCKETS
    assert np.array_equal(buckets, classifier.ngrams("my head hurts")[0])


@pytest.mark.parametrize("text", ["", " ", "a", "?!", "é", "😀", "x" * 100_000])
def test_any_text_has_a_score(text):
    head = Classifier("scope", np.ones(BUCKETS, np.float32), 0.0)
    assert 0 < score(head, text) < 1


def test_both_ends_of_a_long_text_count():
    long = "start " + "filler " * 5000 + "end"
    assert classifier.tidy(long).startswith("start")
    assert classifier.tidy(long).endswith("end")
    assert len(classifier.tidy(long)) <= classifier.CHARACTERS + 1


def test_a_fitted_head_tells_the_two_apart_and_comes_back_from_its_file(tmp_path):
    encoder = Letters()
    head = training.fit("scope", examples(), LIMITS, encoder)
    for with_encoder in (None, encoder):
        assert score(head, "my head hurts a lot", with_encoder) > score(head, "write me a long poem", with_encoder)
    back = classifier.load(classifier.save(head, tmp_path))
    assert back.thresholds == head.thresholds
    assert back.facts == head.facts
    assert score(back, "my head hurts", encoder) == pytest.approx(score(head, "my head hurts", encoder), abs=2e-3)


def test_fitting_twice_gives_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (
        classifier.save(training.fit("scope", examples(), LIMITS, Letters()), tmp_path / name) for name in "ab"
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_foreign_encoder_does_not_fit():
    head = training.fit("scope", examples(), LIMITS, Letters())
    foreign = Letters()
    foreign.fingerprint = "letters-2"
    assert head.fits(Letters())
    assert not head.fits(foreign)
    assert not head.fits(None)
    assert head.threshold(foreign) == head.thresholds[0]


def test_a_damaged_file_is_a_model_error(tmp_path):
    path = tmp_path / "scope.safetensors"
    with pytest.raises(ModelError, match="medtune guard train"):
        classifier.load(path)
    path.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="medtune guard train"):
        classifier.load(path)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "_FORMAT", "2")
    path = classifier.save(Classifier("scope", np.zeros(BUCKETS, np.float32), 0.0), tmp_path)
    monkeypatch.setattr(classifier, "_FORMAT", "1")
    with pytest.raises(ModelError, match="format 2, expected 1"):
        classifier.load(path)


def test_the_threshold_meets_the_limits_best():
    given = [Example("", True, "a")] * 4 + [Example("", False, "b")] * 4
    scores = np.array([0.4, 0.6, 0.8, 0.9, 0.1, 0.2, 0.3, 0.7])
    strict_on_misses = [Limit("a", True, 0.01), Limit("b", False, 0.5)]
    strict_on_alarms = [Limit("a", True, 0.9), Limit("b", False, 0.01)]
    assert 0.3 < training.choose_threshold(scores, given, strict_on_misses) < 0.4
    assert 0.7 < training.choose_threshold(scores, given, strict_on_alarms) < 0.8
    with pytest.raises(DataError, match="source c"):
        training.choose_threshold(scores, given, [Limit("c", True, 0.1)])


def test_one_label_alone_cannot_be_fitted():
    alike = [dataclasses.replace(example, label=True) for example in examples()]
    with pytest.raises(DataError, match="needs both"):
        training.fit("scope", alike, LIMITS, None)
