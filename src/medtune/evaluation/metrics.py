"""What an answer and a system score: every metric in one table, each from free generations or from reference tokens.

Covered: which metrics there are, how a record contributes and how contributions become a value; the scores of one
answer. Not covered: the arithmetic on texts (`overlap`, `facts`, `wording`), intervals (`statistics`), and anything
computed on the prompt, on padding or on teacher-forced tokens (`audit` shows what those would give).

A metric is a sum of columns over records and a function of that sum, so that a corpus metric (BLEU, perplexity) is
resampled exactly as a mean is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtune.data.convert import without_headings
from medtune.evaluation import facts, overlap, wording
from medtune.knowledge.readability import reading_counts
from medtune.types import Conversation, Record

Array = NDArray[np.float64]
Columns = Callable[[Record], Sequence[float] | None]
PRIMARY = "rouge_l"  # chosen beforehand: what the verdict rests on


@dataclass(frozen=True)
class Metric:
    """One line of the table.

    `columns` gives a record's contribution, or None where nothing was measured; `value` maps sums of columns, shape
    [..., columns], to values, shape [...]. `models_only` leaves out systems that only look answers up; a rate is
    (hits, asked) and has Wilson's interval. `digits` is how many decimals are shown.
    """

    title: str
    better: str
    explanation: str
    columns: Columns
    value: Callable[[Array], Array]
    models_only: bool = False
    is_rate: bool = False
    digits: int = 3


def scores(conversation: Conversation, answer: str) -> dict[str, float]:
    """The scores of one answer by name; what cannot be measured on it is left out.

    The headings of the library layout are left out on both sides: any answer that has them would score for them.
    """
    references = [without_headings(text) for text in (conversation.answer, *conversation.references)]
    answer = without_headings(answer)
    optional = {
        "recall": facts.recall(references, answer),
        "numbers": facts.numbers(references, answer),
        "negations": facts.negations(references, answer),
        "completeness": facts.completeness(conversation.must_have, answer),
    }
    measured = {name: value for name, value in optional.items() if value is not None}
    return {**overlap.rouge(references, answer), **measured}


def _ratio(sums: Array) -> Array:
    ratio: Array = sums[..., 0] / sums[..., 1]
    return ratio


def _graded(columns: Columns) -> Columns:
    """Columns of answers that were graded; a failed request is no answer and an unparsed one no grade."""
    return lambda record: columns(record) if record.status in ("scored", "unanswered") else None


def _mean(name: str) -> Columns:
    return _graded(lambda record: (record.scores[name], 1.0) if name in record.scores else None)


def _share(holds: Callable[[Record], bool]) -> Columns:
    return _graded(lambda record: (float(holds(record)), 1.0))


def _runs(size: int, *, repeated: bool) -> Columns:
    """Repeated or different runs of `size` words, and all; None for an answer that is too short to have one."""

    def columns(record: Record) -> Sequence[float] | None:
        different, total = wording.ngrams(record.completion.text, size)
        return (float(total - different if repeated else different), float(total)) if total else None

    return _graded(columns)


def _reading(record: Record) -> Sequence[float] | None:
    counts = reading_counts(record.completion.text)
    return [float(count) for count in counts] if all(counts) else None


def _references(record: Record) -> tuple[str, ...]:
    return tuple(without_headings(text) for text in (record.reference, *record.references))


def _answer(record: Record) -> str:
    return without_headings(record.completion.text)


def _reference(unit: str) -> Columns:
    """The reference's negative log-likelihood and its length in `tokens` or `bytes`."""

    def columns(record: Record) -> Sequence[float] | None:
        likelihood = record.likelihood
        return None if likelihood is None else (likelihood.nll, float(getattr(likelihood, unit)))

    return columns


def _mean_metric(name: str, title: str, explanation: str) -> Metric:
    return Metric(title, "higher", explanation, _mean(name), _ratio)


METRICS: dict[str, Metric] = {
    "rouge_l": _mean_metric("rouge_l", "ROUGE-L", "F1 of the longest common word sequence with the reference answer"),
    "rouge_1": _mean_metric("rouge_1", "ROUGE-1", "F1 of the words shared with the reference answer"),
    "rouge_2": _mean_metric("rouge_2", "ROUGE-2", "F1 of the word pairs shared with the reference answer"),
    "rouge_lsum": _mean_metric("rouge_lsum", "ROUGE-Lsum", "ROUGE-L line by line, F1 of what the lines have in common"),
    "bleu": Metric(
        "BLEU",
        "higher",
        "corpus BLEU by sacreBLEU, 0 to 100",
        _graded(lambda record: overlap.bleu_counts(_references(record), _answer(record))),
        overlap.bleu,
        digits=1,
    ),
    "chrf": Metric(
        "chrF",
        "higher",
        "corpus chrF by sacreBLEU, 0 to 100: F2 of runs of 1 to 6 characters",
        _graded(lambda record: overlap.chrf_counts(_references(record), _answer(record))),
        overlap.chrf,
        digits=1,
    ),
    "similarity": _mean_metric("similarity", "Similarity", "cosine of answer and reference in the sentence encoder"),
    "recall": _mean_metric("recall", "Content recall", "share of the reference's content words that the answer has"),
    "completeness": _mean_metric(
        "completeness", "Must-have recall", "content words of the data's must-have statements that the answer has"
    ),
    "numbers": _mean_metric(
        "numbers", "Numbers agree", "of the answer's numbers with a unit that the reference has too: share that agree"
    ),
    "negations": _mean_metric(
        "negations", "Negations agree", "of the clauses on the same things as a reference's: share with the same sign"
    ),
    "perplexity": Metric(
        "Perplexity",
        "lower",
        "of the reference answer's tokens: exp(sum of NLL / tokens)",
        _reference("tokens"),
        lambda sums: np.exp(_ratio(sums)),
        models_only=True,
        digits=1,
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
        _share(lambda record: record.completion.finish_reason == "stop"),
        _ratio,
        models_only=True,
        is_rate=True,
    ),
    "truncation_rate": Metric(
        "Cut off",
        "lower",
        "share of answers cut at evaluate.max_new_tokens",
        _share(lambda record: record.completion.finish_reason == "length"),
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
        digits=1,
    ),
    "repetition": Metric(
        "Repetition",
        "lower",
        "share of an answer's four-word runs that stood in it before",
        _runs(4, repeated=True),
        _ratio,
    ),
    "distinct_2": Metric(
        "Distinct-2",
        "",
        "different word pairs over all word pairs of an answer",
        _runs(2, repeated=False),
        _ratio,
    ),
    "grade_level": Metric(
        "School grade",
        "",
        "Flesch-Kincaid grade of the answers: years of school that reading them takes",
        _graded(_reading),
        wording.grade_level,
        digits=1,
    ),
}
