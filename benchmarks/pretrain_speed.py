"""All weights of a small Llama trained on packed rows of 512 tokens: medtune's step beside a plain autocast step.

    OMP_NUM_THREADS=1 python benchmarks/pretrain_speed.py [--rounds 3] [--write]

Both compute in bfloat16 over float32 weights, forward and backward, on 8 rows without padding; the optimizer costs the
same on both sides and is left out. `plain` is the model's own loss and SDPA under torch.autocast. The sides take turns;
the median of the rounds counts. With `--write` the table goes to benchmarks/results/pretrain_speed.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from medtune.models import attention
from medtune.run_dir import environment, write_json
from medtune.tuning.batches import collate_packed
from medtune.tuning.head import supervised
from medtune.tuning.train import fast_paths
from medtune.types import Sample

RESULT = Path(__file__).resolve().parent / "results" / "pretrain_speed.json"
SHAPES = {"10m": (6, 320), "12m": (8, 320)}
VOCABULARY, ROWS, LENGTH, STEPS = 8192, 8, 512, 2


def model_of(layers: int, width: int) -> Any:
    """A random Llama as `model.base: scratch` makes them."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=(width * 8 // 3 + 15) // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(shape).train()


def plain_step(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The loss as transformers computes it."""
    with torch.autocast("cpu", torch.bfloat16):
        loss: torch.Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss


def our_step(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The loss as medtune's trainer computes it."""
    rows = [Sample(str(i), row, [-100, *row[1:]]) for i, row in enumerate(ids.tolist())]
    inputs = collate_packed(rows)
    targets = inputs.pop("targets")
    low = torch.autocast("cpu", torch.bfloat16)
    with fast_paths(collate_packed, model), low, supervised(model, model.lm_head, targets):
        loss: torch.Tensor = model(**inputs).logits.mean()
    loss.backward()
    return loss


def seconds(step: Callable[[Any, torch.Tensor], torch.Tensor], model: Any, ids: torch.Tensor) -> tuple[float, float]:
    """Seconds of one step, and its loss."""
    start = time.perf_counter()
    for _ in range(STEPS):
        model.zero_grad()
        loss = step(model, ids)
    return (time.perf_counter() - start) / STEPS, loss.item()


def main() -> None:
    """Measure each shape."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    ids, results = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0)), {}
    for name, (layers, width) in SHAPES.items():
        with attention.kernel(model := model_of(layers, width), "sdpa"):
            seconds(plain_step, model, ids), seconds(our_step, model, ids)
            pairs = [(seconds(plain_step, model, ids), seconds(our_step, model, ids)) for _ in range(options.rounds)]
        tokens = ROWS * LENGTH
        results[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "plain_tokens_per_second": round(median(tokens / plain[0] for plain, _ in pairs)),
            "medtune_tokens_per_second": round(median(tokens / ours[0] for _, ours in pairs)),
            "ratio": round(median(plain[0] / ours[0] for plain, ours in pairs), 2),
            "losses": [round(pairs[0][0][1], 4), round(pairs[0][1][1], 4)],
        }
        print(name, results[name], flush=True)
    if options.write:
        write_json(RESULT, {"threads": torch.get_num_threads(), "environment": environment(), "shapes": results})


if __name__ == "__main__":
    main()
