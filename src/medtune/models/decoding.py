"""Batched greedy decoding and answer likelihoods on bare token ids.

Covered: decoder-only and encoder-decoder models, LoRA and prompt tuning, rows that leave the batch as they finish, the
repetition penalty and the ban on repeated n-grams that a model's own generation config asks for, the language-model
head on answer positions only.
Not covered: text, prompt formats and batch sizes (`completer`), sampling.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import NoRepeatNGramLogitsProcessor, PreTrainedModel, RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from medtune.types import Sample

GROWTH = 128


def base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model itself, with LoRA layers where it has them."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def soft_prompt(model: PreTrainedModel | PeftModel) -> Tensor | None:
    """The learned vectors of prompt tuning, (tokens, width), or None."""
    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return None
    vectors: Tensor = model.get_prompt(batch_size=1)[0, : model.active_peft_config.num_virtual_tokens]
    return vectors


@torch.no_grad()  # type: ignore[untyped-decorator]
def greedy(
    model: PreTrainedModel | PeftModel, rows: Sequence[list[int]], *, max_new_tokens: int, stop: Sequence[int]
) -> list[list[int]]:
    """The most probable continuation of each row, token by token, up to and including its first id in `stop`.

    A finished row leaves the batch, so that it costs nothing while others go on.
    """
    state = state_of(model, rows)
    answers: list[list[int]] = [[] for _ in rows]
    alive, ends = list(range(len(rows))), set(stop)
    logits = state.start()
    for left in range(max_new_tokens, 0, -1):
        tokens = logits.argmax(-1)
        chosen = tokens.tolist()
        for row, token in zip(alive, chosen, strict=True):
            answers[row].append(token)
        going = [i for i, token in enumerate(chosen) if token not in ends]
        if not going or left == 1:
            break
        if len(going) < len(alive):
            alive = [alive[i] for i in going]
            kept = torch.tensor(going, device=tokens.device)
            state.keep(kept)
            tokens = tokens[kept]
        logits = state.step(tokens)
    return answers


@torch.no_grad()  # type: ignore[untyped-decorator]
def answer_nll(model: PreTrainedModel | PeftModel, samples: Sequence[Sample]) -> list[float]:
    """Negative log-likelihood in nats, summed in float32 over each sample's supervised tokens."""
    base = base_of(model)
    if base.config.is_encoder_decoder:
        inputs = _padded(model, [s.input_ids for s in samples], left=False)
        inputs.pop("position_ids")
        labels = _stack([s.labels for s in samples], -100, left=False).to(base.device)
        inputs["decoder_input_ids"] = base.prepare_decoder_input_ids_from_labels(labels=labels)
    else:
        inputs = _padded(model, [s.input_ids for s in samples], left=True)
        labels = _stack([s.labels for s in samples], -100, left=True).to(base.device)[:, 1:]
        ahead = inputs["attention_mask"].shape[1] - labels.shape[1]
        labels = torch.nn.functional.pad(labels, (ahead - 1, 1), value=-100)
    wanted = labels != -100
    with _head_on(base, wanted):
        logits = base(**inputs, use_cache=False).logits[0]
    targets, owners = labels[wanted], wanted.nonzero()[:, 0]
    totals = torch.zeros(len(samples), device=base.device)
    for part in torch.arange(len(targets), device=base.device).split(1024):
        losses = torch.nn.functional.cross_entropy(logits[part].float(), targets[part], reduction="none")
        totals.index_add_(0, owners[part], losses)
    nll: list[float] = totals.tolist()
    return nll


def forward_logits(
    model: PreTrainedModel | PeftModel, ids: Tensor, mask: Tensor, labels: Tensor | None = None
) -> Tensor:
    """Logits at every position, (rows, length, vocabulary), padding included: what an audit needs, and only that.

    `labels` are the decoder's targets where the model is an encoder-decoder; a soft prompt's positions are left out.
    """
    base, prompt = base_of(model), soft_prompt(model)
    inputs: dict[str, Tensor] = {"attention_mask": mask}
    if labels is not None:
        inputs["decoder_input_ids"] = base.prepare_decoder_input_ids_from_labels(labels=labels)
    if prompt is None:
        inputs["input_ids"] = ids
    else:
        vectors = prompt.expand(len(ids), -1, -1)
        inputs["attention_mask"] = torch.cat([mask.new_ones(len(ids), len(prompt)), mask], 1)
        embedded = base.get_input_embeddings()(ids)
        inputs["inputs_embeds"] = torch.cat([vectors.to(embedded.dtype), embedded], 1)
    logits: Tensor = base(**inputs, use_cache=False).logits
    return logits[:, len(prompt) :] if prompt is not None and labels is None else logits


@contextmanager
def _head_on(base: PreTrainedModel, wanted: Tensor) -> Iterator[None]:
    """The head sees only the positions of `wanted`, (rows, length); the logits are (1, positions, vocabulary).

    A hook, because what models do before and after the head (scaling, soft caps) then stays their own.
    """
    hook = base.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][wanted].unsqueeze(0),))
    try:
        yield
    finally:
        hook.remove()


def _stack(rows: Sequence[list[int]], fill: int, *, left: bool) -> Tensor:
    """Rows as one tensor, (rows, longest)."""
    longest = max(map(len, rows))
    pads = ([fill] * (longest - len(row)) for row in rows)
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for pad, row in zip(pads, rows, strict=True)])


