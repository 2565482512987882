"""Does somebody need help now? Rules for what is certain, a classifier for what is told in other words.

Covered: see `emergency_rules.yaml` (signs, rules, sources) and `vitals` (numbers); who and when by `clauses`; every
user turn alone and the turns together.
Not covered: what to say then (`escalation`), people who want to harm themselves (`crisis`), other languages than
English (there the classifier is alone).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.assistant import clauses, rulebook, vitals
from medtune.assistant.classifier import logit, sigmoid
from medtune.types import Message, Verdict

RULES = Path(__file__).parent / "emergency_rules.yaml"
CERTAIN = 0.98
"""Score of a message in which a certain rule fires, where there is no classifier."""
SURE, RULE, ASKED, PAST, UNREAL = 5.0, 2.5, -1.5, -0.3, -0.3
"""Logits that a certain rule, any other (times its weight), and a message that only asks, tells of long ago or of
fiction add to the classifier's: a logistic regression on the held-out folds, rounded."""
ALONE = 0.25
"""Score of a message without a sign where there is no classifier."""
_TURNS = 4
_SIGNS = {"fever": "fever", "high fever": "fever", "raised pressure": "raised pressure"}
"""Numbers that are signs for the rules too."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the rules make of one text: `weight` of the strongest that fires (0: none), and how the text is meant."""

    weight: float
    kind: str
    reason: str
    asking: bool
    past: bool
    unreal: bool


def verdict(messages: Sequence[Message], score_of: Callable[[str], float] | None, threshold: float) -> Verdict:
    """Fires where `score` >= `threshold`. `score_of` scores one text. Raises ValueError without a user turn."""
    findings = {text: find(text) for text in rulebook.texts(messages, 1 + _TURNS)}
    scores = {text: combined(finding, score_of(text) if score_of else None) for text, finding in findings.items()}
    worst = max(scores, key=lambda text: scores[text])
    score, finding = scores[worst], findings[worst]
    reason = finding.reason or ("worded like an emergency" if score >= threshold else "no sign of an emergency")
    return Verdict("emergency", score >= threshold, score, reason, finding.kind)


def combined(finding: Finding, score: float | None) -> float:
    """The classifier's score with the rules' evidence; without a classifier the rules alone."""
    is_certain = finding.weight >= 1
    if score is None:
        evidence = logit(CERTAIN if is_certain else max(finding.weight - 0.05, ALONE))
    else:
        evidence = logit(score) + (SURE if is_certain else RULE * finding.weight)
    return float(sigmoid(evidence + ASKED * finding.asking + PAST * finding.past + UNREAL * finding.unreal))


def find(text: str) -> Finding:
    """The strongest rule or number that speaks for an emergency in one text, and how the text is meant."""
    reading = clauses.read(text)
    book = rulebook.load(RULES)
    numbers = [value for value in vitals.values(reading.text) if reading.clause_at(value.start).is_told]
    told = book.told(reading)
    for value in numbers:
        if value.kind in _SIGNS:
            told.setdefault(_SIGNS[value.kind], []).append(value.start)
    rule = book.strongest(told)
    number = max(numbers, key=lambda value: value.weight, default=None)
    weight, kind, reason = 0.0, "", ""
    if rule is not None:
        weight, kind, reason = rule.weight, rule.kind, rule.reason(told)
    if number is not None and number.weight > weight:
        weight, kind, reason = number.weight, number.kind, number.what
    return Finding(
        weight,
        kind,
        reason,
        asking=all(clause.asking or clause.unreal for clause in reading.clauses),
        past=any(clause.past for clause in reading.clauses) and not any(c.is_told for c in reading.clauses),
        unreal=any(clause.unreal for clause in reading.clauses),
    )
