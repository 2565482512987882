"""Put a finished model into the package: bfloat16 weights, tokenizer, chat template, generation config.

    python tools/starter_model.py runs/starter-answers/adapter

Writes src/medtune/starter/model/ but for its README.md, the model card, which is written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

TARGET = Path(__file__).resolve().parents[1] / "src" / "medtune" / "starter" / "model"
LIMIT_BYTES = 32_000_000


def build(source: Path, target: Path = TARGET) -> int:
    """Write `target` from the model folder `source`; returns its size in bytes. Exits where it is over 32 MB."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.config.use_cache = True  # training switches it off, and plain transformers would generate without it
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=256,
        repetition_penalty=1.2,
        no_repeat_ngram_size=8,
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)
    size = sum(file.stat().st_size for file in target.iterdir())
    if size > LIMIT_BYTES:
        sys.exit(f"{target}: {size:,} bytes, more than the {LIMIT_BYTES:,} that the package may carry.")
    return size


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{TARGET}: {build(Path(sys.argv[1])):,} bytes")
