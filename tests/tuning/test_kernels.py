"""The written-out LoRA update and RMS norm are PEFT's and transformers' own, forward and backward."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medtune.models.attention import pack
from medtune.tuning import kernels

IDS = torch.arange(3, 40)[None]
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"], "t5": ["q", "v", "wo"]}


def adapted(model, family, **options):
    config = LoraConfig(r=4, target_modules=TARGETS[family], fan_in_fan_out=family == "gpt2", **options)
    model = get_peft_model(model.requires_grad_(False), config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.train()


def outcome(model):
    """Output and gradients of the trained weights, under a fixed seed."""
    model.zero_grad()
    torch.manual_seed(5)
    inputs = {"input_ids": IDS}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = IDS[:, ::3]
    logits = model(**inputs).logits
    logits.float().square().mean().backward()
    return [logits.detach().float(), *(p.grad for p in model.parameters() if p.requires_grad)]


def same(found, expected, tolerance):
    return all(
        (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-6) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("family", "dtype", "tolerance"), [
    ("llama", torch.float32, 1e-4), ("llama", torch.bfloat16, 4e-2), ("gpt2", torch.float32, 1e-4),
    ("t5", torch.float32, 1e-4),
])  # fmt: skip
def test_fast_layers_equal_their_own_forward(tiny_model, family, dtype, tolerance, dropout):
    model = adapted(tiny_model(family).to(dtype), family, lora_dropout=dropout)
    expected = outcome(model)
    with kernels.fast(model) as changed:
        assert changed >= 4
        found = outcome(model)
    assert same(found, expected, tolerance)
    assert not any("forward" in vars(module) for module in model.modules()), "every layer has its own forward again"


def test_disabled_adapter_is_the_base(tiny_model):
    base = tiny_model("llama")
    expected = base(IDS).logits
    model = adapted(base, "llama").eval()
    with kernels.fast(model), model.disable_adapter():
        assert torch.allclose(model(IDS).logits, expected, atol=1e-5)


def test_dora_keeps_its_own_forward(tiny_model):
    model = adapted(tiny_model("llama"), "llama", use_dora=True)
    with kernels.fast(model):
        own = [m for m in model.modules() if hasattr(m, "lora_A") and "forward" in vars(m)]
    assert own == []


def norms_changed(model):
    with kernels.fast(model):
        return sum("forward" in vars(m) for m in model.modules() if "norm" in type(m).__name__.lower())


def test_rms_norms_are_changed_and_no_others(tiny_model):
    assert norms_changed(tiny_model("llama").requires_grad_(False)) == 5
    assert norms_changed(tiny_model("t5").requires_grad_(False)) == 12
    assert norms_changed(tiny_model("gemma").requires_grad_(False)) == 0
    assert norms_changed(tiny_model("llama")) == 5, "trained ones too"
    assert norms_changed(tiny_model("gpt2").requires_grad_(False)) == 0


def test_norm_with_other_formula_of_the_same_name_is_left_alone(tiny_model):
    model = tiny_model("llama").requires_grad_(False)

    class OffsetNorm(type(model.model.norm)):
        def forward(self, x):
            return super().forward(x) + 0.1 * x

    model.model.norm.__class__ = OffsetNorm
    assert norms_changed(model) == 4


def test_norm_equals_the_plain_one_in_bfloat16_too():
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 4e-2)):
        weight = (torch.rand(16) + 0.5).requires_grad_()
        x = torch.randn(2, 5, 16, dtype=dtype, requires_grad=True)
        upstream = torch.randn(2, 5, 16, dtype=dtype)
        plain = nn.functional.rms_norm(x.float(), (16,), weight, 1e-6)
        expected = torch.autograd.grad(plain, (x, weight), upstream.float())
        ours = kernels._Norm.apply(x, weight, 1e-6, dtype)
        found = torch.autograd.grad(ours, (x, weight), upstream)
        assert [grad.dtype for grad in found] == [dtype, torch.float32]
        assert same([ours.float(), *(g.float() for g in found)], [plain, *(g.float() for g in expected)], tolerance)


def test_norm_under_autocast_hands_the_products_what_they_take(tiny_model):
    model = tiny_model("llama")
    with kernels.fast(model), torch.autocast("cpu", torch.bfloat16):
        assert model.model.norm(torch.randn(1, 3, 32)).dtype == torch.bfloat16


def test_layers_are_put_back_after_an_error(tiny_model):
    model = adapted(tiny_model("llama"), "llama")
    with pytest.raises(TypeError), kernels.fast(model):
        model(pack([[1]]), nonsense=1)
    assert not any("forward" in vars(module) for module in model.modules())
