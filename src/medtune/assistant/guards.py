"""All guards on one conversation, before anything is generated.

Covered: loading the heads, encoding each text once for all guards, thresholds (trained, or the recipe's), and failing
closed: a guard that is missing or breaks gives a verdict with `is_error`, never a pass.
Not covered: what the guards look for (their modules), what the assistant does about it (`assistant`), masking personal
data before storage (`privacy`).

Every guard has `verdict(messages, ...)`; messages are the conversation so far, the user's newest turn last.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medtune.assistant import advice, classifier, crisis, emergency, injection, scope
from medtune.assistant.classifier import Array, Classifier
from medtune.errors import ModelError
from medtune.recipe_assistant import GuardsSection
from medtune.types import Message, Verdict

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
TRAINED = ("emergency", "crisis", "scope", "injection")
NAMES = (*TRAINED, "advice")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guards:
    """What is needed to check a conversation. `hash` covers weights, rules and fixed texts, for the run's manifest.

    `broken` says, by guard, why its weights cannot be used: such a guard always answers with an error.
    """

    classifiers: Mapping[str, Classifier]
    thresholds: Mapping[str, float]
    encoder: Encoder | None
    hash: str
    broken: Mapping[str, str] = field(default_factory=dict)


def load_guards(section: GuardsSection, encoder: Encoder | None, weights: Path = WEIGHTS) -> Guards:
    """The guards with the thresholds of `section` laid over the trained ones. A missing weight file breaks its guard.

    An encoder that the heads were not fitted on is left out (said once): the words alone then decide.
    """
    classifiers: dict[str, Classifier] = {}
    broken: dict[str, str] = {}
    for name in TRAINED:
        try:
            classifiers[name] = classifier.load(weights / f"{name}.safetensors")
        except ModelError as error:
            broken[name] = "its weights are missing or damaged"
            log.error("The guard %s is closed: %s", name, error)
    if encoder is not None and not all(head.fits(encoder) for head in classifiers.values()):
        log.warning("The guards were not trained on the encoder %s; they read words alone.", encoder.name)
        encoder = None
    asked = section.model_dump()
    thresholds = {
        name: asked.get(name) or (classifiers[name].threshold(encoder) if name in classifiers else 0.5)
        for name in TRAINED
    }
    return Guards(classifiers, thresholds, encoder, _hash(weights), broken)


def check(guards: Guards, messages: Sequence[Message]) -> dict[str, Verdict]:
    """A verdict by guard (`NAMES`). Never raises: a guard that breaks gives an error verdict."""
    scores = _Scores(guards)
    checks: dict[str, Callable[[], Verdict]] = {
        "emergency": lambda: emergency.verdict(messages, scores.of("emergency"), guards.thresholds["emergency"]),
        "crisis": lambda: crisis.verdict(messages, scores.of("crisis"), guards.thresholds["crisis"]),
        "scope": lambda: scope.verdict(messages, scores.of("scope"), guards.thresholds["scope"]),
        "injection": lambda: injection.verdict(messages, scores.of("injection"), guards.thresholds["injection"]),
        "advice": lambda: advice.verdict(messages),
    }
    return {name: _closed(name, guards.broken.get(name, ""), run) for name, run in checks.items()}


def _closed(name: str, broken: str, run: Callable[[], Verdict]) -> Verdict:
    if not broken:
        try:
            return run()
        except Exception as error:  # whatever breaks a guard, it must not count as passed
            log.exception("The guard %s failed.", name)
            broken = f"it failed with {type(error).__name__}"
    # Fired, and for scope: not let through. `is_error` tells this from a decision.
    return Verdict(name, name != "scope", float(name != "scope"), broken, is_error=True)


class _Scores:
    """Scores of one check: each text is encoded once, however many guards ask for it."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self._features: dict[str, tuple[tuple[NDArray[np.int64], Array], Array | None]] = {}

    def of(self, name: str) -> Callable[[str], float]:
        head = self._guards.classifiers[name]
        return lambda text: head.score(*self._read(text))

    def _read(self, text: str) -> tuple[tuple[NDArray[np.int64], Array], Array | None]:
        if text not in self._features:
            encoder = self._guards.encoder
            vector = None if encoder is None else _features(encoder, text)
            self._features[text] = (classifier.ngrams(text), vector)
        return self._features[text]


def _features(encoder: Encoder, text: str) -> Array:
    from medtune.models.encoder import features

    found: Array = features(encoder, [text])[0]
    return found


@cache
def _hash(weights: Path) -> str:
    """Over the weights, the fixed texts and the rules: sixteen hexadecimal digits."""
    code = [HERE / f"{name}.py" for name in (*NAMES, "guards", "classifier", "clauses", "rulebook", "vitals")]
    digest = hashlib.sha256()
    read = [*weights.glob("*.safetensors"), *HERE.glob("*.yaml"), *HERE.glob("texts/*.yaml"), *code]
    for path in sorted(read, key=lambda path: path.name):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
