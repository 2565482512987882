"""Finding the passages that answer a message: by the names it mentions, its words, its meaning and what it asks for.

Covered: the gist of long messages, misspelt names, the kind of answer asked for, words alone where there is no encoder.
Not covered: whether a passage is true, or answers at all: `Hit.score` estimates the latter, it does not promise it.

Each passage gets a weighted sum of a few features. The weights are fitted on real consumer questions (MeQSum) by
`tools/fit_search.py`; `weights.json` holds them, with encoder and without.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from medtune.knowledge.gist import Gist, gist
from medtune.knowledge.index import Floats, Index
from medtune.knowledge.kinds import RARE, UNTOLD, kind_probabilities
from medtune.types import Hit


def search(index: Index, text: str, k: int = 10) -> list[Hit]:
    """The `k` passages that answer `text` best, best first.

    `Hit.score` is a probability (0 to 1) that the passage answers, as fitted on MeQSum. A text without words finds
    nothing, and without an encoder so does one that shares no word with the index.
    """
    found = features(index, text)
    if not found:
        return []
    weights = all_weights()["rank" if index.encoder else "rank_by_words"]
    scores = sum((weight * found[name] for name, weight in weights.items() if name != "bias"), np.zeros(len(index)))
    if index.encoder is None:
        scores[(found["words"] == 0) & (found["covered"] == 0)] = -np.inf
    best = np.argpartition(-scores, min(k, len(scores) - 1))[:k]
    best = best[np.argsort(-scores[best], kind="stable")]
    return [
        Hit(index.passage(int(row)), 1 / (1 + math.exp(-float(scores[row]) - weights["bias"])))
        for row in best
        if np.isfinite(scores[row])
    ]


def features(index: Index, text: str) -> dict[str, Floats]:
    """What the score is made of, per passage; empty for a text without words.

    `covered`, `opening`: the largest share of one of its names that the message, or its opening, mentions. `mass`:
    the weight of that name's mentioned words (rare words weigh more). `words`: BM25, 1 for the best passage.
    `question`, `text`: cosine to its nearest question, and to its text; `subject`: the best `text` under its title.
    `kind`: log-probability that its kind is asked for. `prose`: 1 unless it is a list of links or a table.
    """
    about = gist(text)
    if not about.text:
        return {}
    vector = index.encoder.encode([about.text])[0] if index.encoder else None
    names, spread = index.names, index.fields["names"].spread
    covered, mass = names.mentioned(about.text)
    lexical = index.by_words(about.text)
    found = {
        "covered": spread(covered),
        "mass": spread(mass * covered**2),
        "opening": spread(names.mentioned(about.opening)[0]),
        "words": lexical / max(float(lexical.max()), 1e-6),
        "kind": _kinds(index, about, vector),
        "prose": index.is_prose.astype(np.float32),
    }
    if vector is not None:
        texts = index.by_meaning("texts", vector)
        found |= {"question": index.by_meaning("questions", vector), "text": texts, "subject": index.by_title(texts)}
    return found


def _kinds(index: Index, about: Gist, vector: Floats | None) -> Floats:
    weights = all_weights()
    is_trained = vector is not None and weights["encoder"] == index.manifest["encoder"]["fingerprint"]
    probabilities = kind_probabilities(
        about, vector if is_trained else None, weights["kinds" if is_trained else "cues"]
    )
    logs = [math.log(max(probabilities.get(name, UNTOLD), RARE)) for name in index.kind_names]
    return np.array(logs, np.float32)[index.kinds]


@cache
def all_weights() -> dict[str, Any]:
    """`encoder` (the fingerprint that `kinds` was fitted with), `kinds`, `cues`, `rank` and `rank_by_words`."""
    file = resources.files("medtune.knowledge") / "weights.json"
    weights: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return weights
