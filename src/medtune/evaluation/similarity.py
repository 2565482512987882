"""How near an answer's meaning is to the reference's: the cosine of their sentence vectors, of the best reference.

Covered: answers that have no such score yet; each reference is encoded once for all systems. Not covered: the encoder
(`models.encoder`), which reads the first 256 tokens of a text, and truth: opposite statements lie near each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from medtune.data.convert import without_headings
from medtune.evaluation.runner import RecordFile, progress
from medtune.evaluation.systems import System
from medtune.models.encoder import Encoder, Vectors
from medtune.types import Conversation, Record

_BATCH = 64


class Similarity:
    """Adds the score `similarity` to records; `encoder` may be None, and then there is no such score."""

    def __init__(self, encoder: Encoder | None) -> None:
        self.encoder = encoder
        self._references: dict[str, Vectors] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with the encoder, so that scores of another one are not taken for this one's."""
        return self.encoder.fingerprint if self.encoder else ""

    def measure(self, system: System, conversations: Sequence[Conversation], records: RecordFile) -> list[Record]:
        """The records of `system`, in order, each graded answer with its similarity; an empty answer has 0."""
        found = [(c, record) for c in conversations if (record := records.get(system, c)) is not None]
        missing = [(c, r) for c, r in found if r.scores and "similarity" not in r.scores] if self.encoder else []
        with progress(f"{system.name}: similarity", len(missing)) as advance:
            for start in range(0, len(missing), _BATCH):
                batch = missing[start : start + _BATCH]
                for (conversation, record), value in zip(batch, self._values([r for _, r in batch]), strict=True):
                    scores = {**record.scores, "similarity": value if record.status == "scored" else 0.0}
                    records.add(system, conversation, dataclasses.replace(record, scores=scores))
                    advance()
        return [record for c in conversations if (record := records.get(system, c)) is not None]

    def _values(self, records: Sequence[Record]) -> list[float]:
        assert self.encoder is not None
        wanted = [[without_headings(text) for text in (r.reference, *r.references)] for r in records]
        texts = {text for references in wanted for text in references}
        new = sorted(texts - self._references.keys())
        self._references.update(zip(new, self.encoder.encode(new) if new else (), strict=True))
        answers = self.encoder.encode([without_headings(record.completion.text) for record in records])
        return [
            float(max(np.dot(answer, self._references[text]) for text in references))
            for answer, references in zip(answers, wanted, strict=True)
        ]
