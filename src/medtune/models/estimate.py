"""What a tuning will need, before it is paid for: parameters, peak memory by term, time.

Covered: parameter counts (exact, from the architecture without weights), memory and time of one step at the longest
batch. Not covered: measuring it (`medtune check --measure` does and prints both). Memory terms are formulas over what a
training step keeps; activations and time are good to about a third.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from medtune.models import probe
from medtune.recipe import Recipe

EFFICIENCY = {"cpu": 0.45, "cuda": 0.4, "mps": 0.3}
"""Share of the measured matrix peak that a whole training step reaches."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
LOGIT_SLICE = 2**23
"""Logits that the head holds at once; `tuning.head.SLICE_ELEMENTS`."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers in the base, in those of its layers that NF4 would quantise, and trained ones (adapter or all).

    `adapted_inputs` is the summed input width of the modules that LoRA adapts.
    """

    base: int
    quantizable: int
    trained: int
    adapted_inputs: int = 0

    @property
    def total(self) -> int:
        """Base and adapter; a full tuning adds nothing."""
        return self.base if self.trained == self.base else self.base + self.trained


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak bytes of a training step, by what holds them."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Step:
    """The batch that an estimate is for. `supervised` tokens reach the language-model head."""

    rows: int
    length: int
    supervised: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


def parameters(recipe: Recipe, config: PretrainedConfig) -> Parameters:
    """Exact counts for the recipe's method on a model of this shape."""
    model = skeleton(config)
    base = sum(p.numel() for p in model.parameters())
    if getattr(config, "scale_decoder_outputs", True) is False:
        base += config.vocab_size * config.d_model  # Flan-T5's head: untied in its weights, tied in an empty T5
    linear = _linear(model)
    targets = [_shape(module) for name, module in linear.items() if _is_target(recipe, name)]
    lora = recipe.tune.lora
    trained = {
        "full": base,
        "prompt": recipe.tune.prompt.tokens * config.hidden_size,
        "lora": sum(lora.rank * (inputs + outputs) + outputs * lora.dora for inputs, outputs in targets),
    }[recipe.tune.method]
    adapted = sum(inputs for inputs, _ in targets) if recipe.tune.method == "lora" else 0
    return Parameters(base, sum(module.weight.numel() for module in linear.values()), trained, adapted)


def memory(recipe: Recipe, config: PretrainedConfig, step: Step) -> Memory:
    """Peak memory of one step. Trained weights, gradients and optimizer state are float32; the frozen base is not."""
    counts, tune = parameters(recipe, config), recipe.tune
    number = _bytes_per_number(recipe)
    frozen = counts.base * number
    if recipe.model.quantization == "nf4":
        frozen = round(counts.quantizable * NF4_BYTES) + (counts.base - counts.quantizable) * number
    is_full = tune.method == "full"
    state = 2 if tune.optimizer == "adamw_8bit" else 8
    return Memory(
        weights=counts.base * 4 if is_full else frozen,
        adapter=0 if is_full else counts.trained * 4,
        gradients=counts.trained * 4,
        optimizer=counts.trained * state,
        activations=_activations(recipe, config, step, counts),
        logits=_logits(config, step, number),
    )


def flops(recipe: Recipe, config: PretrainedConfig, step: Step) -> float:
    """Floating-point operations of one forward and backward pass."""
    counts = parameters(recipe, config)
    queries, _, _ = _widths(config)
    stacks = _stacks(config, step)
    layers = sum(stack[0] for stack in stacks)
    forward: float = 2.0 * config.vocab_size * config.hidden_size * step.supervised
    for count, tokens, attended in stacks:
        forward += 2 * counts.quantizable * tokens * count / layers  # each token meets its own stack's layers only
        forward += 4 * count * queries * tokens * attended / (1 if config.is_encoder_decoder else 2)
    weights = 0 if recipe.tune.method == "prompt" else 2 * counts.trained * step.tokens
    return forward * (3 if recipe.tune.activation_checkpointing else 2) + weights


