"""The in-process model as an `Engine`: token by token, sampled or greedy, until its iterator is closed.

Covered: temperature, nucleus sampling, a seed of the request's own, stop texts across token borders, characters that
several tokens make up. Not covered: batching requests of several threads (each one decodes on its own here), prompt
formats (`chat_template`), weights (`loading`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from medtune.models import decoding
from medtune.models.chat_template import prompt_ids
from medtune.models.completer import TransformersCompleter
from medtune.models.engine import Piece, Sampling, StopTexts
from medtune.types import Completion, FinishReason, Message

INCOMPLETE = "�"
CONTEXT_TOKENS = 8
"""Tokens before a new one that are decoded with it: a tokenizer writes blanks and characters by their neighbours."""


class TransformersEngine:
    """A loaded model that answers one request per thread. `hash` is the caller's name for its weights and template."""

    def __init__(self, completer: TransformersCompleter, name: str, hash: str) -> None:
        self.completer, self.name, self.hash = completer, name, hash
        completer.model.eval()

    @cached_property
    def parameters(self) -> int:
        """Parameters of the model with its adapter."""
        return sum(weight.numel() for weight in self.completer.model.parameters())

    @property
    def window(self) -> int:
        """Tokens of a prompt and its answer: the model's positions, or what it was tuned with where it has no limit."""
        return self.completer.context or self.completer.max_length

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt, as the chat template writes it."""
        return len(prompt_ids(self.completer.template, self.completer.tokenizer, messages))

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """As `Engine.stream`. A prompt that is longer than the window loses its middle."""
        start, new = time.perf_counter(), min(sampling.max_new_tokens, self.window // 2)
        room = self.window - new
        # The template keeps some tokens of a window for the answer; here they are set aside already.
        ids = prompt_ids(self.completer.template, self.completer.tokenizer, messages)
        ids = ids if len(ids) <= room else ids[: room // 2] + ids[len(ids) - (room - room // 2) :]
        given: list[int] = []
        stop, shown, ended = StopTexts(sampling.stop), "", False
        reader = _Reader(self.completer.tokenizer)
        for token in _tokens(self.completer.model, ids, sampling, new):
            given.append(token)
            ended = token in self.completer.stop
            text = stop.feed(reader.rest() if ended else reader.feed(token))
            shown += text
            if ended or stop.is_met:
                break
            yield Piece(text)
            text = ""
        else:
            text = stop.feed(reader.rest())
            shown += text
        rest = stop.rest()
        shown += rest
        reason: FinishReason = "stop" if ended or stop.is_met else "length"
        seconds = time.perf_counter() - start
        yield Piece(text + rest, Completion(shown.strip(), reason, len(ids), len(given), seconds))


class _Reader:
    """Token ids to text, each character given out when it is whole."""

    def __init__(self, tokenizer: object) -> None:
        self.tokenizer, self.ids, self.read = tokenizer, list[int](), 0

    def feed(self, token: int) -> str:
        self.ids.append(token)
        text = self._new()
        if text.endswith(INCOMPLETE):
            return ""
        self.read = len(self.ids)
        return text

    def rest(self) -> str:
        """What is still held back, with characters that never became whole left out."""
        text = self._new()
        self.read = len(self.ids)
        return text.rstrip(INCOMPLETE)

    def _new(self) -> str:
        first = max(0, self.read - CONTEXT_TOKENS)
        before, whole = self._decode(self.ids[first : self.read]), self._decode(self.ids[first:])
        return whole[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)  # type: ignore[attr-defined]
        return text


@torch.no_grad()  # type: ignore[untyped-decorator]
def _tokens(model: torch.nn.Module, ids: list[int], sampling: Sampling, most: int) -> Iterator[int]:
    """Up to `most` token ids; the caller stops asking where the answer ends."""
    generator = torch.Generator(decoding.base_of(model).device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    state = decoding.state_of(model, [ids])
    logits = state.start()
    for left in range(most, 0, -1):
        token = choose(logits[0], sampling, generator)
        yield token
        if left > 1:
            logits = state.step(torch.tensor([token], device=logits.device))


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token by `sampling`, from logits of shape (vocabulary,)."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.float() / sampling.temperature, -1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        ordered[ordered.cumsum(0) - ordered >= sampling.top_p] = 0  # the token that crosses top_p stays
        return int(order[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))
