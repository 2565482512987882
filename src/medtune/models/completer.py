"""Questions to answers: the one interface through which every system is asked, and its local implementation.

Covered: batches sorted by length, greedy answers, answer-only likelihoods, running out of memory.
Not covered: the arithmetic (`decoding`), prompt formats (`chat_template`), answers from a list (`scripted`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medtune.models import decoding
from medtune.models.chat_template import ChatTemplate, prompt_ids, samples, stop_ids
from medtune.types import Completion, Conversation, Likelihood, Message, Sample

LOGITS_BYTES = {"cpu": 1 << 29, "cuda": 1 << 32}
Result = TypeVar("Result")


class Completer(Protocol):
    """Something that answers. Results come batch by batch, each with its index into what was asked, in any order."""

    def complete(
        self, prompts: Sequence[tuple[Message, ...]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Completion]]:
        """Answer each prompt (turns that end with the user's), greedily."""
        ...

    def likelihood(self, conversations: Sequence[Conversation], *, batch_size: int) -> Iterator[tuple[int, Likelihood]]:
        """How probable each conversation's final answer is, its end token included."""
        ...


class TransformersCompleter:
    """A transformers or PEFT model with its tokenizer and chat template.

    Prompts longer than `max_length` lose their middle, and reference answers their end, as in training.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        max_length: int,
    ) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        config = decoding.base_of(model).config
        prompt = decoding.soft_prompt(model)
        self.context: int | None = None
        if template.family == "causal" and (positions := getattr(config, "max_position_embeddings", None)):
            self.context = positions - (0 if prompt is None else len(prompt))
        self.max_length = min(max_length, self.context or max_length)
        self.vocabulary: int = config.vocab_size
        generation = getattr(decoding.base_of(model), "generation_config", None)
        self.stop = stop_ids(template, tokenizer, getattr(generation, "eos_token_id", None))

    def complete(
        self, prompts: Sequence[tuple[Message, ...]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Completion]]:
        """Answers, one batch after the other. `seconds` is the batch's time over its rows."""
        new = max_new_tokens if self.context is None else min(max_new_tokens, self.context // 2)
        room = self.max_length if self.context is None else min(self.max_length, self.context - new)
        rows = [prompt_ids(self.template, self.tokenizer, prompt, room) for prompt in prompts]

        def answer(batch: list[int]) -> list[Completion]:
            start = time.perf_counter()
            asked = [rows[i] for i in batch]
            answers = decoding.greedy(self.model, asked, max_new_tokens=new, stop=self.stop)
            seconds = (time.perf_counter() - start) / len(batch)
            return [self._completion(len(row), ids, seconds) for row, ids in zip(asked, answers, strict=True)]

        yield from self._batches([len(row) for row in rows], batch_size, None, answer)

    def likelihood(self, conversations: Sequence[Conversation], *, batch_size: int) -> Iterator[tuple[int, Likelihood]]:
        """Likelihoods, one batch after the other. A cut answer counts only the tokens and bytes that are left."""
        rows = list(samples(self.template, self.tokenizer, conversations, self.max_length, turns="last"))

        def measure(batch: list[int]) -> list[Likelihood]:
            nll = decoding.answer_nll(self.model, [rows[i] for i in batch])
            return [
                Likelihood(value, rows[i].supervised, self._bytes(rows[i], conversations[i].answer))
                for i, value in zip(batch, nll, strict=True)
            ]

        limit = LOGITS_BYTES.get(self.model.device.type, 1 << 29) // (10 * self.vocabulary)
        yield from self._batches([len(row.input_ids) + len(row.labels) for row in rows], batch_size, 2 * limit, measure)

    def _completion(self, prompt_tokens: int, ids: list[int], seconds: float) -> Completion:
        ended = bool(ids) and ids[-1] in self.stop
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
        return Completion(text, "stop" if ended else "length", prompt_tokens, len(ids), seconds)

    def _bytes(self, sample: Sample, answer: str) -> int:
        kept = [label for label in sample.labels if label != -100]
        if sample.truncated and kept[-1:] and kept[-1] not in self.stop:
            answer = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return len(answer.encode())

    def _batches(
        self, lengths: list[int], batch_size: int, token_limit: int | None, work: Callable[[list[int]], list[Result]]
    ) -> Iterator[tuple[int, Result]]:
        """`work` on rows of like length, longest first, so that a lack of memory shows at once; half as many then."""
        waiting = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        training = self.model.training
        while waiting:
            rows = batch_size if token_limit is None else min(batch_size, token_limit // max(1, lengths[waiting[0]]))
            batch = waiting[: max(1, rows)]
            self.model.eval()
            try:
                results = work(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                batch_size = len(batch) // 2
                torch.cuda.empty_cache()
                continue
            finally:
                self.model.train(training)
            waiting = waiting[len(batch) :]
            yield from zip(batch, results, strict=True)
