"""`medtune guard train`: the heads of emergency, crisis, scope and injection from written examples and public data.

Covered: the examples that ship, a folder with the public files, out-of-fold scores, the mix of words and vectors,
thresholds, everything deterministic.
Not covered: rules (they are code), the test sets (never read here).

A threshold is the score at which the worst of a guard's limits, each a share of errors on one source, is met best:
the limits stand in `LIMITS`, and the shares reached are stored with the weights.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from medtune.assistant import cases, classifier, crisis, emergency, injection, scope
from medtune.assistant.classifier import Array, Classifier, sigmoid
from medtune.assistant.perturb import perturb
from medtune.errors import DataError
from medtune.types import Message, Verdict

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

FOLDS = 5
_FRAMES_PER_TOPIC = {True: 1, False: 4}
WORDS_C, DENSE_C, LAYERS_C = 30.0, 3.0, 100.0  # inverse regularisation of the heads, chosen on the folds


@dataclass(frozen=True, slots=True)
class Example:
    """A text, whether the guard should fire on it, where it comes from; `group` members stay in one fold."""

    text: str
    label: bool
    source: str
    weight: float = 1.0
    group: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `share` of the examples of `source` with `label` may fall on the wrong side."""

    source: str
    label: bool
    share: float


def fit(name: str, examples: Sequence[Example], limits: Sequence[Limit], encoder: Encoder | None) -> Classifier:
    """The heads of guard `name`. Raises DataError where one of the two labels is missing."""
    labels = np.array([example.label for example in examples])
    if labels.all() or not labels.any():
        raise DataError(f"guard {name}: all {len(examples)} examples have one label; it needs both.")
    weights = np.array([example.weight for example in examples])
    folds = np.array([zlib.crc32((example.group or example.text).encode()) % FOLDS for example in examples])
    texts = [example.text for example in examples]
    columns: list[tuple[Any, float]] = [(_sparse(texts), WORDS_C)]
    if encoder is not None:
        columns.append(_dense(name, texts, encoder))
    held_out = np.column_stack([_held_out(features, labels, weights, folds, c) for features, c in columns])
    words, words_bias = _fit(columns[0][0], labels, weights, WORDS_C)
    plain = _verdict_scores(name, examples, sigmoid(held_out[:, 0]))
    first = choose_threshold(plain, examples, limits)
    facts: dict[str, Any] = {"examples": len(examples), "sha256": _sha256(examples)}
    facts["words"] = shares(plain, examples, first)
    if encoder is None:
        return Classifier(name, words, words_bias, thresholds=(first, first), facts=facts)
    dense, dense_bias = _fit(columns[1][0], labels, weights, columns[1][1])
    (of_words, of_dense), offset = _fit(held_out, labels, weights, 1.0)
    mixed = _verdict_scores(name, examples, sigmoid(held_out @ [of_words, of_dense] + offset))
    second = choose_threshold(mixed, examples, limits)
    return Classifier(
        name,
        words,
        words_bias,
        dense=(of_dense * dense).astype(np.float32),
        share=float(of_words),
        offset=float(of_dense * dense_bias + offset),
        encoder=encoder.fingerprint,
        thresholds=(first, second),
        facts={**facts, "mixed": shares(mixed, examples, second)},
    )


def _dense(name: str, texts: Sequence[str], encoder: Encoder) -> tuple[Array, float]:
    """What the dense head of guard `name` reads, and its C: for scope what a text is about, else how it is said too."""
    from medtune.models.encoder import features

    return (encoder.encode(texts), DENSE_C) if name == "scope" else (features(encoder, texts), LAYERS_C)


