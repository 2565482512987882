"""How much of a reference's wording an answer has: ROUGE, BLEU and chrF, as rouge-score and sacrebleu compute them.

Covered: several references (the best one counts, as both libraries have it), sums that are resampled exactly, speed.
Not covered: whether an answer is true (`facts`), averages over questions (`metrics`).

ROUGE agrees with rouge-score, BLEU and chrF with sacrebleu to the last digit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import metadata

import numpy as np
from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]
from numpy.typing import NDArray
from rouge_score import rouge_scorer, scoring, tokenize
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

Array = NDArray[np.float64]


class _CachedStemmer:
    """The Porter stemmer that rouge-score uses, remembering each word: ten times faster, same stems."""

    def __init__(self) -> None:
        self.stem = functools.lru_cache(maxsize=200_000)(PorterStemmer().stem)


class _Tokenizer:
    """rouge-score's own tokenisation over the cached stemmer."""

    def __init__(self) -> None:
        self._stemmer = _CachedStemmer()

    def tokenize(self, text: str) -> list[str]:
        return list(tokenize.tokenize(text, self._stemmer))


_TOKENIZER = _Tokenizer()
_NGRAMS = rouge_scorer.RougeScorer(["rouge1", "rouge2"], tokenizer=_TOKENIZER)
_LINES = rouge_scorer.RougeScorer(["rougeLsum"], tokenizer=_TOKENIZER)
_BLEU, _CHRF = BLEU(), CHRF()


def stems(text: str) -> list[str]:
    """Lower-case stemmed words of `text`, as ROUGE sees them: runs of a to z and 0 to 9."""
    return _TOKENIZER.tokenize(text)


def rouge(references: Sequence[str], answer: str) -> dict[str, float]:
    """F1 of ROUGE-1, -2, -L and -Lsum (stemmer on), each in [0, 1] and of its best reference; empty scores 0."""
    scores = [_rouge(reference, answer) for reference in references]
    return {name: max(score[name] for score in scores) for name in scores[0]}


def _rouge(reference: str, answer: str) -> dict[str, float]:
    ngrams = _NGRAMS.score(reference, answer)
    expected, found = stems(reference), stems(answer)
    common = longest_common_subsequence(expected, found)
    rouge_l = scoring.fmeasure(common / len(found), common / len(expected)) if common else 0.0
    has_lines = "\n" in reference.strip("\n") or "\n" in answer.strip("\n")
    rouge_lsum = _LINES.score(reference, answer)["rougeLsum"].fmeasure if has_lines else rouge_l
    return {
        "rouge_1": ngrams["rouge1"].fmeasure,
        "rouge_2": ngrams["rouge2"].fmeasure,
        "rouge_l": rouge_l,
        "rouge_lsum": float(rouge_lsum),
    }


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of two token lists.

    One bit per token of `first` (Hyyrö 2004): the whole table's row is one integer, so that 200 x 200 words take
    a hundredth of the time of rouge-score's table.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(first):
        positions[token] = positions.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & positions.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()


@functools.lru_cache(maxsize=100_000)
def bleu_counts(references: tuple[str, ...], answer: str) -> tuple[float, ...]:
    """What corpus BLEU needs of one answer: its length, the reference's length, 4 matched and 4 total n-gram counts."""
    score = _BLEU.corpus_score([answer], [[reference] for reference in references])
    return tuple(float(n) for n in (score.sys_len, score.ref_len, *score.counts, *score.totals))


def bleu(counts: Array) -> Array:
    """Corpus BLEU (0 to 100) of summed `bleu_counts`, shape [..., 10] to [...]."""
    return _each(counts, _bleu)


def _bleu(row: list[int]) -> float:
    return float(BLEU.compute_bleu(row[2:6], row[6:], row[0], row[1], _BLEU.smooth_method, _BLEU.smooth_value).score)


@functools.lru_cache(maxsize=100_000)
def chrf_counts(references: tuple[str, ...], answer: str) -> tuple[float, ...]:
    """What corpus chrF needs of one answer: n-grams of it, of the reference and in both, for 1 to 6 characters."""
    (counts,) = _CHRF._extract_corpus_statistics([answer], [[reference] for reference in references])
    return tuple(float(n) for n in counts)


def chrf(counts: Array) -> Array:
    """Corpus chrF (0 to 100) of summed `chrf_counts`, shape [..., 18] to [...]."""
    return _each(counts, _CHRF._compute_f_score)


def _each(counts: Array, score: Callable[[list[int]], float]) -> Array:
    rows = counts.reshape(-1, counts.shape[-1]).astype(np.int64).tolist()
    return np.array([score(row) for row in rows]).reshape(counts.shape[:-1])


def signatures() -> dict[str, str]:
    """How ROUGE, BLEU and chrF were computed, so that another program can repeat it."""
    for metric in (_BLEU, _CHRF):
        metric.corpus_score(["a"], [["a"]])  # sacrebleu knows its signature only after a score
    return {
        "rouge": f"rouge-score {metadata.version('rouge-score')}|F1|stemmer:yes|best reference|mean over questions",
        "bleu": str(_BLEU.get_signature()),
        "chrf": str(_CHRF.get_signature()),
    }
