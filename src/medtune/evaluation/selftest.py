"""Tests of the metrics themselves, run with every evaluation: an evaluation whose metrics are wrong does not start.

Covered: the reference against itself is 1, the empty answer 0, the question itself stays near the floor, a flipped
negation and a changed dose cost factual score; references that the metrics cannot read. Not covered: whether a metric
measures what matters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from medtune.errors import EvaluationError
from medtune.evaluation import facts, overlap

QUESTION = "How is asthma treated in children?"
TEXT = "Asthma narrows the airways of the lungs. It is not contagious. It is treated with 200 mcg of inhaled medicine."
FLIPPED = TEXT.replace("is not", "is")
OTHER_DOSE = TEXT.replace("200 mcg", "2 mg")
NEAR_FLOOR = 0.35


def self_test(references: Sequence[str]) -> list[dict[str, object]]:
    """Every check with what it found, all passed. Raises EvaluationError where one fails, or references are unreadable.

    `references` are the test's own: more than one in a hundred without a letter from a to z cannot be scored.
    """
    checks = [
        *_expect("the reference itself scores 1", TEXT, lambda value: math.isclose(value, 1.0, abs_tol=1e-12)),
        *_expect("the empty answer scores 0", "", lambda value: value == 0),
        *_expect("white space scores 0", " \n", lambda value: value == 0),
        *_expect("the question repeated stays near the floor", QUESTION, lambda value: value < NEAR_FLOOR),
        _below_one("a flipped negation costs score", facts.negations([TEXT], FLIPPED)),
        _below_one("a changed dose costs score", facts.numbers([TEXT], OTHER_DOSE)),
    ]
    failed = [check for check in checks if not check["passed"]]
    if failed:
        found = "; ".join(f"{check['check']}: {check['metric']} gave {check['found']}" for check in failed)
        raise EvaluationError(
            f"The metrics failed their self-test: {found}. "
            "Install the versions of rouge-score and sacrebleu that constraints.txt pins."
        )
    _require_readable(references)
    return checks


def _expect(check: str, answer: str, holds: Callable[[float], bool]) -> list[dict[str, object]]:
    measured = {
        **overlap.rouge([TEXT], answer),
        "bleu": float(overlap.bleu(np.array(overlap.bleu_counts((TEXT,), answer)))) / 100,
        "chrf": float(overlap.chrf(np.array(overlap.chrf_counts((TEXT,), answer)))) / 100,
        "recall": facts.recall([TEXT], answer) or 0.0,
    }
    return [
        {"check": check, "metric": name, "found": value, "passed": holds(value)} for name, value in measured.items()
    ]


def _below_one(check: str, found: float | None) -> dict[str, object]:
    return {"check": check, "metric": "factual", "found": found, "passed": found is not None and found < 1}


def _require_readable(references: Sequence[str]) -> None:
    unreadable = [text for text in references if not re.search("[A-Za-z0-9]", text)]
    if references and len(unreadable) > len(references) / 100:
        raise EvaluationError(
            f"ROUGE reads only the letters a to z, and {len(unreadable)} of {len(references)} references have none, "
            f"for example {unreadable[0][:60]!r}. They score 0 even against themselves: remove them from the data."
        )
