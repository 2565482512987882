"""Agreement with rouge-score and sacrebleu to the last digit; nothing for an empty answer."""

import csv
import gzip
import math
import random

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from medtune.errors import EvaluationError
from medtune.evaluation import metrics
from medtune.evaluation.runner import grade
from medtune.types import Completion, Likelihood

WORDS = ["the", "lung", "asthma", "asthmatic", "treatment", "treated", "treating", "5", "mg", "β-blocker", "is."]


def random_texts(count, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randrange(0, 60))) for _ in range(count)]


def rouge_by_the_book(reference, answer):
    scores = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(reference, answer)
    return {
        "rouge_1": scores["rouge1"].fmeasure,
        "rouge_2": scores["rouge2"].fmeasure,
        "rouge_l": scores["rougeL"].fmeasure,
    }


def test_rouge_is_rouge_score_to_the_last_digit():
    for reference, answer in zip(random_texts(60), random_texts(60, seed=1), strict=True):
        assert metrics.rouge(reference, answer) == rouge_by_the_book(reference, answer)


def test_rouge_is_rouge_score_on_real_answers(shared_data):
    with gzip.open(shared_data / "medquad.csv.gz", "rt", encoding="utf-8") as file:
        texts = [row["Answer"] for _, row in zip(range(24), csv.DictReader(file), strict=False)]
    for reference, answer in zip(texts[::2], texts[1::2], strict=True):
        assert metrics.rouge(reference, answer) == rouge_by_the_book(reference, answer)


@pytest.mark.parametrize(
    ("first", "second", "length"), [("", "", 0), ("abc", "", 0), ("", "abc", 0), ("abcbdab", "bdcaba", 4)]
)
def test_longest_common_subsequence(first, second, length):
    assert metrics.longest_common_subsequence(first, second) == length


def test_bleu_of_summed_counts_is_sacrebleu_to_the_last_digit():
    for seed in range(5):
        references, answers = random_texts(20, seed), random_texts(20, seed + 100)
        counts = np.array([metrics.bleu_counts(r, a) for r, a in zip(references, answers, strict=True)])
        assert float(metrics.bleu(counts.sum(0))) == sacrebleu.corpus_bleu(answers, [references]).score


def test_bleu_of_many_resamples_at_once():
    counts = np.array(
        [metrics.bleu_counts(r, a) for r, a in zip(random_texts(6), random_texts(6, seed=9), strict=True)]
    )
    assert metrics.bleu(counts).tolist() == [float(metrics.bleu(row)) for row in counts]


@pytest.mark.parametrize("answer", ["", "   ", "\n\t"])
def test_an_empty_answer_scores_zero_everywhere(conversation, answer):
    record = grade(
        "base",
        conversation(1, "What is asthma of the lungs ?", "Asthma is a disease of the lungs ."),
        Completion(answer),
    )
    assert record.status == "unanswered"
    assert set(record.scores.values()) == {0.0}
    for name in ("rouge_1", "rouge_2", "rouge_l", "bleu"):
        metric = metrics.METRICS[name]
        assert float(metric.value(np.array(metric.columns(record)))) == 0.0


def test_the_reference_itself_scores_one(conversation):
    question = conversation(1, answer="Asthma narrows the airways of the lungs.")
    record = grade("base", question, Completion(question.answer))
    assert set(record.scores.values()) == {1.0}
    assert float(metrics.bleu(np.array(metrics.bleu_counts(record.reference, question.answer)))) == pytest.approx(100)


def test_the_question_is_never_part_of_what_is_scored(conversation):
    question = conversation(1, "What is asthma of the lungs ?", "Asthma of the lungs is a disease.")
    assert grade("base", question, Completion("")).scores["rouge_l"] == 0
    assert metrics.rouge(question.answer, question.question)["rouge_l"] > 0.4, "what prompt + answer would have scored"


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


def test_the_signature_of_bleu_is_sacrebleus():
    assert (
        metrics.signatures()["bleu"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )


def test_the_self_test_passes_and_costs_nothing():
    metrics.self_test(["Asthma is a disease."])


def test_the_self_test_stops_metrics_that_reward_an_empty_answer(monkeypatch):
    monkeypatch.setattr(metrics, "rouge", lambda *_: {"rouge_l": 1.0})
    with pytest.raises(EvaluationError, match=r"failed their self-test: '' .* expected 0\.0"):
        metrics.self_test([])


def test_references_that_rouge_cannot_read_are_refused():
    with pytest.raises(EvaluationError, match="2 of 3 references have none, for example '哮喘是一种疾病'"):
        metrics.self_test(["Asthma.", "哮喘是一种疾病", "哮喘"])
