"""LoRA on a CPU: medtune's tuning beside TRL's SFTTrainer, on the same rows, adapter and schedule.

    python benchmarks/train_speed.py [--shape 135m|15m] [--steps 8] [--rounds 3] [--data ../shared/data/medquad.csv.gz]

Each side runs in a process of its own, in turn, `--rounds` times: N updates of 8 rows after two that do not count.
Figures are real tokens (no padding) per second of the loop, and their ratio round by round; the median is what may be
quoted. The loss of every update is printed side by side: speed counts only at the same loss curve. TRL 1.16 runs as its
users run it on a CPU: `use_cpu`, its defaults otherwise (float32 weights under bf16 autocast, activation checkpointing,
padding to the longest row). The models have random weights: neither speed nor memory depends on the values.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPES = {
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49152},
    "15m": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6,
            "num_key_value_heads": 6, "vocab_size": 32000},
}  # fmt: skip
MAX_LENGTH = 512
ROWS_PER_UPDATE = 8
WARMUP = 2
RESULTS = Path(__file__).parent / "results"


def make_base(shape: str, folder: Path) -> None:
    """A random Llama of this shape as a loadable folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, **SHAPES[shape]
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def make_rows(data: Path, shape: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """`count` random MedQuAD rows under a byte-level BPE of 16,000 pieces trained on them: ids, how many are prompt."""
    from medtune.models.scratch import train_tokenizer

    opener = gzip.open if data.suffix == ".gz" else open
    with opener(data, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = [f"{row['Question']} {row['Answer']}" for row in rows]
    vocabulary = min(16000, SHAPES[shape]["vocab_size"])
    tokenizer = train_tokenizer(texts[::4], vocabulary, ("<eos>",), bos=None, eos="<eos>", pad="<eos>")
    tokenizer.save_pretrained(folder)
    chosen = random.Random(0).sample(rows, count)
    prompts = tokenizer([f"Question: {row['Question']}\n\nAnswer:" for row in chosen]).input_ids
    answers = tokenizer([f" {row['Answer']}" for row in chosen]).input_ids
    return [
        {"ids": (prompt + answer + [0])[:MAX_LENGTH], "prompt": len(prompt)}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def recipe_for(folder: Path, steps: int) -> Any:
    """LoRA on the base in `folder`, for this many updates."""
    from medtune.recipe import Recipe

    lora = {"targets": ["q_proj", "v_proj"], "dropout": 0.0}
    tune = {"lora": lora, "max_steps": steps, "batch_size": ROWS_PER_UPDATE, "learning_rate": 2e-4,
            "scheduler": "linear", "warmup": 0}  # fmt: skip
    source = {"layout": "medquad_csv", "path": "unused"}
    return Recipe.model_validate(
        {"name": "speed", "model": {"base": str(folder)}, "data": {"sources": [source]}, "tune": tune}
    )


def to_samples(rows: list[dict[str, Any]]) -> list[Any]:
    """The rows as medtune's samples: everything after the prompt is supervised."""
    from medtune.types import Sample

    return [
        Sample(str(i), row["ids"], [-100] * row["prompt"] + row["ids"][row["prompt"] :]) for i, row in enumerate(rows)
    ]


def run_medtune(folder: Path, rows: list[dict[str, Any]], steps: int, clock: Any) -> list[float]:
    """Updates of medtune's trainer with the batches, the loss and the kernel that `medtune tune` would choose."""
    import torch

    from medtune.models import loading
    from medtune.tuning import methods, train
    from medtune.tuning.trainer import Samples, SupervisedTrainer

    recipe, samples = recipe_for(folder, steps), to_samples(rows)
    tokenizer = loading.load_tokenizer(str(folder))
    base = loading.load_model(recipe.model, str(folder))
    torch.manual_seed(0)
    model = methods.prepare(recipe, base, tokenizer, samples)
    feed = train.feed_for(recipe, model, tokenizer, train.Split(samples, []))
    with tempfile.TemporaryDirectory() as out:
        options = train.arguments(recipe, model, len(samples), Path(out))
        options.logging_steps, options.save_strategy, options.eval_strategy = 1, "no", "no"
        trainer = SupervisedTrainer(feed, model=model, args=options, train_dataset=Samples(samples), callbacks=[clock])
        with train.fast_paths(feed.collate, model):
            trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def run_trl(folder: Path, rows: list[dict[str, Any]], steps: int, clock: Any) -> list[float]:
    """The same updates through TRL's SFTTrainer: the rows in the order in which medtune takes them."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.utils import create_model_from_path

    from medtune.tuning.batches import EpochOrder

    ordered = [rows[i] for i in EpochOrder(len(rows), seed=0)]
    data = Dataset.from_list([
        {"input_ids": row["ids"], "completion_mask": [0] * row["prompt"] + [1] * (len(row["ids"]) - row["prompt"])}
        for row in ordered
    ])  # fmt: skip
    model = create_model_from_path(str(folder))
    torch.manual_seed(0)
    adapter = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, adapter)
    with tempfile.TemporaryDirectory() as out:
        options = SFTConfig(
            output_dir=out, use_cpu=True, max_length=MAX_LENGTH, max_steps=steps, learning_rate=2e-4, logging_steps=1,
            save_strategy="no", report_to="none", train_sampling_strategy="sequential", completion_only_loss=True,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(folder)
        trainer = SFTTrainer(model, args=options, train_dataset=data, processing_class=tokenizer, callbacks=[clock])
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def child(side: str, folder: Path, steps: int) -> None:
    """Run one side and print its figures as one line of JSON."""
    import resource

    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = json.loads((folder / "rows.json").read_text())
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    losses = {"medtune": run_medtune, "trl": run_trl}[side](folder, rows, steps + WARMUP, Clock())
    from medtune.tuning.batches import EpochOrder

    order = list(EpochOrder(len(rows), seed=0))[WARMUP * ROWS_PER_UPDATE : (WARMUP + steps) * ROWS_PER_UPDATE]
    tokens = sum(len(rows[i]["ids"]) for i in order)
    seconds = times[-1] - times[WARMUP]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "side": side,
                "tokens_per_second": tokens / seconds,
                "losses": losses,
                "peak_memory_bytes": peak,
                "tokens": tokens,
            }
        )
    )


def matrix_peak() -> float:
    """Best bf16 matrix product of this machine in FLOP/s, on a product of the size that training does."""
    import torch

    a, b = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def flops_per_token(shape: dict[str, int]) -> float:
    """Forward and backward of a frozen base: 4 per matrix weight, head included; attention and the adapter left out."""
    width, kv = (
        shape["hidden_size"],
        shape["hidden_size"] // shape["num_attention_heads"] * shape["num_key_value_heads"],
    )
    layer = 2 * width * width + 2 * width * kv + 3 * width * shape["intermediate_size"]
    return 4.0 * (shape["num_hidden_layers"] * layer + width * shape["vocab_size"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/medquad.csv.gz")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child[0], Path(args.child[1]), args.steps)
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out)
        make_base(args.shape, folder)
        rows = make_rows(args.data, args.shape, (args.steps + WARMUP) * ROWS_PER_UPDATE, folder)
        (folder / "rows.json").write_text(json.dumps(rows))
        runs: dict[str, list[dict[str, Any]]] = {"medtune": [], "trl": []}
        for round_number in range(args.rounds):
            for side, done in runs.items():
                command = [sys.executable, __file__, "--child", side, out, "--steps", str(args.steps)]
                result = subprocess.run(command, capture_output=True, text=True)
                if result.returncode:
                    sys.exit(result.stderr)
                done.append(json.loads(result.stdout.splitlines()[-1]))
                print(f"round {round_number + 1}  {side:8} {done[-1]['tokens_per_second']:9,.0f} tokens/s", flush=True)
        report(args, runs)
    return None


def report(args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians, ratios and losses, and write them to results/."""
    ours, theirs = runs["medtune"], runs["trl"]
    ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs, strict=True)]
    speed = {side: statistics.median(run["tokens_per_second"] for run in done) for side, done in runs.items()}
    peak = matrix_peak()
    share = {side: value * flops_per_token(SHAPES[args.shape]) / peak for side, value in speed.items()}
    gap = max(abs(a - b) for a, b in zip(ours[0]["losses"], theirs[0]["losses"], strict=True))
    print(f"\n{'':10}{'tokens/s':>10}{'share of bf16 peak':>20}{'peak memory':>14}")
    for side, done in runs.items():
        print(f"{side:10}{speed[side]:>10,.0f}{share[side]:>20.0%}{done[0]['peak_memory_bytes'] / 2**30:>10.2f} GiB")
    print(f"ratio      {statistics.median(ratios):.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"bf16 peak  {peak / 1e9:,.0f} GFLOP/s")
    print(
        "loss       "
        + "  ".join(f"{a:.4f}/{b:.4f}" for a, b in zip(ours[0]["losses"], theirs[0]["losses"], strict=True))
    )
    print(f"largest difference of a loss: {gap:.4f}")
    RESULTS.mkdir(exist_ok=True)
    content = {
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "system": platform.system(),
                    "bf16_peak_flops": peak},
        "shape": args.shape, "steps": args.steps, "tokens_per_second": speed, "ratios": ratios, "share_of_peak": share,
        "largest_loss_difference": gap, "losses": {side: done[0]["losses"] for side, done in runs.items()},
        "peak_memory_bytes": {side: done[0]["peak_memory_bytes"] for side, done in runs.items()},
    }  # fmt: skip
    (RESULTS / f"train_speed_{args.shape}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
