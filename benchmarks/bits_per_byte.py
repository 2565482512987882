"""Bits per byte of held-out text: a model beside its untrained self, a 5-gram model and gzip, on the same bytes.

    python benchmarks/bits_per_byte.py runs/starter-base [--model src/medtune/starter/model] [--limit 300] [--write]

The first folder is a run of recipes/starter-base.yaml: its data/ says what is held out, its base/ is the untrained
model, its adapter/ the pre-trained one; `--model` adds another. A text counts from its second token on, an answer whole
but without its question, which all but gzip may look at; answers are cut at 512 tokens, texts are read in windows of
512. The 5-gram model (interpolated Kneser-Ney over the same tokens) has read the same training split; gzip has read
nothing and gets all bytes of a source in one piece. Of each source of the test split at most `--limit` samples count,
spread evenly. With `--write` the table goes to benchmarks/results/bits_per_byte.json.
"""

from __future__ import annotations

import argparse
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ngram
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from medtune.models import chat_template, decoding, loading
from medtune.recipe import ModelSection
from medtune.run_dir import RunDir, environment, read_lines, write_json
from medtune.types import Conversation, Message, Sample

MAX_LENGTH = 512
BATCH = 8
RESULT = Path(__file__).resolve().parent / "results" / "bits_per_byte.json"


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


def ngram_bits(orders: Sequence[ngram.Order], samples: Sequence[Sample], vocabulary: int) -> float:
    """Bits that the n-gram model needs for the scored tokens."""
    total = 0.0
    for sample in samples:
        is_scored = np.array(sample.labels[1:]) >= 0
        total -= float(np.log2(ngram.probabilities(orders, sample.input_ids, vocabulary)[is_scored]).sum())
    return total


def gzip_bits(tokenizer: Any, samples: Sequence[Sample]) -> int:
    """Bits of the scored text, all of it compressed at once."""
    texts = (tokenizer.decode([label for label in s.labels if label >= 0], skip_special_tokens=True) for s in samples)
    return 8 * len(gzip.compress("\n".join(texts).encode(), 9))


def measure(run_dir: RunDir, limit: int, model: Path | None) -> list[dict[str, Any]]:
    """One row per source of the test split."""
    tokenizer, parts = samples_by_source(run_dir.base, read_lines(run_dir.split("test")))
    _, read = samples_by_source(run_dir.base, read_lines(run_dir.split("train")))
    orders = ngram.fit([sample.input_ids for samples in read.values() for sample in samples])
    folders = {"untrained": run_dir.base, "pre-trained": run_dir.adapter} | ({"model": model} if model else {})
    rows = []
    for source, samples in parts.items():
        chosen = spread(samples, limit)
        size = bytes_of(tokenizer, chosen)
        bits = {"gzip": gzip_bits(tokenizer, chosen), "5-gram": ngram_bits(orders, chosen, len(tokenizer))}
        bits |= {name: model_bits(folder, chosen) for name, folder in folders.items()}
        rows.append({"source": source, "bytes": size} | {name: round(value / size, 3) for name, value in bits.items()})
    return rows


def main() -> None:
    """Measure, print, and write where that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = measure(RunDir(options.run), options.limit, options.model)
    table = Table(*rows[0], title="bits per byte, test split")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.write:
        write_json(RESULT, {"limit": options.limit, "environment": environment(), "sources": rows})


if __name__ == "__main__":
    main()
