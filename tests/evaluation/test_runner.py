"""Records come one by one, survive an interruption at any byte, and never mix two models."""

import dataclasses
import json
import math
from collections.abc import Iterator

import pytest

from medtune.evaluation import metrics, runner
from medtune.evaluation.runner import RecordFile, ask
from medtune.evaluation.systems import System
from medtune.types import Completion, Likelihood


class Model:
    """A system that answers with its name, counts what it is asked, and dies after `lives` answers or likelihoods."""

    def __init__(self, name="base", lives=math.inf, fingerprint="f", nll=2.0):
        self.asked, self.measured, self.lives, self.nll = [], [], lives, nll
        self.system = System(name, fingerprint, self.answers, self.likelihoods)

    def answers(self, conversations, _batch_size) -> Iterator[tuple[int, Completion]]:
        for index in reversed(range(len(conversations))):
            self._live()
            self.asked.append(conversations[index].id)
            yield index, Completion(f"{self.system.fingerprint} {conversations[index].id}", "stop", 3, 2, 0.5)

    def likelihoods(self, conversations, _batch_size) -> Iterator[tuple[int, Likelihood]]:
        for index, conversation in enumerate(conversations):
            self._live()
            self.measured.append(conversation.id)
            yield index, Likelihood(self.nll, 2, 5)

    def _live(self):
        if self.lives <= 0:
            raise KeyboardInterrupt
        self.lives -= 1


@pytest.fixture
def questions(conversation):
    return [conversation(i, group=f"g{i}") for i in range(6)]


def test_every_question_gets_one_record_in_order(tmp_path, questions):
    records = ask(Model().system, questions, RecordFile(tmp_path / "r.jsonl"), 2)
    assert [r.id for r in records] == [c.id for c in questions]
    assert all(r.status == "scored" and r.likelihood == Likelihood(2.0, 2, 5) for r in records)


@pytest.mark.parametrize("lives", range(12))
def test_an_interrupted_run_asks_only_what_is_missing(tmp_path, questions, lives):
    path, first, second = tmp_path / "r.jsonl", Model(lives=lives), Model()
    with pytest.raises(KeyboardInterrupt):
        ask(first.system, questions, RecordFile(path), 2)
    records = ask(second.system, questions, RecordFile(path), 2)
    assert sorted(first.asked + second.asked) == sorted(c.id for c in questions)
    assert sorted(first.measured + second.measured) == sorted(c.id for c in questions)
    assert records == ask(Model().system, questions, RecordFile(tmp_path / "uninterrupted.jsonl"), 2)


def test_a_torn_last_line_is_asked_again_and_the_rest_is_kept(tmp_path, questions):
    path = tmp_path / "r.jsonl"
    with pytest.raises(KeyboardInterrupt):
        ask(Model(lives=3).system, questions, RecordFile(path), 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    second = Model()
    assert len(ask(second.system, questions, RecordFile(path), 2)) == 6
    assert len(second.asked) == 4
    for line in path.read_text().splitlines():
        json.loads(line)


def test_at_the_end_there_is_one_line_per_record(tmp_path, questions):
    path = tmp_path / "r.jsonl"
    records = RecordFile(path)
    ask(Model().system, questions, records, 2)
    ask(Model("tuned").system, questions, records, 2)
    assert len(path.read_text().splitlines()) == 24, "answer and likelihood, while the run goes on"
    records.rewrite()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len({(line["system"], line["id"]) for line in lines}) == 12
    assert all(line["likelihood"] for line in lines)
    assert ask(Model(lives=0).system, questions, RecordFile(path), 2)


def test_records_of_another_model_or_question_are_not_taken(tmp_path, questions, conversation):
    path = tmp_path / "r.jsonl"
    ask(Model(fingerprint="old").system, questions, RecordFile(path), 2)
    new = Model(fingerprint="new")
    records = ask(new.system, questions, RecordFile(path), 2)
    assert len(new.asked) == 6
    assert all(r.completion.text.startswith("new") for r in records)
    changed, same = [conversation(0, "Another question ?"), *questions[1:]], Model(fingerprint="new")
    ask(same.system, changed, RecordFile(path), 2)
    assert same.asked == ["c0"]


def test_a_failed_request_is_counted_apart_and_asked_again(tmp_path, questions):
    def fail(conversations, _batch_size):
        return ((i, Completion("", "error", error="timeout")) for i in range(len(conversations)))

    path = tmp_path / "r.jsonl"
    failed = ask(System("base", "f", fail), questions, RecordFile(path), 2)
    assert {r.status for r in failed} == {"failed"}
    assert all(r.scores == {} for r in failed)
    assert {r.status for r in ask(Model().system, questions, RecordFile(path), 2)} == {"scored"}


def test_a_likelihood_that_is_not_a_number_stays_unmeasured(tmp_path, questions):
    records = ask(Model(nll=math.nan).system, questions, RecordFile(tmp_path / "r.jsonl"), 2)
    assert all(r.likelihood is None and r.status == "scored" for r in records)


def test_text_of_any_kind_survives_the_file(tmp_path, conversation):
    wild = "line\nbreak \u2028 \x00 \x85 “quote” 🫁 </script>"

    def answer(conversations, _batch_size):
        return ((i, Completion(wild)) for i in range(len(conversations)))

    path, question = tmp_path / "r.jsonl", conversation(1, wild, wild)
    ask(System("base", "f", answer), [question], RecordFile(path), 1)
    record = RecordFile(path).get(System("base", "f", answer), question)
    assert record.completion.text == record.reference == record.question == wild


def test_older_scores_are_graded_again_and_nothing_is_asked_again(tmp_path, questions, monkeypatch):
    path = tmp_path / "r.jsonl"
    before = ask(Model().system, questions, RecordFile(path), 2)
    monkeypatch.setattr(runner, "SCORING", runner.SCORING + 1)
    monkeypatch.setattr(metrics, "scores", lambda *_: {"rouge_l": 0.25})
    records = RecordFile(path)
    again = ask(Model(lives=0).system, questions, records, 2)
    assert [r.scores for r in again] == [{"rouge_l": 0.25}] * 6
    assert [(r.completion, r.likelihood) for r in again] == [(r.completion, r.likelihood) for r in before]
    records.rewrite()
    monkeypatch.undo()
    assert json.loads(path.read_text().splitlines()[0])["scores"] == {"rouge_l": 0.25}


def test_changed_references_are_graded_against_again(tmp_path, questions):
    path = tmp_path / "r.jsonl"
    before = ask(Model().system, questions, RecordFile(path), 2)
    richer = [dataclasses.replace(c, references=(before[0].completion.text,)) for c in questions]
    after = ask(Model(lives=0).system, richer, RecordFile(path), 2)
    assert before[0].scores["rouge_l"] < after[0].scores["rouge_l"] == 1