def seconds(recipe: Recipe, config: PretrainedConfig, step: Step) -> float:
    """Time of one forward and backward pass here: operations over the measured matrix peak and a stated efficiency."""
    device = probe.device(recipe.model)
    peak = probe.matrix_peak(device, probe.dtype(recipe.model, device))
    return flops(recipe, config, step) / (peak * EFFICIENCY[device.type])


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The architecture without weights."""
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        return loader.from_config(config)


def _linear(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Every linear layer but the language-model head: what NF4 quantises and `all-linear` adapts."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _is_target(recipe: Recipe, name: str) -> bool:
    targets = recipe.tune.lora.targets
    return targets == "all-linear" or any(name == target or name.endswith(f".{target}") for target in targets)


def _shape(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; GPT-2's Conv1D stores them the other way round."""
    first, second = map(int, module.weight.shape)
    return (first, second) if isinstance(module, Conv1D) else (second, first)


def _bytes_per_number(recipe: Recipe) -> int:
    size: int = probe.dtype(recipe.model, probe.device(recipe.model)).itemsize
    return size


def _stacks(config: PretrainedConfig, step: Step) -> list[tuple[int, int, int]]:
    """Layers, tokens and keys that each token attends to: of the decoder, or of encoder and decoder."""
    layers: int = config.num_hidden_layers
    if not config.is_encoder_decoder:
        return [(layers, step.tokens, step.length)]
    names = ("num_decoder_layers", "decoder_layers")
    decoder = next((count for name in names if (count := getattr(config, name, None))), layers)
    return [(layers, step.tokens, step.length), (decoder, step.supervised, step.length + step.supervised // step.rows)]


def _widths(config: PretrainedConfig) -> tuple[int, int, int]:
    """Of all queries, of all keys, and of the inner layer."""
    head = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    head = head or config.hidden_size // config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    names = ("intermediate_size", "d_ff", "encoder_ffn_dim", "n_inner")
    inner = next((width for name in names if (width := getattr(config, name, None))), 4 * config.hidden_size)
    return head * config.num_attention_heads, head * keys, inner


def _activations(recipe: Recipe, config: PretrainedConfig, step: Step, counts: Parameters) -> int:
    """What the backward pass needs: of all layers, or with activation checkpointing of one and all layers' inputs."""
    number, tune = _bytes_per_number(recipe), recipe.tune
    queries, keys, inner = _widths(config)
    # gelu_new is written out in single operations, and each keeps its operand; dropout keeps a mask and its result.
    is_written_out = "gelu_new" in (getattr(config, "activation_function", ""), getattr(config, "dense_act_fn", ""))
    drops = any(getattr(config, name, 0) for name in ("resid_pdrop", "dropout_rate", "dropout"))
    inner_copies = (5 if is_written_out else 3) + (2 if drops and config.is_encoder_decoder else 0)
    linear_inputs = 2 * config.hidden_size + queries + inner if tune.method == "full" else 0
    per_token = number * (inner_copies * inner + 2 * queries + 2 * keys + linear_inputs)
    per_token += config.hidden_size * (8 + (2 * number if drops else 0))
    per_key = config.num_attention_heads * (_probability_bytes(recipe, number) + (number if drops else 0))
    per_input = 4 + (4 if tune.lora.dropout else 0)  # PEFT hands the adapter a float32 copy and drops part of it
    total = largest = inputs = 0
    stacks = _stacks(config, step)
    for layers, tokens, attended in stacks:
        adapter = tokens * counts.adapted_inputs * per_input // sum(stack[0] for stack in stacks)
        layer = tokens * (per_token + attended * per_key) + adapter
        total, largest = total + layers * layer, max(largest, layer)
        inputs += layers * tokens * config.hidden_size * number
    autocast_copies = counts.base * 2 if tune.method == "full" and number == 2 else 0
    return autocast_copies + (largest + inputs if tune.activation_checkpointing else total)


def _probability_bytes(recipe: Recipe, number: int) -> int:
    """Bytes kept for one attention probability: the `documents` kernel keeps one copy, SDPA none, eager two."""
    if recipe.tune.rows != "padded" and recipe.tune.method != "prompt":
        return number
    device = probe.device(recipe.model)
    is_eager = probe.attention(recipe.model, device, probe.dtype(recipe.model, device)) == "eager"
    return (4 + (number if number < 4 else 0)) if is_eager else 0


def _logits(config: PretrainedConfig, step: Step, number: int) -> int:
    """The head works slice by slice: logits and their float32 copy of one slice, one hidden gradient per token."""
    elements = min(step.supervised * config.vocab_size, LOGIT_SLICE)
    total: int = elements * (number + (4 if number < 4 else 0)) + step.supervised * config.hidden_size * number
    return total
