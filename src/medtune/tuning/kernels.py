"""The two layers that cost most beside the matrix products, written out: LoRA's update and the RMS norm.

PEFT copies every input and output of an adapted layer to float32, because its weights are float32, and back again. Here
copies of A and B are cast instead (they are small), and the update is added to the base's output in place; the weights,
their gradients and the optimizer stay float32. Autograd keeps four matrices for a norm and walks them ten times;
written out it is three passes.

Covered: plain LoRA on linear layers, 4-bit ones included; norms that multiply the normalised input by a weight.
Not covered: DoRA, several active adapters, merged layers, Gemma's norm: those keep their own forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class _Update(torch.autograd.Function):
    """`out` + scale * x A' B', written into `out`.

    x: (..., width), out: (..., outputs), a: (rank, width), b: (outputs, rank).
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        inner = flat @ a.to(flat.dtype).T
        out.view(-1, out.shape[-1]).addmm_(inner, b.to(out.dtype).T, alpha=scale)
        ctx.save_for_backward(flat, inner, a, b)
        ctx.scale = scale
        ctx.mark_dirty(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        flat, inner, a, b = ctx.saved_tensors
        scaled = grad.reshape(-1, grad.shape[-1])
        grad_inner = (scaled @ b.to(grad.dtype)).mul_(ctx.scale)
        grad_b = (scaled.T @ inner).float().mul_(ctx.scale)
        grad_a = (grad_inner.T @ flat).float()
        grad_x = (grad_inner @ a.to(grad.dtype)).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[1] else None
        return grad, grad_x, grad_a, grad_b, None


def _update_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if self.disable_adapters or self.merged:
        return type(self).forward(self, x, *args, **kwargs)  # type: ignore[no-any-return]
    (name,) = self.active_adapters
    out = self.base_layer(x, *args, **kwargs)
    x = self.lora_dropout[name](x)
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    return _Update.apply(out, x.to(out.dtype), a, b, self.scaling[name])  # type: ignore[no-any-return,no-untyped-call]


def _is_plain(layer: LoraLayer) -> bool:
    names = list(getattr(layer, "active_adapters", []))
    return (
        len(names) == 1
        and names[0] in layer.lora_A
        and names[0] not in layer.lora_variant
        and isinstance(layer.lora_A[names[0]], nn.Linear)
        and layer.lora_B[names[0]].bias is None
    )


class _Norm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, as `dtype`; statistics in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        wide = x.float() if x.dtype != torch.float32 else x.clone()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        normal = wide.mul_(scale).to(dtype)
        ctx.save_for_backward(normal, scale, weight)
        ctx.dtype = x.dtype
        return normal * weight.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        normal, scale, weight = ctx.saved_tensors
        product = grad * normal
        grad_weight = product.view(-1, len(weight)).sum(0, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        along = (product @ weight.to(grad.dtype)).float().div_(normal.shape[-1])[..., None]
        inner = (grad * weight.to(grad.dtype)).sub_(normal * along.to(normal.dtype)).to(ctx.dtype).mul_(scale)
        return inner, grad_weight, None, None


def _norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    # Under autocast every product behind a norm would cast its output down again, so it is written as they take it.
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype
    return _Norm.apply(hidden_states, self.weight, self.variance_epsilon, dtype)  # type: ignore[no-any-return,no-untyped-call]


@torch.no_grad()
def _is_rms_norm(module: nn.Module) -> bool:
    """Whether `module` computes what `_Norm` does, tried on a vector: families share the name and not the formula."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or not hasattr(module, "variance_epsilon"):
        return False
    x = torch.linspace(-2, 3, weight.numel(), dtype=weight.dtype, device=weight.device)[None]
    return bool(torch.allclose(module(x), _norm_forward(module, x), rtol=1e-2))


@contextmanager
def fast(model: nn.Module) -> Iterator[int]:
    """Inside the block the covered layers of `model` use the forms above; yields their number. None is replaced."""
    changed: list[tuple[Any, Any]] = [
        (m, _update_forward) for m in model.modules() if isinstance(m, LoraLayer) and _is_plain(m)
    ]
    if next(model.parameters()).device.type == "cpu":
        changed += [(m, _norm_forward) for m in model.modules() if _is_rms_norm(m)]
    for module, forward in changed:
        module.forward = MethodType(forward, module)
    try:
        yield len(changed)
    finally:
        for module, _ in changed:
            del module.forward
