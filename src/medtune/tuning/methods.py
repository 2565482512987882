"""From the recipe to a model of which the right part learns: LoRA, QLoRA, prompt tuning, full fine-tuning.

Covered: PEFT configurations, names of adapted modules, the start of a soft prompt, which weights are trained and in
which number format. Not covered: loading the base (`models.loading`), the loop (`train`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from peft import (
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from medtune.errors import PrerequisiteError, TuningError
from medtune.recipe import Recipe
from medtune.types import Sample

COMMON_TOKENS = 5000


def prepare(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, samples: Iterable[Sample]
) -> nn.Module:
    """`model` with what `tune.method` trains switched on, everything else frozen. Trained weights are float32.

    `samples` are only read for the vocabulary from which a soft prompt starts.
    """
    if recipe.tune.method == "full":
        return model.float().requires_grad_(True)
    # Not PEFT's prepare_model_for_kbit_training: it copies embeddings and head to float32, 4 GB on an 8B model.
    model.requires_grad_(False)
    if recipe.tune.method == "prompt":
        return _with_prompt(recipe, model, tokenizer, samples)
    check_targets(recipe, model)
    config = lora_config(recipe, is_seq2seq=model.config.is_encoder_decoder)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2's transposed weights
    return get_peft_model(model, config)


def lora_config(recipe: Recipe, *, is_seq2seq: bool) -> LoraConfig:
    """PEFT's configuration for `tune.lora`."""
    lora = recipe.tune.lora
    return LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if is_seq2seq else TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
    )


def check_targets(recipe: Recipe, model: nn.Module) -> None:
    """Raise TuningError for a name in `tune.lora.targets` that matches no linear module; PEFT passes over those."""
    targets = recipe.tune.lora.targets
    if isinstance(targets, str):
        return
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    missing = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]
    if missing:
        valid = sorted({name.rpartition(".")[2] for name in names})
        raise TuningError(
            f"tune.lora.targets: {', '.join(missing)} match no linear module of {recipe.model.base}. "
            f"Its linear modules are {', '.join(valid)}. Name some of them, or write all-linear."
        )


def check_optimizer(recipe: Recipe, device: torch.device) -> None:
    """Raise PrerequisiteError where `tune.optimizer` cannot run on `device`."""
    if recipe.tune.optimizer == "adamw_8bit" and device.type != "cuda":
        raise PrerequisiteError(
            f"tune.optimizer: adamw_8bit needs a CUDA device, and the model is on the {device.type}. "
            "Set tune.optimizer: adamw."
        )


def _with_prompt(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, samples: Iterable[Sample]
) -> PeftModel:
    prompt = recipe.tune.prompt
    is_seq2seq = model.config.is_encoder_decoder
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if is_seq2seq else TaskType.CAUSAL_LM,
        num_virtual_tokens=prompt.tokens,
        num_transformer_submodules=1,  # PEFT makes a second, never trained prompt for the decoder otherwise
    )
    tuned = get_peft_model(model, config)
    if prompt.initial != "random":
        ids = _text_ids(prompt.text, tokenizer) if prompt.initial == "text" else _common_ids(samples, recipe.seed)
        repeated = (ids * (prompt.tokens // len(ids) + 1))[: prompt.tokens]
        table = tuned.get_input_embeddings().weight
        start = table[torch.tensor(repeated, device=table.device)].detach().float().clone()
        tuned.prompt_encoder["default"].embedding.weight = nn.Parameter(start)
    return tuned


def _text_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise TuningError("tune.prompt.text: empty, and tune.prompt.initial: text starts from it. Write a sentence.")
    return ids


def _common_ids(samples: Iterable[Sample], seed: int) -> list[int]:
    """The 5,000 most common tokens of the training data, in random order: the start that Lester et al. found best."""
    counts = Counter(token for sample in samples for token in sample.input_ids)
    common = [token for token, _ in counts.most_common(COMMON_TOKENS)]
    order = torch.randperm(len(common), generator=torch.Generator().manual_seed(seed))
    return [common[i] for i in order.tolist()]


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Parameters in all and trained ones; a 4-bit weight counts as the numbers it stands for."""
    total = trained = 0
    for parameter in model.parameters():
        count = parameter.numel() * (2 if parameter.__class__.__name__ == "Params4bit" else 1)
        total += count
        trained += count if parameter.requires_grad else 0
    return total, trained
