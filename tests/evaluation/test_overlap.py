"""Agreement with rouge-score and sacrebleu to the last digit."""

import csv
import gzip
import random

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from medtune.evaluation import overlap

WORDS = ["the", "lung", "asthma", "asthmatic", "treatment", "treated", "treating", "5", "mg", "β-blocker", "is."]


def random_texts(count, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randrange(0, 60))) for _ in range(count)]


def rouge_by_the_book(reference, answer):
    scores = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True).score(
        reference, answer
    )
    return {
        "rouge_1": scores["rouge1"].fmeasure,
        "rouge_2": scores["rouge2"].fmeasure,
        "rouge_l": scores["rougeL"].fmeasure,
        "rouge_lsum": scores["rougeLsum"].fmeasure,
    }


def test_rouge_is_rouge_score_to_the_last_digit():
    for reference, answer in zip(random_texts(60), random_texts(60, seed=1), strict=True):
        assert overlap.rouge([reference], answer) == rouge_by_the_book(reference, answer)


def test_rouge_is_rouge_score_on_real_answers(shared_data):
    with gzip.open(shared_data / "medquad.csv.gz", "rt", encoding="utf-8") as file:
        texts = [row["Answer"] for _, row in zip(range(24), csv.DictReader(file), strict=False)]
    for reference, answer in zip(texts[::2], texts[1::2], strict=True):
        assert overlap.rouge([reference], answer) == rouge_by_the_book(reference, answer)


@pytest.mark.parametrize(
    ("first", "second", "length"), [("", "", 0), ("abc", "", 0), ("", "abc", 0), ("abcbdab", "bdcaba", 4)]
)
def test_longest_common_subsequence(first, second, length):
    assert overlap.longest_common_subsequence(first, second) == length


def test_bleu_of_summed_counts_is_sacrebleu_to_the_last_digit():
    for seed in range(5):
        references, answers = random_texts(20, seed), random_texts(20, seed + 100)
        counts = np.array([overlap.bleu_counts((r,), a) for r, a in zip(references, answers, strict=True)])
        assert float(overlap.bleu(counts.sum(0))) == sacrebleu.corpus_bleu(answers, [references]).score


def test_bleu_of_many_resamples_at_once():
    counts = np.array(
        [overlap.bleu_counts((r,), a) for r, a in zip(random_texts(6), random_texts(6, seed=9), strict=True)]
    )
    assert overlap.bleu(counts).tolist() == [float(overlap.bleu(row)) for row in counts]


def test_rouge_takes_the_best_reference():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for first, second, answer in zip(random_texts(20), random_texts(20, 1), random_texts(20, 2), strict=True):
        best = scorer.score_multi([first, second], answer)["rougeL"].fmeasure
        assert overlap.rouge([first, second], answer)["rouge_l"] == best


@pytest.mark.parametrize("references", [1, 2])
def test_chrf_of_summed_counts_is_sacrebleus_to_the_last_digit(references):
    for seed in range(5):
        answers = random_texts(20, seed)
        streams = [random_texts(20, seed + 100 * (i + 1)) for i in range(references)]
        rows = list(zip(*streams, strict=True))
        counts = np.array([overlap.chrf_counts(row, a) for row, a in zip(rows, answers, strict=True)])
        assert float(overlap.chrf(counts.sum(0))) == sacrebleu.corpus_chrf(answers, streams).score


def test_bleu_with_several_references_is_sacrebleus():
    answers, streams = random_texts(20), [random_texts(20, 1), random_texts(20, 2)]
    counts = [overlap.bleu_counts(row, a) for row, a in zip(zip(*streams, strict=True), answers, strict=True)]
    assert float(overlap.bleu(np.array(counts).sum(0))) == sacrebleu.corpus_bleu(answers, streams).score


def test_the_signatures_are_sacrebleus():
    version = sacrebleu.__version__
    signatures = overlap.signatures()
    assert signatures["bleu"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert signatures["chrf"] == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"
