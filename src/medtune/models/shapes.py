"""The shapes of the recipes' base models, and how to shrink one for a rehearsal.

Covered: `shapes.json` (configuration, special tokens, chat format, parameters, licence of each), a small random
model of the same architecture with a tokenizer, as a folder. Not covered: a base meant to be trained (`scratch`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from medtune.errors import ModelError
from medtune.models import chat_template, loading, scratch
from medtune.recipe import ModelSection, Recipe

SHAPES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))

VOCABULARY = 1024
HEAD_WIDTH = 16
LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer", "encoder_layers", "decoder_layers")
WIDTHS = ("hidden_size", "n_embd", "d_model")
INNER = ("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner")
HEADS = ("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads", "decoder_attention_heads")


def config_of(section: ModelSection) -> PretrainedConfig:
    """The base's configuration: scratch's own, the Hub's or the folder's, else the shipped table's.

    Raises ModelError for a base that is in none of them.
    """
    if section.base == "scratch":
        return scratch.config(section.scratch)
    location = loading.published(section)
    try:
        return loading.load_config(location, section.revision)
    except ModelError as error:
        if section.base not in SHAPES:
            raise ModelError(f"{error} Shapes that need no Hub: {', '.join(sorted(SHAPES))}.") from error
        return AutoConfig.for_model(**SHAPES[section.base]["config"], name_or_path=section.base)


def shrink(config: PretrainedConfig, vocabulary: int) -> PretrainedConfig:
    """The same architecture with two layers and a few heads of width 16.

    Kept: how many queries share a key head, activation, norms, positions, tied or untied embeddings.
    """
    fields = {key: value for key, value in config.to_dict().items() if value is not None}
    small: dict[str, Any] = {}
    heads, key_heads = 4, getattr(config, "num_key_value_heads", None)
    if key_heads:
        queries_per_key = config.num_attention_heads // key_heads
        small["num_key_value_heads"] = 1 if queries_per_key > 3 else 2
        heads = queries_per_key * small["num_key_value_heads"]
    small |= {name: 2 for name in LAYERS if name in fields}
    small |= {name: heads for name in HEADS if name in fields}
    small |= {name: heads * HEAD_WIDTH for name in WIDTHS if name in fields}
    small |= {name: 2 * heads * HEAD_WIDTH for name in INNER if name in fields}
    small |= {name: HEAD_WIDTH for name in ("head_dim", "d_kv") if name in fields}
    small |= {name: 0 for name, value in fields.items() if name.endswith("token_id") and value >= vocabulary}
    if kinds := getattr(config, "layer_types", None):
        small["layer_types"] = [kinds[0], kinds[-1]]
    if not getattr(config, "scale_decoder_outputs", True):
        small["tie_word_embeddings"] = False  # transformers' T5 reads the one from the other
    dropped = ("model_type", "transformers_version", "_name_or_path")
    kept = {key: value for key, value in config.to_dict().items() if key not in dropped}
    return AutoConfig.for_model(config.model_type, **{**kept, **small, "vocab_size": vocabulary})


def rehearsal_base(
    recipe: Recipe, folder: Path, texts: Iterable[str], tokenizer_dir: Path | None = None
) -> ModelSection:
    """Write a shrunken random base with a tokenizer to `folder`; returns the section that uses it in the base's stead.

    The tokenizer is the one in `tokenizer_dir`, else the base's own where it can be read, else a small one trained on
    `texts` with the base's special tokens. Its chat format is its own, else the table's.
    """
    section = recipe.model
    if section.base == "scratch":
        small = section.scratch.model_copy(update={"layers": 2, "width": 64, "heads": 4, "vocabulary": VOCABULARY})
        return section.model_copy(update={"scratch": small})
    config = config_of(section)
    tokenizer = _tokenizer(section, texts, tokenizer_dir)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = SHAPES.get(section.base, {}).get("chat_template")
    small_config = shrink(config, len(tokenizer))
    starts_with_pad = config.is_encoder_decoder and config.decoder_start_token_id == config.pad_token_id
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(small_config, name, getattr(tokenizer, name))
    if config.is_encoder_decoder:
        small_config.decoder_start_token_id = tokenizer.pad_token_id if starts_with_pad else tokenizer.eos_token_id
        small_config.forced_eos_token_id = None
    family = loading.family(config)
    loader = AutoModelForSeq2SeqLM if family == "seq2seq" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        loader.from_config(small_config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    chosen = chat_template.choose(section, tokenizer, family, config).name
    return section.model_copy(update={"base": str(folder), "revision": None, "chat_template": chosen})


def _tokenizer(section: ModelSection, texts: Iterable[str], tokenizer_dir: Path | None) -> PreTrainedTokenizerBase:
    if tokenizer_dir is not None:
        return loading.load_tokenizer(str(tokenizer_dir))
    try:
        return loading.load_tokenizer(loading.published(section), section.revision)
    except ModelError:
        if section.base not in SHAPES:
            raise
    return small_tokenizer(section.base, texts)


def small_tokenizer(base: str, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """A small tokenizer with the special tokens of one of `SHAPES`, used as the base's own uses them."""
    own = SHAPES[base]["tokenizer"]
    special = [token for token in (own["pad"], own["bos"], own["eos"], *own["special"]) if token]
    tokenizer = scratch.train_tokenizer(
        texts, VOCABULARY, tuple(special), bos=own["bos"], eos=own["eos"], pad=own["pad"]
    )
    if own["prefix"] or own["suffix"]:
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in {*own["prefix"], *own["suffix"]}}
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*own["prefix"], "$A", *own["suffix"]], special_tokens=list(ids.items())
        )
    return tokenizer
