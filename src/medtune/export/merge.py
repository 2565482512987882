"""`medtune export RUN --to merged`: the tuned model as one folder that plain transformers loads.

Covered: LoRA and QLoRA adapters merged into a freshly loaded full-precision base, fully tuned models, tokenizer and
chat template, proof on real questions that nothing changed. Not covered: prompt tuning (its vectors are no weights to
merge) and publishing (`hub`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from medtune.data.stage import load_split
from medtune.errors import ModelError, RecipeError, RunDirError
from medtune.models import chat_template, loading
from medtune.models.chat_template import ChatTemplate
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, write_json
from medtune.types import Message

PROBES = 4
MERGED = 1e-3
"""Largest change of a logit by merging in float32, as a share of the largest logit."""
STORED = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""The same, after storing in this number format and loading again."""


def merge(recipe: Recipe, run_dir: RunDir, folder: Path) -> dict[str, Any]:
    """Write the merged model to `folder` and return what was checked. `folder` is whole or absent, never half written.

    The weights are stored in the number format of the base's own files. Raises RecipeError for prompt tuning,
    RunDirError where nothing was tuned or `folder` holds something else, ModelError where the merged model answers
    differently.
    """
    check_mergeable(recipe, run_dir)
    require_free(folder)
    template, tokenizer = opened(recipe, run_dir)
    probes = [chat_template.prompt_ids(template, tokenizer, messages) for messages in questions(run_dir)]
    # Never into a quantised base: merging would round the update to 4 bits.
    section = loading.pinned(recipe.model, run_dir).model_copy(update={"quantization": "none", "device": "cpu"})
    location = loading.locate(section, run_dir)
    exact = section.model_copy(update={"dtype": "float32", "attention": "eager"})
    model: Any = loading.load_tuned(exact, location, run_dir.adapter)
    before = logits(model, probes)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload(safe_merge=True)
    by_merging = difference(before, logits(model, probes))
    stored_as = getattr(loading.load_config(location, section.revision), "dtype", None) or torch.float32
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    write_model(model.to(stored_as), new, template, tokenizer)
    by_storing = difference(before, logits(reopened(new, template), probes))
    facts = {
        "probes": len(probes),
        "largest_change_by_merging": by_merging,
        "largest_change_after_storing": by_storing,
        "dtype": str(stored_as).removeprefix("torch."),
        "chat_template": template.hash,
    }
    allowed = STORED.get(stored_as, max(STORED.values()))
    if not (by_merging <= MERGED and by_storing <= allowed):  # written so that a NaN is refused too
        shutil.rmtree(new)
        raise ModelError(
            f"The merged model is not the tuned one: its logits differ by {by_merging:.2g} after merging and "
            f"{by_storing:.2g} after storing, as shares of the largest (allowed {MERGED} and {allowed}). "
            "Nothing was written. Export the adapter instead: --to hub --weights adapter."
        )
    write_json(new / "medtune.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return facts


def check_mergeable(recipe: Recipe, run_dir: RunDir) -> None:
    """Refuse what cannot be merged before anything is loaded."""
    if recipe.tune.method == "prompt":
        raise RecipeError(
            "tune.method: prompt cannot be merged: its learned vectors are an input, no weights. "
            "Export the adapter instead: --to hub --weights adapter."
        )
    if not run_dir.adapter.is_dir():
        raise RunDirError(f"{run_dir.path}: nothing was tuned here. Run: medtune run RECIPE --out {run_dir.path}")


def require_free(folder: Path) -> None:
    """Refuse to write over a folder that no export made."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "medtune.json").exists():
        raise RunDirError(f"{folder}: this folder is not empty and no export of medtune's. Choose another --out.")


def opened(recipe: Recipe, run_dir: RunDir) -> tuple[ChatTemplate, Any]:
    """The run's chat template, checked against the one it was tuned with, and its tokenizer."""
    section = loading.pinned(recipe.model, run_dir)
    location = loading.locate(section, run_dir)
    tokenizer = loading.load_tokenizer(location, section.revision)
    config = loading.load_config(location, section.revision)
    template = chat_template.choose(section, tokenizer, loading.family(config), config)
    chat_template.require_same(template, run_dir.manifest().get("chat_template") or {})
    return template, tokenizer


def questions(run_dir: RunDir) -> list[tuple[Message, ...]]:
    """A few prompts of the run's own test questions."""
    asked = [c.prompt for c in load_split(run_dir, "test") if c.question][:PROBES]
    return asked or [(Message("user", "What is asthma?"),)]


@torch.no_grad()  # type: ignore[untyped-decorator]
def logits(model: Any, probes: Sequence[list[int]]) -> list[torch.Tensor]:
    """For each prompt what the model thinks of the next token at every position, in float32."""
    start = getattr(model.config, "decoder_start_token_id", None)
    extra = {"decoder_input_ids": torch.tensor([[start]])} if model.config.is_encoder_decoder else {}
    return [model(input_ids=torch.tensor([ids]), **extra).logits[0].float() for ids in probes]


def difference(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """The largest change of a logit, as a share of the largest one."""
    pairs = zip(before, after, strict=True)
    changes = [(a - b).abs().max() / b.abs().max().clamp(min=1e-6) for b, a in pairs]
    return float(torch.stack(changes).max())  # unlike Python's, this max keeps a NaN


def write_model(model: PreTrainedModel, folder: Path, template: ChatTemplate, tokenizer: Any) -> None:
    """Weights as safetensors, the tokenizer with the run's chat template, and where generation ends."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=chat_template.stop_ids(template, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    model.save_pretrained(folder)
    write_tokenizer(folder, template, tokenizer)


def write_tokenizer(folder: Path, template: ChatTemplate, tokenizer: Any) -> None:
    """The tokenizer, with the chat template in which the run wrote its prompts."""
    own = tokenizer.chat_template
    tokenizer.chat_template = template.source
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = own


def reopened(folder: Path, template: ChatTemplate) -> PreTrainedModel:
    """The written model as somebody without medtune loads it, in float32 so that only the stored weights differ."""
    loader = AutoModelForSeq2SeqLM if template.family == "seq2seq" else AutoModelForCausalLM
    AutoTokenizer.from_pretrained(folder)
    model: PreTrainedModel = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()
