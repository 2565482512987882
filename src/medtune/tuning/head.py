"""The language-model head and the loss, computed where there is a label and nowhere else.

A plain training step multiplies every position with the whole vocabulary and keeps the logits, their float32 copy and
their gradient. Here only supervised positions reach the head, a slice at a time, and the gradients are taken in the
same pass, so that no logits outlive their slice. `supervised` switches a model's own head to this inside a
block; what the model then returns as `logits` is the negative log-likelihood of each supervised token.

Covered: linear heads with or without bias, frozen or trained, of causal and encoder-decoder models. Not covered: models
that change the logits after the head (soft caps, logit scales): `fits` finds that out and the plain loss stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from medtune.models.chat_template import IGNORED

SLICE_ELEMENTS = 2**23  # logits in one slice: 32 MiB in float32


class _Likelihood(torch.autograd.Function):
    """Negative log-likelihood of each of `targets`, a float32 vector (n,).

    hidden: (n, width), weight: (vocabulary, width), bias: (vocabulary,), targets: (n,).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        ctx.is_frozen = not ctx.needs_input_grad[1]
        nll, grads = _walk(hidden, weight, bias, targets, None, (ctx.needs_input_grad[0], not ctx.is_frozen))
        ctx.save_for_backward(*grads, *(() if ctx.is_frozen else (hidden, weight, bias, targets)))
        return nll

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        grads = ctx.saved_tensors[:3]
        if ctx.is_frozen:
            return grads[0] * upstream[:, None].to(grads[0].dtype), None, None, None
        if not len(upstream):  # a process of several that got no label in this pass
            return (*grads, None)
        factor = upstream[:1].sum()  # of a batch without targets: 0
        if bool((upstream == factor).all()):  # a mean over all tokens: what was summed needs only its factor
            scaled = tuple(None if grad is None else grad * factor.to(grad.dtype) for grad in grads)
        else:
            hidden, weight, bias, targets = ctx.saved_tensors[3:]
            scaled = _walk(hidden, weight, bias, targets, upstream, (True, True))[1]
        return scaled[0], scaled[1], scaled[2], None


def _walk(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    upstream: Tensor | None,
    wants: tuple[bool, bool],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """Likelihoods, and the gradients of their sum (weighted by `upstream`): of hidden, of weight and bias, as wanted.

    In one pass over the slices, since the logits of a slice are the dearest thing to compute twice.
    """
    nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    table = weight.to(hidden.dtype)
    grad_hidden = torch.empty_like(hidden) if wants[0] else None
    trains = wants[0] and wants[1]  # scoring under no_grad wants nothing, whatever the weight's flag says
    grad_weight = torch.zeros_like(weight, dtype=torch.float32) if trains else None
    grad_bias = torch.zeros_like(bias, dtype=torch.float32) if trains and bias is not None else None
    room = _room(hidden, table)
    for part in _slices(len(hidden), len(weight)):
        error, nll[part] = _error(hidden[part], table, bias, targets[part], room)
        if upstream is not None:
            error.mul_(upstream[part, None])
        if grad_bias is not None:
            grad_bias += error.sum(0, dtype=torch.float32)
        if grad_hidden is not None:
            torch.mm(error, table, out=grad_hidden[part])
        if grad_weight is not None:
            grad_weight += error.T @ hidden[part]
    return nll, (
        grad_hidden,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
    )


def _slices(rows: int, vocabulary: int) -> Iterator[slice]:
    step = _slice_rows(vocabulary)
    return (slice(start, start + step) for start in range(0, rows, step))


def _slice_rows(vocabulary: int) -> int:
    return max(1, SLICE_ELEMENTS // vocabulary)


def _room(hidden: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Space for the logits of one slice, in the number format of the products and in float32.

    Taken once: fresh memory for every slice costs more in page faults than the softmax itself.
    """
    shape = (min(len(hidden), _slice_rows(len(table))), len(table))
    low = torch.empty(shape, dtype=hidden.dtype, device=hidden.device)
    return low, low if low.dtype == torch.float32 else torch.empty(shape, dtype=torch.float32, device=hidden.device)


def _error(
    hidden: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, room: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """d nll / d logits and the nll itself, of one slice; in float32, every step written over the one before."""
    low, logits = room[0][: len(hidden)], room[1][: len(hidden)]
    torch.mm(hidden, table.T, out=low)
    if logits is not low:
        logits.copy_(low)
    if bias is not None:
        logits += bias
    logits.sub_(logits.amax(1, keepdim=True))
    chosen = logits.gather(1, targets[:, None])
    total = logits.exp_().sum(1, keepdim=True)
    logits.div_(total).scatter_add_(1, targets[:, None], torch.full_like(chosen, -1.0))
    return low.copy_(logits), (total.log() - chosen)[:, 0]


def token_nll(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    """Negative log-likelihood, in nats, of every supervised token: a vector, in the order of the positions.

    `hidden` has shape (rows, positions, width), `targets` (rows, labels) holds the token to be predicted *at* each
    position or -100. Where the model put virtual tokens in front (prompt tuning), `targets` is shorter and aligned to
    the right.
    """
    virtual = hidden.shape[1] - targets.shape[1]
    is_supervised = targets != IGNORED
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    chosen = hidden[:, virtual:][is_supervised].to(dtype)
    return _Likelihood.apply(chosen, head.weight, getattr(head, "bias", None), targets[is_supervised])  # type: ignore[no-any-return,no-untyped-call]


@contextmanager
def supervised(model: nn.Module, head: nn.Module, targets: Tensor) -> Iterator[None]:
    """Inside the block `head(hidden)` returns `token_nll(hidden, head, targets)`, and so does `model(...).logits`.

    The module itself is not replaced: names in checkpoints, tied weights, the hooks of DDP stay as they are.
    """

    def forward(self: nn.Module, hidden: Tensor) -> Tensor:
        return token_nll(hidden, self, targets)

    # BART adds a vector of zeros to its logits, as wide as the vocabulary. One that is not zero is found out by `fits`.
    biases = [(m, m.final_logits_bias) for m in model.modules() if "final_logits_bias" in m._buffers]
    head.forward = MethodType(forward, head)  # type: ignore[method-assign]
    try:
        for module, bias in biases:
            module.final_logits_bias = bias.new_zeros(1)
        yield
    finally:
        del head.forward
        for module, bias in biases:
            module.final_logits_bias = bias


def plain_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """`token_nll` from complete logits: what every other trainer computes, and the yardstick for the fast path."""
    virtual = logits.shape[1] - targets.shape[1]
    is_supervised = targets != IGNORED
    return nn.functional.cross_entropy(
        logits[:, virtual:][is_supervised].float(), targets[is_supervised], reduction="none"
    )


@torch.no_grad()
def fits(model: nn.Module, head: nn.Module | None, inputs: dict[str, Any], targets: Tensor) -> bool:
    """Whether the fast loss equals the plain one on this model and batch."""
    if head is None or type(head) is not nn.Linear:
        return False  # an adapted or quantised head
    was_training = model.training
    model.eval()
    try:
        expected = plain_nll(model(**inputs).logits, targets)
        with supervised(model, head, targets):
            found = model(**inputs).logits
    finally:
        model.train(was_training)
    if found.shape != expected.shape:
        return False
    is_exact = head.weight.dtype == torch.float32 and not torch.is_autocast_enabled(head.weight.device.type)
    tolerance = 1e-4 if is_exact else 2e-2
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
