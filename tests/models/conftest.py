"""Tiny random models of every family, built from their configurations, with a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from medtune.models import scratch

BOS, EOS, PAD = "<|bos|>", "<|end|>", "<|pad|>"
TEXTS = ["What is asthma? Asthma is a disease of the lungs, with wheezing and a cough.", "How is gout treated?"] * 20
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 24},
    "gpt_neox": {"num_key_value_heads": None},
    "gemma": {},
    "gemma2": {"sliding_window": 24},
    "gemma3_text": {"sliding_window": 24},
    "t5": {
        "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0, "tie_word_embeddings": False,
    },
    "bart": {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 256,
        "decoder_start_token_id": 2, "forced_eos_token_id": None,
    },
}  # fmt: skip
DECODER = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 256, "head_dim": 16,
}  # fmt: skip


@pytest.fixture
def tiny_tokenizer() -> Any:
    """Byte-level, pad 0, bos 1, end 2; pad differs from end."""
    return scratch.train_tokenizer(TEXTS, 300, (PAD, BOS, EOS), bos=BOS, eos=EOS, pad=PAD)


@pytest.fixture
def tiny_model(tiny_tokenizer: Any) -> Callable[[str], Any]:
    """`tiny_model("llama")`: two layers, large random weights, so that its answers vary."""

    def build(name: str) -> Any:
        shared = DECODER if name not in ("gpt2", "t5", "bart") else {}
        fields = {k: v for k, v in {**shared, **FAMILIES[name]}.items() if v is not None}
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        config = AutoConfig.for_model(name, vocab_size=len(tiny_tokenizer), **special, **fields)
        torch.manual_seed(0)
        loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = loader.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4 if parameter.ndim > 1 else 1)
        return model

    return build
