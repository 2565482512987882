from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig

from medtune.models import estimate, shapes
from medtune.recipe import Recipe
from medtune.tuning import head

STEP = estimate.Step(rows=2, length=256, supervised=512)


def recipe(base: str, tune: dict[str, Any], **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "model": {"base": base, "device": "cpu", "dtype": "float32", "attention": "eager", **model},
            "data": {"sources": [{"layout": "flashcards", "path": "x"}]},
            "tune": tune,
        }
    )


def config_of(base: str) -> PretrainedConfig:
    """The table's, without a look at the Hub."""
    return shapes.AutoConfig.for_model(**shapes.SHAPES[base]["config"])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("base", ["gpt2", "HuggingFaceTB/SmolLM2-135M", "google/gemma-3-270m", "facebook/bart-base"])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_counts_are_pefts(base: str, dora: bool) -> None:
    named = {"gpt2": ["c_attn"]}.get(base, ["q_proj", "v_proj"])
    for targets in ("all-linear", named):
        tuned = recipe(base, {"lora": {"rank": 4, "targets": targets, "dora": dora}})
        config = config_of(base)
        counts = estimate.parameters(tuned, config)
        task = TaskType.SEQ_2_SEQ_LM if config.is_encoder_decoder else TaskType.CAUSAL_LM
        lora = LoraConfig(task_type=task, r=4, target_modules=targets, use_dora=dora)
        model = get_peft_model(estimate.skeleton(shapes.shrink(config, 500)), lora, low_cpu_mem_usage=True)
        small = estimate.parameters(tuned, shapes.shrink(config, 500))
        assert small.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert counts.total == counts.base + counts.trained


def test_prompt_full_and_nf4() -> None:
    base = "meta-llama/Meta-Llama-3-8B-Instruct"
    config = config_of(base)
    assert estimate.parameters(recipe(base, {"method": "prompt"}), config).trained == 20 * 4096
    full = estimate.parameters(recipe(base, {"method": "full"}), config)
    assert full.total == full.trained == 8_030_261_248
    quantized = estimate.memory(recipe(base, {}, quantization="nf4", dtype="bfloat16"), config, STEP)
    assert 5.4e9 < quantized.weights < 5.9e9  # the 5.6 GB that are known of this model in NF4
    plain = estimate.memory(recipe(base, {}, dtype="bfloat16"), config, STEP)
    assert plain.weights == 2 * 8_030_261_248
    assert estimate.memory(recipe(base, {"method": "full"}), config, STEP).optimizer == 8 * 8_030_261_248
    assert (
        sum((plain.weights, plain.adapter, plain.gradients, plain.optimizer, plain.activations, plain.logits))
        == plain.total
    )


def kept_bytes(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, weights aside."""
    seen: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**batch)
    return sum(size for pointer, size in seen.items() if pointer not in own)


@pytest.mark.parametrize("base", ["HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen2.5-0.5B-Instruct", "google/flan-t5-base"])
def test_activations_are_near_what_autograd_keeps(base: str) -> None:
    config = config_of(base)
    config.vocab_size = 64
    for name in ("num_hidden_layers", "num_layers", "num_decoder_layers"):
        if name in config.to_dict():
            setattr(config, name, 3)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    tuned = recipe(base, {"rows": "padded"}, dtype="bfloat16")
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = loader.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    task = TaskType.SEQ_2_SEQ_LM if config.is_encoder_decoder else TaskType.CAUSAL_LM
    model = get_peft_model(
        model, LoraConfig(task_type=task, r=16, lora_dropout=0.05, target_modules="all-linear")
    ).train()
    ids = torch.randint(0, 64, (STEP.rows, STEP.length))
    kept = kept_bytes(model, {"input_ids": ids, **({"labels": ids} if config.is_encoder_decoder else {})})
    assert estimate.memory(tuned, config, STEP).activations == pytest.approx(kept, rel=0.35)


def test_checkpointing_saves_memory_and_costs_time() -> None:
    base = "HuggingFaceTB/SmolLM2-135M"
    plain, saving = recipe(base, {}), recipe(base, {"activation_checkpointing": True})
    config = config_of(base)
    assert estimate.memory(saving, config, STEP).activations < estimate.memory(plain, config, STEP).activations / 4
    assert estimate.flops(saving, config, STEP) > 1.3 * estimate.flops(plain, config, STEP)
    assert estimate.seconds(plain, config, STEP) > 0


def test_the_slice_of_logits_is_the_heads() -> None:
    assert estimate.LOGIT_SLICE == head.SLICE_ELEMENTS
