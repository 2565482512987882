"""Bits per byte of held-out text: a model beside its untrained self, a 5-gram model and gzip, on the same bytes.

    python benchmarks/bits_per_byte.py RUN [--split test] [--model FOLDER] [--limit 400] [--write]

RUN is the folder of a run of recipes/starter-base.yaml: its data/ says what is held out, its base/ is the untrained
model, its adapter/ the trained one unless `--model` names another. A text counts from its second token on, an answer
whole but without its question, which all but gzip may look at; answers are cut at 512 tokens, texts are read in windows
of 512. The 5-gram model (interpolated Kneser-Ney over the same tokens) has read the same training split; gzip gets all
bytes of a source in one piece. With `--write` the table goes to benchmarks/results/bits_per_byte.json.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from medtune.models import chat_template, decoding, loading
from medtune.recipe import ModelSection
from medtune.types import Conversation, Message, Sample

MAX_LENGTH = 512
BATCH = 8


def samples_by_source(folder: Path, rows: Iterable[dict[str, Any]]) -> tuple[Any, dict[str, list[Sample]]]:
    """The tokenizer in `folder`, and the rows as it sees them, by source."""
    section = ModelSection(base=str(folder), dtype="float32", device="cpu")
    tokenizer = loading.load_tokenizer(str(folder))
    template = chat_template.choose(section, tokenizer, "causal")
    parts: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        messages = tuple(Message(**message) for message in row["messages"])
        parts[Path(row["source"]).name.partition(".")[0]].append(Conversation(row["id"], messages))
    return tokenizer, {
        source: list(chat_template.samples(template, tokenizer, conversations, MAX_LENGTH))
        for source, conversations in sorted(parts.items())
    }


def bytes_of(tokenizer: Any, samples: Sequence[Sample]) -> int:
    """UTF-8 bytes of the scored tokens: a byte-level BPE writes one character for each; special tokens are no text."""
    special = set(tokenizer.all_special_ids)
    pieces = (label for sample in samples for label in sample.labels if label >= 0 and label not in special)
    return sum(len(piece) for piece in tokenizer.convert_ids_to_tokens(list(pieces)))


def model_bits(folder: Path, samples: Sequence[Sample]) -> float:
    """Bits that the model in `folder` needs for the scored tokens."""
    section = ModelSection(base=str(folder), dtype="float32", device="cpu", attention="sdpa")
    model = loading.load_model(section, str(folder))
    ordered = sorted(samples, key=lambda sample: -len(sample.input_ids))
    batches = (ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH))
    with torch.no_grad():
        return sum(sum(decoding.answer_nll(model, batch)) for batch in batches) / math.log(2)


def spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most `limit` samples, evenly over the list."""
    count = min(limit, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def bits_by_source(folder: Path, rows: Iterable[dict[str, Any]], limit: int) -> dict[str, float]:
    """Bits per byte of the model in `folder`, for each source of `rows`, on at most `limit` samples of each."""
    tokenizer, parts = samples_by_source(folder, rows)
    chosen = {source: spread(samples, limit) for source, samples in parts.items()}
    return {
        source: round(model_bits(folder, samples) / bytes_of(tokenizer, samples), 3)
        for source, samples in chosen.items()
    }