def _verdict_scores(name: str, examples: Sequence[Example], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the whole guard, rules included, makes of each example's held-out score: what the threshold cuts."""
    verdict = {"emergency": emergency, "crisis": crisis, "scope": scope, "injection": injection}[name].verdict

    def scored(text: str, score: float) -> float:
        found: Verdict = verdict((Message("user", text),), lambda _: score, 0.5)
        return found.score

    return np.array([scored(e.text, float(s)) for e, s in zip(examples, scores, strict=True)])


def _fit(features: Any, labels: NDArray[np.bool_], weights: NDArray[np.float64], c: float) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=2000).fit(features, labels, sample_weight=weights)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def _held_out(
    features: Any, labels: NDArray[np.bool_], weights: NDArray[np.float64], folds: NDArray[np.int64], c: float
) -> NDArray[np.float64]:
    """Logits of each example by a head that has not seen its fold."""
    result = np.zeros(len(labels))
    for fold in np.unique(folds):
        kept = folds != fold
        coefficients, bias = _fit(features[kept], labels[kept], weights[kept], c)
        result[~kept] = features[~kept] @ coefficients + bias
    return result


def _sparse(texts: Sequence[str]) -> Any:
    from scipy.sparse import csr_matrix

    rows = [classifier.ngrams(text) for text in texts]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in rows)])
    buckets, values = (np.concatenate(column) for column in zip(*rows, strict=True))
    return csr_matrix((values, buckets, ends), shape=(len(texts), classifier.BUCKETS))


