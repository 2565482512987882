"""Is this about somebody's health? Real patients' questions pass, what is not about health is turned away.

Covered: long, misspelt and rambling messages, terse follow-ups ("and for kids?") by the conversation they stand in,
and the errands of being ill (insurance, finding a doctor, forms). Animals are out of scope: the library is on people.
Not covered: whether it can be answered (`grounding`), emergencies in messages that are out of scope otherwise (those
guards run by themselves).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from medtune.assistant.classifier import logit, sigmoid
from medtune.types import Message, Verdict

TERSE_WORDS = 14
"""A longer message speaks for itself."""
_TURNS = 4  # earlier user turns that a follow-up may refer to
_CARRY = 6.0  # logits that a conversation about health adds to a one-word follow-up
_SPANISH = re.compile(
    r"\b(?:(?:me|le|te) (?:duelen?|arden?|pican?|mare[oa]|hinch\w+|siento|dan?)|se me|dolor(?:es)?|fiebre|tos|toser"
    r"|gripe|embarazad?\w*|"
    r"enferm\w+|s[ií]ntomas?|m[eé]dic[oa]s?|medicamentos?|medicina|pastillas?|jarabe|antibi[oó]tico\w*|vacun\w+"
    r"|sangr\w+|presi[oó]n|"
    r"diab[eé]t\w+|az[uú]car alta|c[aá]ncer|al[eé]rgi\w+|infecci\w+|hinchad\w+|hincha\w*|mare[oa]d?\w*|n[aá]useas?"
    r"|v[oó]mit\w+|diarrea|"
    r"gases|piojos|lunar(?:es)?|ronchas|piel|est[oó]mago|coraz[oó]n|ri[ñn][oó]n\w*|h[ií]gado|rodillas?|espalda"
    r"|garganta|ansiedad|"
    r"depr[ie]\w+|triste|parto|ces[aá]rea|menstrua\w+|regla dolorosa|biopsia|cirug[ií]a|oper(?:aron|aci[oó]n)"
    r"|colesterol|anemia|hierro para)\b",
    re.I,
)
"""The encoder reads English; these words add `_SPANISH_LOGITS` where a Spanish message speaks of illness."""
_SPANISH_LOGITS = 3.0


def verdict(messages: Sequence[Message], score_of: Callable[[str], float], threshold: float) -> Verdict:
    """In scope where `score` >= `threshold`. `score_of` scores one text. Raises ValueError without a user turn."""
    turns = [message.content for message in messages if message.role == "user" and message.content.strip()]
    if not turns:
        raise ValueError("no user turn to look at")
    alone = _read(turns[-1], score_of)
    score, reason = alone, "about health" if alone >= threshold else "not about health"
    words = len(turns[-1].split())
    if len(turns) > 1 and words <= TERSE_WORDS:
        context = max(_read(turn, score_of) for turn in turns[-1 - _TURNS : -1])
        carried = _CARRY * (1 - words / (TERSE_WORDS + 1)) * context
        score = max(alone, float(sigmoid(logit(alone) + carried)))
        if alone < threshold <= score:
            reason = "a follow-up in a conversation about health"
    return Verdict("scope", score >= threshold, score, reason)


def _read(text: str, score_of: Callable[[str], float]) -> float:
    score = score_of(text)
    return float(sigmoid(logit(score) + _SPANISH_LOGITS)) if _SPANISH.search(text) else score
