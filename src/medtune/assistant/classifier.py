"""One small trained head per guard: a text to a score in 0..1, with numpy alone.

Covered: hashed words and character n-grams (always), a sentence encoder's vector (where one is installed), one
safetensors file per guard with its thresholds and the hash of its examples.
Not covered: fitting (`training`), what the score means and what rules lie over it (`emergency`, `crisis`, `scope`).

A head of another encoder is never used: with a foreign fingerprint the words alone decide, by their own threshold.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtune.errors import ModelError

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

Array = NDArray[np.float32]

BUCKETS = 2**16
CHARACTERS = 4_000  # of one text; a longer one is read at both ends
_BYTES = (3, 4, 5)  # lengths of the character n-grams
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_FORMAT = "1"


@dataclass(frozen=True)
class Classifier:
    """One guard's heads: `words` [BUCKETS] for n-grams, `dense` [dimensions] for vectors of the encoder `encoder`.

    The words' logit is `words . n-grams + bias`; with an encoder the logit is `dense . vector + share * words' logit +
    offset`. `thresholds` is (without, with encoder).
    """

    name: str
    words: Array
    bias: float
    dense: Array | None = None
    share: float = 1.0
    offset: float = 0.0
    encoder: str = ""
    thresholds: tuple[float, float] = (0.5, 0.5)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, encoder: Encoder | None) -> bool:
        """Whether the dense head was fitted on this encoder's vectors."""
        return self.dense is not None and encoder is not None and encoder.fingerprint == self.encoder

    def threshold(self, encoder: Encoder | None) -> float:
        return self.thresholds[self.fits(encoder)]

    def score(self, grams: tuple[NDArray[np.int64], Array], vector: Array | None) -> float:
        """The score of one text; `vector`, of which `dense` reads as much as it
        knows, must be the `features` of an encoder that `fits`, or None."""
        buckets, values = grams
        logit = float(values @ self.words[buckets]) + self.bias
        if vector is not None and self.dense is not None:
            logit = float(self.dense @ vector[: len(self.dense)]) + self.share * logit + self.offset
        return float(sigmoid(logit))


def sigmoid(logit: Any) -> Any:
    """The logistic function, kept off 0 and 1 so that its inverse exists."""
    return 1 / (1 + np.exp(-np.clip(logit, -16, 16)))


def logit(score: float) -> float:
    """The inverse of `sigmoid`."""
    return float(np.log(score) - np.log1p(-score))


def tidy(text: str) -> str:
    """What the n-grams are read from: lower case, compatibility forms folded, white space single, both ends kept."""
    text = " ".join(unicodedata.normalize("NFKC", text).lower().replace("’", "'").split())
    if len(text) > CHARACTERS:
        text = text[: CHARACTERS // 2] + " " + text[-CHARACTERS // 2 :]
    return text


def ngrams(text: str) -> tuple[NDArray[np.int64], Array]:
    """Buckets of the words, word pairs and character n-grams of `text`, and their values; each half has length 1."""
    text = tidy(text)
    codes = [zlib.crc32(word.encode()) for word in _WORD.findall(text)]
    words = np.array(codes, np.uint64)
    pairs = words[:-1] * np.uint64(0x9E3779B1) + words[1:] * np.uint64(0x85EBCA77)
    data = np.frombuffer(f" {text} ".encode(), np.uint8).astype(np.uint64)
    rolling = data
    groups = []
    for length in range(2, max(_BYTES) + 1):
        if len(data) < length:
            break
        rolling = rolling[:-1] * np.uint64(1_000_003) + data[length - 1 :]
        if length in _BYTES:
            groups.append(rolling + np.uint64(length))
    halves = [_hashed([words, pairs], 1), _hashed(groups, 2)]
    return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])


def _hashed(groups: Sequence[NDArray[np.uint64]], salt: int) -> tuple[NDArray[np.int64], Array]:
    joined = np.concatenate(groups) if groups else np.zeros(0, np.uint64)
    mixed = (joined ^ np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15)
    buckets, counts = np.unique((mixed >> np.uint64(64 - 16)).astype(np.int64), return_counts=True)
    values = np.log1p(counts).astype(np.float32)
    norm = float(np.linalg.norm(values))
    return buckets, values / norm if norm else values


def save(classifier: Classifier, folder: Path) -> Path:
    """Write `folder`/NAME.safetensors; float16 is exact enough for a sum of a few hundred weights."""
    from safetensors.numpy import save as to_bytes

    tensors: dict[str, NDArray[Any]] = {"words": classifier.words.astype(np.float16)}
    if classifier.dense is not None:
        tensors["dense"] = classifier.dense
    about = {
        "format": _FORMAT,
        "name": classifier.name,
        "bias": classifier.bias,
        "share": classifier.share,
        "offset": classifier.offset,
        "encoder": classifier.encoder,
        "thresholds": classifier.thresholds,
        "facts": dict(classifier.facts),
    }
    path = folder / f"{classifier.name}.safetensors"
    path.write_bytes(
        to_bytes(tensors, metadata={"medtune": json.dumps(about)})
    )  # `save_file` makes it unreadable to others
    return path


def load(path: Path) -> Classifier:
    """Read what `save` wrote. Raises ModelError for a file that is missing, damaged or of another format."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["medtune"])
            tensors = {key: file.get_tensor(key).astype(np.float32) for key in file.keys()}  # noqa: SIM118
        if about["format"] != _FORMAT:
            raise ModelError(f"format {about['format']}, expected {_FORMAT}")
        return Classifier(
            name=about["name"],
            words=tensors["words"],
            bias=about["bias"],
            dense=tensors.get("dense"),
            share=about["share"],
            offset=about["offset"],
            encoder=about["encoder"],
            thresholds=tuple(about["thresholds"]),
            facts=about["facts"],
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: this guard's weights cannot be used ({error}). Install medtune again, or rebuild them: "
            "medtune guard train"
        ) from error