def choose_threshold(scores: NDArray[np.float64], examples: Sequence[Example], limits: Sequence[Limit]) -> float:
    """The score that keeps the largest ratio of error share to its limit smallest; the middle of the best range."""
    candidates = np.unique(np.concatenate([scores, [0.0, 1.0]]))
    candidates = (candidates[:-1] + candidates[1:]) / 2
    worst = np.zeros(len(candidates))
    for limit in limits:
        chosen = np.array([e.source == limit.source and e.label == limit.label for e in examples])
        if not chosen.any():
            raise DataError(f"no example of source {limit.source} with label {limit.label} to choose a threshold on.")
        ranked = np.sort(scores[chosen])
        below = np.searchsorted(ranked, candidates) / len(ranked)
        worst = np.maximum(worst, (below if limit.label else 1 - below) / limit.share)
    best = candidates[worst <= worst.min() + 1e-9]
    return float(best[len(best) // 2])


def shares(scores: NDArray[np.float64], examples: Sequence[Example], threshold: float) -> dict[str, float]:
    """Share of errors at `threshold` by source and label."""
    wrong: dict[str, list[bool]] = {}
    for score, example in zip(scores, examples, strict=True):
        wrong.setdefault(f"{example.source} {example.label}", []).append((score >= threshold) != example.label)
    return {key: round(float(np.mean(values)), 4) for key, values in sorted(wrong.items())}


def _sha256(examples: Sequence[Example]) -> str:
    lines = sorted(f"{example.label}\t{example.source}\t{example.text}" for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# What each head is trained on -----------------------------------------------------------------------------------------

LIMITS = {
    "scope": (Limit("patients", True, 0.01), Limit("written", True, 0.1), Limit("written", False, 0.06)),
    "emergency": (Limit("written", True, 0.05), Limit("written", False, 0.05), Limit("patients", False, 0.01)),
    "injection": (Limit("written", True, 0.1), Limit("written", False, 0.05), Limit("patients", False, 0.005)),
    "crisis": (
        *(Limit("written", True, 0.05), Limit("written", False, 0.08)),
        *(Limit("patients", False, 0.005), Limit("neighbours", False, 0.01)),
    ),
}


def run(data: Path, out: Path | None = None) -> None:
    """Fit and store all heads, and print what was read and what was reached on held-out folds."""
    from rich.console import Console

    from medtune.assistant.guards import TRAINED, WEIGHTS
    from medtune.models.encoder import load_encoder

    console = Console(highlight=False, soft_wrap=True)
    folder = out or WEIGHTS
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"written examples: {cases.EXAMPLES}\npublic files: {data.resolve()}", markup=False)
    encoder = load_encoder("auto")
    for name in TRAINED:
        read = scope_examples if name == "scope" else alarm_examples
        with console.status(f"fitting {name}"):
            head = fit(name, read(name, data), LIMITS[name], encoder)
        path = classifier.save(head, folder)
        console.print(f"{path}: {head.facts['examples']} examples, thresholds {head.thresholds}", markup=False)
        for kind in ("words", "mixed"):
            for source, share in head.facts.get(kind, {}).items():
                console.print(f"  {kind:<6} {source:<22} {share:7.2%} wrong on held-out folds", markup=False)


def scope_examples(name: str, data: Path) -> list[Example]:
    """Health from real patients, dialogues, encyclopaedia and library; everything else as written."""
    written = [Example(c.text, c.labels["in_scope"], "written", 2.0) for c in _written(name)]
    alarms = [c.text for kind in ("emergency", "crisis") for c in _written(kind) if c.labels[kind]]
    library = library_questions(True)
    patients = cases.patients(data)
    return [
        *written,
        *library,
        *mistyped([*written, *library]),
        *(Example(message, True, "patients", group=question) for message, question in patients),
        *(Example(question, True, "summaries", 0.5, question) for _, question in patients),
        *(Example(text, True, "dialogues", 0.5) for text in cases.dialogues(data)),
        *(Example(text, True, "encyclopaedia", 0.3) for text in cases.encyclopaedia(data)),
        *(Example(text, True, "alarms", 0.5) for text in alarms),
        *framed(),
    ]


def alarm_examples(name: str, data: Path) -> list[Example]:
    """What was written for the alarm `name`; patients' messages and what is not about health, as everyday life."""
    told = yaml.safe_load((cases.EXAMPLES / "everyday_alarms.yaml").read_text(encoding="utf-8"))
    alarms, unclear = told.get(name, ()), told["unclear"]
    asked = [
        Example(message, question in alarms, "patients", 0.5, question) for message, question in cases.patients(data)
    ]
    asked += [replace(e, label=e.text in alarms) for e in library_questions(False)]
    return [
        *(Example(_told(c), c.labels[name], "written") for c in _written(name)),
        *_neighbours(name),
        *(e for e in asked if e.group not in unclear and e.text not in unclear),
        *(Example(c.text, False, "general", 0.5) for c in _written("scope") if not c.labels["in_scope"]),
    ]


def _neighbours(name: str) -> list[Example]:
    """What was written for the other alarm and is none of this: a crisis may be an emergency, a poisoning a crisis."""
    other = {"emergency": "crisis", "crisis": "emergency"}.get(name)
    if other is None:
        return []
    may_be = ("poisoning", "overdose", "unconscious", "short")
    written = [c for c in _written(other) if not c.labels[other] or (name == "crisis" and c.kind not in may_be)]
    return [Example(_told(c), False, "neighbours", 0.5) for c in written]


def _told(case: cases.Case) -> str:
    """All that the user said, as the alarms also read it."""
    return "\n".join(message.content for message in case.messages if message.role == "user")


def mistyped(examples: Sequence[Example]) -> list[Example]:
    """Each example once more as typed in haste, in the same fold."""
    ways = ("typos", "lower", "bare")
    return [
        replace(e, text=perturb(e.text, ways[n % 3]), source="mistyped", weight=e.weight / 2, group=e.group or e.text)
        for n, e in enumerate(examples)
    ]


def framed() -> list[Example]:
    """General topics and the library's topics in the same frames, each in three: only the topic tells them apart."""
    given = yaml.safe_load((cases.EXAMPLES / "topics.yaml").read_text(encoding="utf-8"))
    general = [topic.strip() for topic in given["general"].split(";")]
    health = [name for row in _library() for name in (row["topic"], *row["lay_words"][:2])]
    frames = given["frames"]
    result = []
    for topics, label in ((general, False), (health, True)):
        for topic in dict.fromkeys(topics):
            first = zlib.crc32(topic.encode())
            for step in range(_FRAMES_PER_TOPIC[label]):
                text = frames[(first + 7 * step) % len(frames)].format(topic)
                result.append(Example(text, label, "framed", 0.1, topic))
    return result


def library_questions(label: bool) -> list[Example]:
    """The ways people ask, from the starter library."""
    return [Example(text, label, "library", 0.5, row["topic"]) for row in _library() for text in row["questions"]]


@cache
def _library() -> list[dict[str, Any]]:
    lines = (files("medtune") / "starter" / "library.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _written(name: str) -> list[cases.Case]:
    return cases.read(cases.EXAMPLES / f"{name}_train.jsonl")
