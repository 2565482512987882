"""What kind of answer a message asks for: treatment, symptoms, causes ... in MedQuAD's words.

Covered: a probability per kind, from cue words and, where the encoder is the one it was trained with, from meaning.
Not covered: the subject (`names`). The weights are fitted on real consumer questions by `tools/fit_search.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medtune.knowledge.gist import Gist

CUES = {
    "information": r"information|what is|what are|learn|about|know more|explain|tell me",
    "symptoms": r"symptom|\bsigns?\b|feel like",
    "treatment": r"treat|therap|\bcure|medic|remed|surger|operation|relie[fv]|\bdrugs?\b|\bhelp\b|manag|get rid"
    r"|what (?:can|should|to) (?:i |we |she |he )?do",
    "causes": r"\bcaus|\bwhy\b|reason|due to|because of|related to|come from",
    "exams and tests": r"diagnos|\btest(?:s|ed|ing)?\b|screen|detect|find out if|confirm",
    "inheritance": r"inherit|heredit|genetic|run in|pass(?:ed)? (?:it )?(?:on|down)?|carrier|famil|\bson\b|daughter"
    r"|father|mother",
    "genetic changes": r"\bgenes?\b|mutation|chromosom|\bdna\b",
    "outlook": r"prognos|outlook|expectancy|surviv|long.?term|how long|chance|reversed|cured|\blive\b|future",
    "prevention": r"prevent|avoid|protect|vaccin",
    "research": r"research|trial|stud(?:y|ies)|latest|stem cell|gene therapy|\bnew\b|experiment|progress",
    "susceptibility": r"\brisk|suscept|likel|who gets",
    "complications": r"complicat|consequence|side effect|danger|lead to",
    "frequency": r"how (?:common|many|rare)|prevalen|percent|statistic",
    "considerations": r"\bdiet|\bfood|nutrition|\beat\b|exercise",
    "stages": r"\bstages?\b",
    "emergency": r"emergency|ambulance|right (?:now|away)|urgent|\b911\b|hospital",
    "see a doctor": r"see (?:a|my|the) doctor|go to (?:a|the) doctor|call (?:a|my|the) doctor|worr(?:y|ied)|serious",
}
_PATTERNS = [re.compile(pattern, re.IGNORECASE) for pattern in CUES.values()]
RARE = 0.002
"""The least probability of a kind: nothing is ruled out."""
UNTOLD = 0.3
"""Probability for a passage whose source does not say, in MedQuAD's words, what kind of question it answers."""


def cues(gist: Gist) -> list[float]:
    """1 for each kind whose cue words the gist has, then the same for its opening alone."""
    return [float(p.search(text) is not None) for text in (gist.text, gist.opening) for p in _PATTERNS]


def kind_probabilities(
    gist: Gist, vector: NDArray[np.float32] | None, weights: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """The probability that `gist` asks for each kind (several may be asked for).

    `weights` has, per kind, a bias, a weight per cue, and a weight per dimension of `vector` where that is given.
    """
    values = np.concatenate([[1.0], cues(gist), vector if vector is not None else []])
    return {kind: 1 / (1 + math.exp(-float(values @ np.asarray(row)))) for kind, row in weights.items()}
