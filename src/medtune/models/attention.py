"""Attention for rows without padding: the kernel named `documents`.

A packed row holds several documents end to end, and the model is called with their `document_lengths`. Attention is
then computed document by document: no mask is needed, no token can see another document, and the work is the sum of the
squared document lengths instead of the square of the row.

Covered: causal self-attention in training and scoring of any model that calls transformers' attention interface:
grouped queries, sliding windows, soft caps, dropout. Not covered: encoder-decoder models, generation with a key-value
cache, attention sinks. `isolates` proves on the model in hand that documents are kept apart: nothing is taken on trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "documents"
BLOCK = 256


class _Attention(torch.autograd.Function):
    """softmax(q k' scale) v of one document, causal.

    q: (kv_heads, group, length, width); k, v: (kv_heads, length, width).
    Written out because it keeps one probability matrix where autograd over single operations keeps four, multiplies
    queries that share a key head in one product instead of repeating the keys, and works in blocks of queries that stop
    at the diagonal: for long documents that halves the work.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        heads, group, length, width = q.shape
        q = q * scale  # here and not on the scores, of which there are many more
        out = torch.empty_like(q)
        kept = []
        for start in range(0, length, BLOCK):
            stop = min(start + BLOCK, length)
            rows = q[:, :, start:stop].reshape(heads, -1, width)
            scores = torch.bmm(rows, k[:, :stop].transpose(1, 2)).view(heads, group, stop - start, stop)
            scores[..., start:].add_(_causal(stop - start, scores.dtype, scores.device))
            probability = torch.softmax(scores, -1).view(heads, -1, stop)
            out[:, :, start:stop] = torch.bmm(probability, v[:, :stop]).view(heads, group, stop - start, width)
            kept.append(probability)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        heads, group, length, width = q.shape
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start, probability in zip(range(0, length, BLOCK), kept, strict=True):
            stop = min(start + BLOCK, length)
            rows = q[:, :, start:stop].reshape(heads, -1, width)
            out = grad[:, :, start:stop].reshape(heads, -1, width)
            grad_v[:, :stop].baddbmm_(probability.transpose(1, 2), out)
            inner = torch.bmm(out, v[:, :stop].transpose(1, 2))
            inner = torch._softmax_backward_data(inner, probability, -1, probability.dtype)
            grad_q[:, :, start:stop] = torch.bmm(inner, k[:, :stop]).view(heads, group, stop - start, width)
            grad_k[:, :stop].baddbmm_(inner.transpose(1, 2), rows)
        return grad_q.mul_(ctx.scale), grad_k, grad_v, None


def _causal(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu_(1)


def _general(q: Tensor, k: Tensor, v: Tensor, scale: float, options: dict[str, Any]) -> Tensor:
    """The same by single operations, for what `_Attention` leaves out: dropout, soft caps and sliding windows."""
    length = k.shape[1]
    scores = torch.matmul(q, k.transpose(1, 2)[:, None]) * scale
    if options["softcap"] is not None:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    scores = scores + _causal(length, scores.dtype, scores.device)
    window = options["window"]
    if window is not None and length > window:
        scores = scores + torch.full_like(scores[0, 0], float("-inf")).tril_(-window)
    probability = nn.functional.dropout(torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype), options["dropout"])
    return torch.matmul(probability, v[:, None])


def _attend(
    module: nn.Module,  # noqa: ARG001 - transformers' signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface. query: (1, heads, tokens, width); returns (1, tokens, heads, width)."""
    lengths: Sequence[int] = options["document_lengths"]
    _, heads, tokens, width = query.shape
    kv_heads = key.shape[1]
    scale = options.get("scaling") or width**-0.5
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary embeddings leave them in float32
    extra = {
        "softcap": options.get("softcap"),
        "window": options.get("sliding_window"),
        "dropout": options.get("dropout", 0.0),
    }
    is_plain = (
        not extra["softcap"] and not extra["dropout"] and (not extra["window"] or max(lengths) <= extra["window"])
    )
    grouped = query[0].view(kv_heads, heads // kv_heads, tokens, width)
    parts = []
    for q, k, v in zip(grouped.split(lengths, 2), key[0].split(lengths, 1), value[0].split(lengths, 1), strict=True):
        out = _Attention.apply(q, k, v, scale) if is_plain else _general(q, k, v, scale, extra)
        parts.append(out.reshape(heads, -1, width).transpose(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(NAME, _attend)


@contextmanager
def kernel(model: nn.Module, name: str) -> Iterator[None]:
    """Run `model` with the attention kernel `name` inside the block. Names are read at each call: nothing reloads."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}.values()
    before = [(config, config._attn_implementation) for config in configs]
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, old in before:
            config._attn_implementation = old


def pack(documents: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Model inputs of one row without padding: `input_ids`, `position_ids` of shape (1, tokens), `document_lengths`."""
    ids = torch.tensor([token for document in documents for token in document], device=device)
    positions = torch.cat([torch.arange(len(document), device=device) for document in documents])
    lengths = tuple(len(document) for document in documents)
    return {"input_ids": ids[None], "position_ids": positions[None], "document_lengths": lengths, "use_cache": False}


@torch.no_grad()
def isolates(model: PreTrainedModel) -> bool:
    """Whether `model`, run on two packed documents, gives each the logits that it has alone under its own kernel."""
    if model.config.is_encoder_decoder:
        return False
    vocabulary = model.config.get_text_config().vocab_size
    documents = [[(7 * i + 3) % vocabulary for i in range(9)], [(5 * i + 2) % vocabulary for i in range(6)]]
    was_training = model.training
    model.eval()
    try:
        alone = [model(torch.tensor([d], device=model.device), use_cache=False).logits[0] for d in documents]
        with kernel(model, NAME):
            packed = model(**pack(documents, model.device)).logits[0]
    except (KeyError, TypeError, NotImplementedError):
        return False  # the model does not hand `document_lengths` to its attention
    finally:
        model.train(was_training)
    expected = torch.cat(alone).float()
    tolerance = (1e-4 if packed.dtype == torch.float32 else 5e-2) * float(expected.abs().max())
    return bool((packed.float() - expected).abs().max() <= tolerance)
