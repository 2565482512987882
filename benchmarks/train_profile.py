"""Where medtune's tuning speed on a CPU comes from, and what limits it next.

    python benchmarks/train_profile.py [--shape 135m|15m] [--rounds 3] [--data ../shared/data/medquad.csv.gz]

Each part of the fast path is switched off in turn, all variants alternating on the same rows: tokens per second, median
of the rounds. Then one update is profiled by operator. Then memory with and without the bound on compiled kernels that
`medtune/__init__.py` sets, after 40 updates, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from train_speed import RESULTS, ROWS_PER_UPDATE, make_base, make_rows, recipe_for, to_samples

UPDATES = 6
BOUNDS = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def prepared(folder: Path) -> tuple[Any, Any, list[Any]]:
    """The adapted model, its tokenizer and the samples, as the tuning stage would have them."""
    import torch

    from medtune.models import loading
    from medtune.tuning import methods

    samples = to_samples(json.loads((folder / "rows.json").read_text()))
    recipe, tokenizer = recipe_for(folder, steps=1), loading.load_tokenizer(str(folder))
    base = loading.load_model(recipe.model, str(folder))
    torch.manual_seed(0)
    return methods.prepare(recipe, base, tokenizer, samples).train(), tokenizer, samples


def update(model: Any, optimizer: Any, collate: Callable[..., Any], head: Any, samples: list[Any]) -> int:
    """Forward, backward and step on some samples; returns their tokens."""
    from medtune.tuning.head import plain_nll, supervised

    inputs = collate(samples)
    targets = inputs.pop("targets")
    with contextlib.nullcontext() if head is None else supervised(model, head, targets):
        logits = model(**inputs).logits
    nll = plain_nll(logits, targets) if head is None else logits
    nll.mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return sum(len(sample.input_ids) for sample in samples)


def variants(model: Any, tokenizer: Any) -> dict[str, tuple[Callable[..., Any], Any, bool]]:
    """Name -> collator, head (None: complete logits), written-out layers."""
    from medtune.tuning.batches import collate_packed, collate_padded

    head, padded = model.get_output_embeddings(), partial(collate_padded, pad_id=tokenizer.pad_token_id)
    return {
        "everything": (collate_packed, head, True),
        "PEFT's own update, the model's own norms": (collate_packed, head, False),
        "complete logits": (collate_packed, None, True),
        "padded rows, eager attention": (padded, head, True),
        "none of it (bf16 weights alone)": (padded, None, False),
    }


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Median tokens per second of each variant; then prints the profile of one update."""
    import torch

    from medtune.models import attention
    from medtune.tuning import kernels
    from medtune.tuning.batches import collate_packed

    model, tokenizer, samples = prepared(folder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    batches = [samples[i : i + ROWS_PER_UPDATE] for i in range(0, UPDATES * ROWS_PER_UPDATE, ROWS_PER_UPDATE)]
    speeds: dict[str, list[float]] = {name: [] for name in variants(model, tokenizer)}
    for _ in range(rounds):
        for name, (collate, head, is_fast) in variants(model, tokenizer).items():
            kernel = attention.NAME if collate is collate_packed else "eager"
            with attention.kernel(model, kernel), kernels.fast(model) if is_fast else contextlib.nullcontext():
                update(model, optimizer, collate, head, batches[0])
                start = time.perf_counter()
                tokens = sum(update(model, optimizer, collate, head, batch) for batch in batches[1:])
                speeds[name].append(tokens / (time.perf_counter() - start))
    with attention.kernel(model, attention.NAME), kernels.fast(model), torch.profiler.profile() as profile:
        update(model, optimizer, collate_packed, model.get_output_embeddings(), batches[1])
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))
    return {name: statistics.median(values) for name, values in speeds.items()}


def memory(folder: Path) -> int:
    """Resident bytes after 40 updates on rows of ever new lengths."""
    import torch

    from medtune.models import attention
    from medtune.tuning import kernels
    from medtune.tuning.batches import collate_packed

    model, _, samples = prepared(folder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    with attention.kernel(model, attention.NAME), kernels.fast(model):
        for i in range(40):
            update(model, optimizer, collate_packed, model.get_output_embeddings(), samples[i : i + ROWS_PER_UPDATE])
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("135m", "15m"), default="135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/medquad.csv.gz")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(memory(args.memory))
        return
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out)
        make_base(args.shape, folder)
        rows = make_rows(args.data, args.shape, (UPDATES + 1) * ROWS_PER_UPDATE, folder)
        (folder / "rows.json").write_text(json.dumps(rows))
        command = [sys.executable, __file__, "--memory", out]
        unbounded = os.environ | dict.fromkeys(BOUNDS, "1024")
        kept = {
            name: int(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()[-1])
            for name, env in (("bounded", os.environ), ("torch's defaults", unbounded))
        }
        speeds = measure(folder, args.rounds)
    for name, speed in speeds.items():
        print(f"{name:45}{speed:8,.0f} tokens/s  {speed / speeds['everything']:.2f}")
    for name, size in kept.items():
        print(f"resident after 40 updates, {name:18}{size / 2**30:6.2f} GiB")
    content = {"shape": args.shape, "tokens_per_second": speeds, "resident_bytes": kept}
    (RESULTS / f"train_profile_{args.shape}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
