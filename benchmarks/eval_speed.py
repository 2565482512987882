"""100 questions: medtune's completer against the loop that notebooks use, `pipeline("text-generation")` one at a time.

Same model (a 135M-parameter Llama shape: 30 layers, width 576, 9 heads, 3 KV heads; random weights, seed 0), same
prompts, number format and `max_new_tokens`; both greedy. The random model never stops by itself: both write equally
many tokens, and nothing is gained from rows that end early. medtune runs before and after the loop.

    python benchmarks/eval_speed.py [--questions 100] [--new-tokens 64] [--dtype bfloat16]

Writes benchmarks/results/eval_speed.json. Questions are MedQuAD's where ../shared/data is there, else made up.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, pipeline
from transformers.utils import logging

from medtune.models import chat_template, loading, probe, scratch
from medtune.models.completer import TransformersCompleter
from medtune.models.shapes import SHAPES
from medtune.recipe import ModelSection
from medtune.run_dir import environment, write_json
from medtune.types import Message

ROOT = Path(__file__).resolve().parents[1]
MEDQUAD = ROOT.parent / "shared" / "data" / "medquad.csv.gz"
RESULT = ROOT / "benchmarks" / "results" / "eval_speed.json"


def texts(questions: int) -> tuple[list[str], list[str]]:
    """Questions spread over MedQuAD, and text to train a tokenizer on."""
    if not MEDQUAD.exists():
        made_up = [f"What are the symptoms of condition {i} and how is it treated?" for i in range(questions)]
        return made_up, made_up
    with gzip.open(MEDQUAD, "rt", encoding="utf-8", newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), 16_000))
    step = len(rows) // questions
    return [row["Question"] for row in rows[::step]][:questions], [row["Answer"] for row in rows[::16]]


def build(folder: Path, corpus: list[str], dtype: torch.dtype, layers: int | None) -> None:
    """The shape with random weights, and a tokenizer trained on `corpus`."""
    config = AutoConfig.for_model(**SHAPES["HuggingFaceTB/SmolLM2-135M"]["config"])
    config.num_hidden_layers = layers or config.num_hidden_layers
    end = "<|endoftext|>"
    tokenizer = scratch.train_tokenizer(corpus, 8000, (end,), bos=end, eos=end, pad=end)
    # The random model says every id; each must have a text of its own, or different answers would look the same.
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary.update({f"<{i}>": i for i in range(len(vocabulary), config.vocab_size)})
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token=end, eos_token=end, pad_token=end
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def loop(folder: Path, prompts: list[str], dtype: torch.dtype, new_tokens: int) -> tuple[list[str], float]:
    """The notebook's way: one prompt after the other through the text-generation pipeline."""
    generator = pipeline("text-generation", model=str(folder), dtype=dtype)
    ask = {"max_new_tokens": new_tokens, "do_sample": False, "return_full_text": False}
    generator(prompts[0], **{**ask, "max_new_tokens": 2})
    start = time.perf_counter()
    answers = [generator(prompt, **ask)[0]["generated_text"] for prompt in prompts]
    return answers, time.perf_counter() - start


def ours(folder: Path, questions: list[str], dtype: str, new_tokens: int, batch_size: int) -> tuple[list[str], float]:
    """medtune's way: the completer of the evaluation."""
    section = ModelSection(base=str(folder), dtype=dtype, chat_template="plain")  # type: ignore[arg-type]
    model, tokenizer = loading.load_model(section, str(folder)), loading.load_tokenizer(str(folder))
    template = chat_template.choose(section, tokenizer, "causal")
    completer = TransformersCompleter(model, tokenizer, template, 512)
    prompts = [(Message("user", question),) for question in questions]
    list(completer.complete(prompts[:1], max_new_tokens=2, batch_size=1))
    start = time.perf_counter()
    found = dict(completer.complete(prompts, max_new_tokens=new_tokens, batch_size=batch_size))
    return [found[i].text for i in range(len(questions))], time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both ways on the same folder: seconds, tokens per second, share of equal answers."""
    dtype = probe.DTYPES[options.dtype]
    questions, corpus = texts(options.questions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, corpus, dtype, options.layers)
        section, tokenizer = ModelSection(base=name, chat_template="plain"), loading.load_tokenizer(name)
        template = chat_template.choose(section, tokenizer, "causal")
        prompts = [chat_template.prompt_text(template, tokenizer, [Message("user", q)]) for q in questions]
        first, before = ours(folder, questions, options.dtype, options.new_tokens, options.batch_size)
        expected, slow = loop(folder, prompts, dtype, options.new_tokens)
        _, after = ours(folder, questions, options.dtype, options.new_tokens, options.batch_size)
    tokens, fast = options.questions * options.new_tokens, (before + after) / 2
    same = sum(a == b.strip() for a, b in zip(first, expected, strict=True))
    return {
        "questions": options.questions,
        "max_new_tokens": options.new_tokens,
        "dtype": options.dtype,
        "batch_size": options.batch_size,
        "pipeline": {"seconds": slow, "tokens_per_second": tokens / slow},
        "medtune": {
            "seconds": fast,
            "seconds_before": before,
            "seconds_after": after,
            "tokens_per_second": tokens / fast,
        },
        "times_faster": slow / fast,
        "same_answers": same / options.questions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=sorted(probe.DTYPES), default="bfloat16")
    parser.add_argument("--layers", type=int, help="fewer layers, to try the script out")
    options = parser.parse_args()
    logging.set_verbosity_error()
    result = measure(options)
    table = Table("", "seconds", "tokens/s", title=f"{options.questions} questions, {options.dtype}")
    for name in ("pipeline", "medtune"):
        table.add_row(name, f"{result[name]['seconds']:.1f}", f"{result[name]['tokens_per_second']:.0f}")
    Console().print(
        table, f"{result['times_faster']:.1f} x faster, {result['same_answers']:.0%} of the answers the same"
    )
    if options.layers is None:
        stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        threads = {
            "threads": torch.get_num_threads(),
            "matrix_peak": probe.matrix_peak(torch.device("cpu"), probe.DTYPES[options.dtype]),
        }
        write_json(RESULT, {**stored, options.dtype: {**result, "machine": {**environment(), **threads}}})


if __name__ == "__main__":
    main()
