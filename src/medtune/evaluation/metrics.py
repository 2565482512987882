"""What an answer and a system score: every metric in one table, each from free generations or from reference tokens.

Covered: ROUGE-1/2/L and sacreBLEU of what a system wrote by itself; perplexity and bits per byte of the reference
answer; stop rate, truncation rate and length; the self-test that stops an evaluation whose metrics are wrong. Not
covered: intervals (`statistics`), and anything computed on the prompt, on padding or on teacher-forced tokens.

A metric is a sum of columns over records and a function of that sum, so that a corpus metric (BLEU, perplexity) is
resampled exactly as a mean is. ROUGE agrees with `rouge-score` and BLEU with `sacrebleu` to the last digit.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]
from numpy.typing import NDArray
from rouge_score import rouge_scorer, scoring, tokenize
from sacrebleu.metrics.bleu import BLEU

from medtune.errors import EvaluationError
from medtune.types import Record

Array = NDArray[np.float64]
PRIMARY = "rouge_l"  # chosen beforehand: what the verdict rests on


@dataclass(frozen=True)
class Metric:
    """One line of the table.

    `columns` gives a record's contribution, or None where nothing was measured; `value` maps sums of columns, shape
    [..., columns], to values, shape [...]. `models_only` leaves out systems that only look answers up; a rate is
    (hits, asked) and has Wilson's interval.
    """

    title: str
    better: str
    explanation: str
    columns: Callable[[Record], Sequence[float] | None]
    value: Callable[[Array], Array]
    models_only: bool = False
    is_rate: bool = False


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
_BLEU = BLEU()


def rouge(reference: str, answer: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (stemmer on), each in [0, 1]; an empty answer scores 0."""
    ngrams = _NGRAMS.score(reference, answer)
    expected, found = _TOKENIZER.tokenize(reference), _TOKENIZER.tokenize(answer)
    common = longest_common_subsequence(expected, found)
    rouge_l = scoring.fmeasure(common / len(found), common / len(expected)) if common else 0.0
    return {"rouge_1": ngrams["rouge1"].fmeasure, "rouge_2": ngrams["rouge2"].fmeasure, "rouge_l": rouge_l}


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


def bleu_counts(reference: str, answer: str) -> list[float]:
    """What corpus BLEU needs of one answer: its length, the reference's length, 4 matched and 4 total n-gram counts."""
    score = _BLEU.corpus_score([answer], [[reference]])
    return [float(n) for n in (score.sys_len, score.ref_len, *score.counts, *score.totals)]


def bleu(counts: Array) -> Array:
    """Corpus BLEU (0 to 100) of summed `bleu_counts`, shape [..., 10] to [...]."""
    rows = counts.reshape(-1, 10).astype(np.int64).tolist()
    scores = [
        BLEU.compute_bleu(row[2:6], row[6:], row[0], row[1], _BLEU.smooth_method, _BLEU.smooth_value).score
        for row in rows
    ]
    return np.array(scores).reshape(counts.shape[:-1])


def _ratio(sums: Array) -> Array:
    ratio: Array = sums[..., 0] / sums[..., 1]
    return ratio


def _graded(columns: Callable[[Record], Sequence[float]]) -> Callable[[Record], Sequence[float] | None]:
    """Columns of answers that were graded; a failed request is no answer and an unparsed one no grade."""
    return lambda record: columns(record) if record.status in ("scored", "unanswered") else None


def _mean(name: str) -> Callable[[Record], Sequence[float] | None]:
    return _graded(lambda record: (record.scores[name], 1.0))


def _reference(unit: str) -> Callable[[Record], Sequence[float] | None]:
    """The reference's negative log-likelihood and its length in `tokens` or `bytes`."""

    def columns(record: Record) -> Sequence[float] | None:
        likelihood = record.likelihood
        return None if likelihood is None else (likelihood.nll, float(getattr(likelihood, unit)))

    return columns


METRICS: dict[str, Metric] = {
    "rouge_l": Metric(
        "ROUGE-L",
        "higher",
        "F1 of the longest common word sequence with the reference answer",
        _mean("rouge_l"),
        _ratio,
    ),
    "rouge_1": Metric(
        "ROUGE-1", "higher", "F1 of the words shared with the reference answer", _mean("rouge_1"), _ratio
    ),
    "rouge_2": Metric(
        "ROUGE-2", "higher", "F1 of the word pairs shared with the reference answer", _mean("rouge_2"), _ratio
    ),
    "bleu": Metric(
        "BLEU",
        "higher",
        "corpus BLEU by sacreBLEU, 0 to 100",
        _graded(lambda record: bleu_counts(record.reference, record.completion.text)),
        bleu,
    ),
    "perplexity": Metric(
        "Perplexity",
        "lower",
        "of the reference answer's tokens: exp(sum of NLL / tokens)",
        _reference("tokens"),
        lambda sums: np.exp(_ratio(sums)),
        models_only=True,
    ),
    "bits_per_byte": Metric(
        "Bits per byte",
        "lower",
        "of the reference answer: comparable between tokenizers",
        _reference("bytes"),
        lambda sums: _ratio(sums) / math.log(2),
        models_only=True,
    ),
    "stop_rate": Metric(
        "Stopped by itself",
        "",
        "share of answers that the model ended",
        _graded(lambda record: (record.completion.finish_reason == "stop", 1.0)),
        _ratio,
        models_only=True,
        is_rate=True,
    ),
    "truncation_rate": Metric(
        "Cut off",
        "lower",
        "share of answers cut at evaluate.max_new_tokens",
        _graded(lambda record: (record.completion.finish_reason == "length", 1.0)),
        _ratio,
        models_only=True,
        is_rate=True,
    ),
    "words": Metric(
        "Words",
        "",
        "mean length of an answer",
        _graded(lambda record: (float(len(record.completion.text.split())), 1.0)),
        _ratio,
    ),
}


def signatures() -> dict[str, str]:
    """How ROUGE and BLEU were computed, so that another program can repeat it."""
    _BLEU.corpus_score(["a"], [["a"]])  # sacrebleu knows its signature only after a score
    return {
        "rouge": f"rouge-score {metadata.version('rouge-score')}|F1|stemmer:yes|mean over questions",
        "bleu": str(_BLEU.get_signature()),
    }


def self_test(references: Sequence[str]) -> None:
    """Refuse to evaluate with metrics that are wrong, or on references that they cannot read.

    The reference against itself must score 1 (BLEU 100) and the empty answer 0. Raises EvaluationError.
    """
    text = "Asthma narrows the airways of the lungs. It is treated with inhaled medicines."
    for answer, expected in ((text, 1.0), ("", 0.0), (" \n", 0.0)):
        found = {**rouge(text, answer), "bleu": float(bleu(np.array(bleu_counts(text, answer)))) / 100}
        wrong = {name: value for name, value in found.items() if not math.isclose(value, expected, abs_tol=1e-12)}
        if wrong:
            raise EvaluationError(
                f"The metrics failed their self-test: {answer!r} against {text!r} scores {wrong}, expected {expected}. "
                "Install the versions of rouge-score and sacrebleu that constraints.txt pins."
            )
    unreadable = [text for text in references if not re.search("[A-Za-z0-9]", text)]
    if references and len(unreadable) > len(references) / 100:
        raise EvaluationError(
            f"ROUGE reads only the letters a to z, and {len(unreadable)} of {len(references)} references have none, "
            f"for example {unreadable[0][:60]!r}. They score 0 even against themselves: remove them from the data."
        )