def _padded(model: PreTrainedModel | PeftModel, rows: Sequence[list[int]], *, left: bool) -> dict[str, Tensor]:
    """Ids (or embeddings, where a soft prompt stands before each row), mask and positions, on the model's device."""
    base, prompt = base_of(model), soft_prompt(model)
    slots = [0] * (0 if prompt is None else len(prompt))
    ids = _stack([[*slots, *row] for row in rows], 0, left=left).to(base.device)
    mask = _stack([[1] * (len(slots) + len(row)) for row in rows], 0, left=left).to(base.device)
    inputs = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    if prompt is None:
        return {"input_ids": ids, **inputs}
    embeddings = base.get_input_embeddings()(ids)
    for i, start in enumerate(mask.argmax(1).tolist()):
        embeddings[i, start : start + len(slots)] = prompt.to(embeddings.dtype)
    return {"inputs_embeds": embeddings, **inputs}


class State(Protocol):
    """One batch on its way: each call gives the logits of the next token, (rows, vocabulary)."""

    def start(self) -> Tensor: ...
    def step(self, tokens: Tensor) -> Tensor: ...
    def keep(self, kept: Tensor) -> None: ...


def state_of(model: PreTrainedModel | PeftModel, rows: Sequence[list[int]]) -> State:
    """The beginning of a batch of prompts; whoever steps it does so under `torch.no_grad`."""
    base = base_of(model)
    state = (_EncoderDecoder if base.config.is_encoder_decoder else _Decoder)(model, rows)
    processors = _processors(getattr(base, "generation_config", None))
    return _Processed(state, processors) if processors else state


def _processors(config: Any) -> list[Any]:
    """What keeps small models from going round in circles, as far as the model's own generation config asks for it."""
    penalty, size = getattr(config, "repetition_penalty", None), getattr(config, "no_repeat_ngram_size", None)
    return [
        *([RepetitionPenaltyLogitsProcessor(penalty)] if penalty not in (None, 1.0) else []),
        *([NoRepeatNGramLogitsProcessor(size)] if size else []),
    ]


class _Decoder:
    def __init__(self, model: PreTrainedModel | PeftModel, rows: Sequence[list[int]]) -> None:
        self.base = base_of(model)
        self.inputs = _padded(model, rows, left=True)
        self.mask, self.position = self.inputs["attention_mask"], self.inputs["position_ids"][:, -1:]
        self.cache = _growing_cache(self.base)
        self.takes_positions = "position_ids" in inspect.signature(self.base.forward).parameters

    def start(self) -> Tensor:
        return self._forward(self.inputs)

    def step(self, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.position = self.position + 1
        return self._forward({"input_ids": tokens[:, None], "attention_mask": self.mask, "position_ids": self.position})

    def keep(self, kept: Tensor) -> None:
        self.cache.batch_select_indices(kept)
        self.mask, self.position = self.mask[kept], self.position[kept]

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        inputs = {k: v for k, v in inputs.items() if self.takes_positions or k != "position_ids"}
        logits: Tensor = self.base(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        return logits


class _EncoderDecoder:
    def __init__(self, model: PreTrainedModel | PeftModel, rows: Sequence[list[int]]) -> None:
        self.base = base_of(model)
        inputs = _padded(model, rows, left=False)
        inputs.pop("position_ids")
        self.mask = inputs["attention_mask"]
        self.encoded = self.base.get_encoder()(**inputs)
        self.cache = EncoderDecoderCache(_growing_cache(self.base), DynamicCache(config=self.base.config))

    def start(self) -> Tensor:
        first = self.base.config.decoder_start_token_id
        return self.step(torch.full((len(self.mask),), first, device=self.mask.device))

    def step(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.base(
            encoder_outputs=self.encoded,
            attention_mask=self.mask,
            decoder_input_ids=tokens[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        return logits

    def keep(self, kept: Tensor) -> None:
        self.cache.batch_select_indices(kept)
        self.mask = self.mask[kept]
        self.encoded.last_hidden_state = self.encoded.last_hidden_state[kept]


class _Processed:
    """Logits after transformers' processors, which see the answer so far and not the prompt: an answer may name what
    was asked about, and chat templates put the end token into the prompt."""

    def __init__(self, state: State, processors: Sequence[Any]) -> None:
        self.state, self.processors = state, processors

    def start(self) -> Tensor:
        logits = self.state.start()
        self.answers = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        self.answers = torch.cat([self.answers, tokens[:, None]], 1)
        logits = self.state.step(tokens)
        for process in self.processors:
            logits = process(self.answers, logits)
        return logits

    def keep(self, kept: Tensor) -> None:
        self.answers = self.answers[kept]
        self.state.keep(kept)


def _growing_cache(base: PreTrainedModel) -> Cache:
    cache = DynamicCache(config=base.config)
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room ahead: transformers' own copies every key and value at every token."""

    room: tuple[Tensor, Tensor] | None = None
    keys: Tensor
    values: Tensor

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        before, after = self.get_seq_length(), self.get_seq_length() + keys.shape[-2]
        if self.room is None or self.room[0].shape[-2] < after:
            new = [x.new_empty(*x.shape[:2], after + GROWTH, x.shape[-1]) for x in (keys, values)]
            if before:
                new[0][:, :, :before], new[1][:, :, :before] = self.keys, self.values
            self.room = (new[0], new[1])
        self.room[0][:, :, before:after], self.room[1][:, :, before:after] = keys, values
        self.keys, self.values = self.room[0][:, :, :after], self.room[1][:, :, :after]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.room = None
