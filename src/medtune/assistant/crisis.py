"""Does somebody think of suicide or harm themselves: openly, veiled, in code, or somebody the user speaks of?

Covered: see `crisis_rules.yaml`; a classifier for what is told in other words; every user turn alone and together.
Not covered: what to say then (`escalation`), poisoning that has happened (`emergency` fires too).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.assistant import clauses, rulebook
from medtune.assistant.classifier import logit, sigmoid
from medtune.types import Message, Verdict

RULES = Path(__file__).parent / "crisis_rules.yaml"
CERTAIN = 0.98
"""Score of a message in which a certain rule fires."""
RULE, ASKED, PAST = 1.0, -0.6, -1.5
"""Logits that the strongest rule (times its weight), and a message that only asks or tells of long ago, add: a logistic
regression on the held-out folds, rounded."""
ALONE = 0.1
"""Score of a message without a sign where there is no classifier."""
RISK = ("", "third party", "self-harm", "ideation", "plan")
"""Kinds by rising risk; a conversation has the highest that any of its turns has."""
_TURNS = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """The strongest rule that fires on one text: `weight` 0 where none does; `kind` the riskiest of all that fire."""

    weight: float
    kind: str
    reason: str
    asking: bool
    past: bool


def verdict(messages: Sequence[Message], score_of: Callable[[str], float] | None, threshold: float) -> Verdict:
    """Fires where `score` >= `threshold`. `score_of` scores one text. Raises ValueError without a user turn."""
    findings = {text: find(text) for text in rulebook.texts(messages, 1 + _TURNS)}
    scores = {text: combined(finding, score_of(text) if score_of else None) for text, finding in findings.items()}
    worst = max(scores, key=lambda text: scores[text])
    score, reason = scores[worst], findings[worst].reason
    if not reason:
        reason = "worded like a crisis" if score >= threshold else "no sign of a crisis"
    kind = max((findings[text].kind for text in scores if scores[text] >= threshold), key=RISK.index, default="")
    return Verdict("crisis", score >= threshold, score, reason, kind)


def combined(finding: Finding, score: float | None) -> float:
    """The classifier's score with the rules' evidence; without a classifier the rules alone."""
    if finding.weight >= 1:
        return CERTAIN
    evidence = logit(max(finding.weight - 0.05, ALONE)) if score is None else logit(score) + RULE * finding.weight
    return float(sigmoid(evidence + ASKED * finding.asking + PAST * finding.past))


def find(text: str) -> Finding:
    """The rules that fire on one text, and how the text is meant."""
    reading = clauses.read(text)
    book = rulebook.load(RULES)
    told = book.told(reading)
    fired = [rule for rule in book.rules if rule.fires(told)]
    strongest = book.strongest(told)
    return Finding(
        weight=strongest.weight if strongest else 0.0,
        kind=max((rule.kind for rule in fired), key=RISK.index, default=""),
        reason=strongest.reason(told) if strongest else "",
        asking=all(clause.asking or clause.unreal for clause in reading.clauses),
        past=any(clause.past for clause in reading.clauses),
    )
