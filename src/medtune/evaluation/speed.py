"""What a system costs: latency, throughput, bytes that must be shipped, peak memory.

Covered: one question at a time (time to the first token, latency) and the batched run (tokens/s), on this machine.
Not covered: energy, other machines.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from medtune.evaluation.systems import Answers, System
from medtune.models.probe import peak_resident_bytes
from medtune.types import Conversation, Record

WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")


def latency(system: System, conversations: Sequence[Conversation]) -> dict[str, float | None]:
    """Seconds from a question to its whole answer (mean, median, 95th percentile) and to its first token (median).

    Questions are asked one at a time; the first one once more than it is counted, so that what happens only once
    (caches, compilation) is not.
    """
    whole, first = _seconds(system.answers, conversations), _seconds(system.first_tokens, conversations)
    return {
        "latency_mean_seconds": float(np.mean(whole)) if whole else None,
        "latency_p50_seconds": float(np.median(whole)) if whole else None,
        "latency_p95_seconds": float(np.percentile(whole, 95)) if whole else None,
        "first_token_p50_seconds": float(np.median(first)) if first else None,
    }


def _seconds(answers: Answers | None, conversations: Sequence[Conversation]) -> list[float]:
    if answers is None or not conversations:
        return []
    list(answers(conversations[:1], 1))
    seconds = []
    for conversation in conversations:
        start = time.perf_counter()
        list(answers([conversation], 1))
        seconds.append(time.perf_counter() - start)
    return seconds


def tokens_per_second(records: Iterable[Record]) -> float | None:
    """Generated tokens per second of the batched run, whatever interrupted it; None for a system without tokens."""
    completions = [record.completion for record in records if record.status != "failed"]
    tokens, seconds = sum(c.completion_tokens for c in completions), sum(c.seconds for c in completions)
    return tokens / seconds if tokens and seconds else None


def disk_bytes(paths: Sequence[Path]) -> int | None:
    """Bytes of the files and folders that must be shipped; None where they are not known."""
    return sum(_folder_bytes(path) if path.is_dir() else path.stat().st_size for path in paths) if paths else None


def _folder_bytes(folder: Path) -> int:
    """A repository may hold its weights in several formats; one of them is shipped, safetensors where it is there."""
    files = [path for path in folder.iterdir() if path.is_file()]
    formats = [suffix for suffix in WEIGHTS if any(path.suffix == suffix for path in files)]
    return sum(path.stat().st_size for path in files if path.suffix not in formats[1:])


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Yields a dict that afterwards holds the peak `bytes` of the block: on the GPU if it was used, else resident.

    Linux lets a process reset its high-water mark; elsewhere the peak since its start is what can be known.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    peak: dict[str, int] = {}
    yield peak
    peak["bytes"] = (torch.cuda.max_memory_allocated() if has_gpu else 0) or peak_resident_bytes()
