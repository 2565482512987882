"""Tiny random models of every family, rows with something to learn, and the real trainer around them."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from medtune.models import scratch
from medtune.recipe import Recipe
from medtune.tuning import train
from medtune.types import Sample

VOCABULARY = 300
DECODER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 512, "head_dim": 8,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "gemma": DECODER,
    "gemma2": DECODER,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "t5": {
        "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "dropout": 0.0,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2,
    },
}  # fmt: skip
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
END = 2


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Byte-level, pad 0, bos 1, end 2."""
    texts = ["What is asthma? A disease of the lungs."] * 5
    return scratch.train_tokenizer(
        texts, VOCABULARY, ("<pad>", "<bos>", "<end>"), bos="<bos>", eos="<end>", pad="<pad>"
    )


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """`tiny_model("llama", hidden_size=64)`: always the same weights, large enough that answers differ."""

    def build(name: str, **changes: Any) -> Any:
        dropout = NO_DROPOUT if name == "gpt2" else {}
        special = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END}
        config = AutoConfig.for_model(name, **{**special, **FAMILIES[name], **dropout, **changes})
        torch.manual_seed(0)
        loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = loader.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3 if parameter.ndim > 1 else 1)
        return model

    return build


@pytest.fixture(scope="session")
def make_samples() -> Callable[..., list[Sample]]:
    """`make_samples(20, seed=1)`: prompts of any tokens, answers of few, ended by END; `seq2seq` puts them apart."""

    def make(count: int, seed: int = 0, *, seq2seq: bool = False) -> list[Sample]:
        draw = random.Random(seed)
        made = []
        for i in range(count):
            prompt = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(2, 9))]
            answer = [draw.randrange(3, 11) for _ in range(draw.randint(1, 9))] + [END]
            ids, labels = (prompt, answer) if seq2seq else (prompt + answer, [-100] * len(prompt) + answer)
            made.append(Sample(f"row-{i}", ids, labels))
        return made

    return make


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    """`make_recipe(method="lora", batch_size=4, model={...})`: float32, no dropout, no warm-up, nothing by chance."""

    def make(model: dict[str, Any] | None = None, **tune: Any) -> Recipe:
        options = {"scheduler": "constant", "warmup": 0, "evaluations": 2, "sample_answers": 0, **tune}
        options["lora"] = {"rank": 4, "dropout": 0.0, **options.get("lora", {})}
        return Recipe.model_validate({
            "name": "test",
            "model": {"base": "tiny", "dtype": "float32", "device": "cpu", **(model or {})},
            "data": {"sources": [{"layout": "chat", "path": "unused.jsonl"}]},
            "tune": options,
        })  # fmt: skip

    return make


@pytest.fixture
def run_trainer(tmp_path: Path, tiny_tokenizer: Any) -> Callable[..., Any]:
    """`run_trainer(recipe, model, samples, validation)` tunes as the stage does and returns the trainer."""

    def tune(
        recipe: Recipe, model: Any, samples: Any, validation: Any = (), mark: str = "mark", name: str = "run"
    ) -> Any:
        console = Console(file=StringIO())
        torch.manual_seed(recipe.seed)
        job = train.Job(tmp_path / name, mark, console)
        return train.train(recipe, model, tiny_tokenizer, train.Split(samples, list(validation)), job)

    return tune


@pytest.fixture(scope="session")
def losses() -> Callable[[Any], list[float]]:
    """The logged training losses of a trainer, one for each update."""
    return lambda trainer: [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
