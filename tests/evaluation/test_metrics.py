"""What enters a score: the answer alone, graded or not at all; sums that give the metric of the whole."""

import dataclasses
import math

import numpy as np
import pytest

from medtune.evaluation import metrics, overlap
from medtune.evaluation.runner import grade
from medtune.types import Completion, Likelihood


@pytest.mark.parametrize("answer", ["", "   ", "\n\t"])
def test_an_empty_answer_scores_zero_everywhere(conversation, answer):
    record = grade(
        "base",
        conversation(1, "What is asthma of the lungs ?", "Asthma is a disease of the lungs ."),
        Completion(answer),
    )
    assert record.status == "unanswered"
    assert set(record.scores.values()) == {0.0}
    for name in ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "bleu", "chrf", "recall"):
        metric = metrics.METRICS[name]
        assert float(metric.value(np.array(metric.columns(record)))) == 0.0


def test_the_reference_itself_scores_one(conversation):
    question = conversation(1, answer="Asthma narrows the airways of the lungs.")
    record = grade("base", question, Completion(question.answer))
    assert set(record.scores.values()) == {1.0}
    assert {"rouge_l", "rouge_lsum", "recall", "negations"} <= set(record.scores)
    for name in ("bleu", "chrf"):
        metric = metrics.METRICS[name]
        assert float(metric.value(np.array(metric.columns(record)))) == pytest.approx(100)


def test_headings_that_stand_in_every_answer_of_the_library_are_not_scored(conversation):
    layout = "{}\n\nWhat you can do:\n{}\n\nWhen to see a doctor:\n{}"
    question = conversation(1, answer=layout.format("Gout is a joint attack.", "Rest it.", "Ask about urate."))
    other = layout.format("Zebras live far off.", "Run!", "Never.")
    record = grade("base", question, Completion(other))
    assert {record.scores[name] for name in ("rouge_1", "rouge_l", "rouge_lsum", "recall")} == {0.0}
    for name in ("bleu", "chrf"):
        columns = metrics.METRICS[name].columns
        bare = dataclasses.replace(record, completion=Completion("Zebras live far off.\n\nRun!\n\nNever."))
        assert columns(record) == columns(bare)
    ordinary = conversation(2, answer="Treatment:\nRest it.")
    assert grade("base", ordinary, Completion("Treatment:")).scores["rouge_1"] > 0, "other headings are text"


def test_the_best_of_several_references_counts(conversation):
    question = dataclasses.replace(
        conversation(1, answer="Asthma narrows the airways."), references=("Take 5 mg at night.",)
    )
    record = grade("base", question, Completion("Take 5 mg at night."))
    assert record.references == ("Take 5 mg at night.",)
    assert record.scores["rouge_l"] == record.scores["recall"] == record.scores["numbers"] == 1
    metric = metrics.METRICS["bleu"]
    assert float(metric.value(np.array(metric.columns(record)))) == pytest.approx(100)


def test_must_have_statements_are_looked_for_in_the_answer(conversation):
    question = dataclasses.replace(conversation(1), must_have=("Call an ambulance.", "Do not drive."))
    assert grade("base", question, Completion("Call an ambulance now.")).scores["completeness"] == 0.5
    assert "completeness" not in grade("base", conversation(1), Completion("Call an ambulance.")).scores


def test_what_cannot_be_compared_is_no_measurement(record):
    for name in ("numbers", "negations", "similarity", "completeness"):
        assert metrics.METRICS[name].columns(record(1)) is None


def test_repetition_and_variety_are_over_the_runs_of_words(record):
    looping = record(1, completion=Completion("take it now please take it now please"))
    sums = np.array(metrics.METRICS["repetition"].columns(looping))
    assert float(metrics.METRICS["repetition"].value(sums)) == 1 / 5
    assert float(metrics.METRICS["distinct_2"].value(np.array(metrics.METRICS["distinct_2"].columns(looping)))) == 4 / 7
    assert metrics.METRICS["repetition"].columns(record(1, completion=Completion("too short"))) is None


def test_every_metric_of_many_resamples_at_once(record):
    rows = [record(i, 0.1 * i, completion=Completion(f"one two {i} four five six. seven", "stop")) for i in range(1, 5)]
    for name, metric in metrics.METRICS.items():
        columns = np.array([c for r in rows if (c := metric.columns(r)) is not None], dtype=float)
        if len(columns):
            assert metric.value(columns).tolist() == pytest.approx([float(metric.value(c)) for c in columns]), name


def test_the_question_is_never_part_of_what_is_scored(conversation):
    question = conversation(1, "What is asthma of the lungs ?", "Asthma of the lungs is a disease.")
    assert grade("base", question, Completion("")).scores["rouge_l"] == 0
    assert overlap.rouge([question.answer], question.question)["rouge_l"] > 0.4, (
        "what prompt + answer would have scored"
    )


def test_a_failed_request_is_never_graded(conversation):
    record = grade("base", conversation(1), Completion("It is 1.", "error", error="timeout"))
    assert record.status == "failed"
    assert record.scores == {}
    assert all(metrics.METRICS[name].columns(record) is None for name in ("rouge_l", "bleu", "words", "stop_rate"))


def test_perplexity_is_over_tokens_and_bits_are_over_bytes(record):
    records = [record(1, likelihood=Likelihood(2.0, 1, 10)), record(2, likelihood=Likelihood(10.0, 7, 30))]
    for name, expected in (("perplexity", math.exp(12 / 8)), ("bits_per_byte", 12 / 40 / math.log(2))):
        metric = metrics.METRICS[name]
        assert float(metric.value(np.sum([metric.columns(r) for r in records], axis=0))) == pytest.approx(expected)


def test_no_likelihood_is_no_measurement(record):
    assert metrics.METRICS["perplexity"].columns(record(1, likelihood=None)) is None
