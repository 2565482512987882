"""The test doubles for `Completer` and `Engine`: answers from a list, likelihoods from a number. No model, no torch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

from medtune.errors import PrerequisiteError
from medtune.models.engine import Piece, Sampling, StopTexts
from medtune.run_dir import hash_of
from medtune.types import Completion, Conversation, FinishReason, Likelihood, Message


class ScriptedCompleter:
    """Answers the last user turn from `answers`; one that is not there ends as an error. `asked` keeps the prompts."""

    def __init__(self, answers: Mapping[str, str], nll_per_byte: float = 1.0) -> None:
        self.answers, self.nll_per_byte = answers, nll_per_byte
        self.asked: list[tuple[Message, ...]] = []

    def complete(
        self, prompts: Sequence[tuple[Message, ...]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Completion]]:
        """As `Completer.complete`; a token is a word, and longer answers are cut at `max_new_tokens` words."""
        del batch_size
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            question = next((m.content for m in reversed(prompt) if m.role == "user"), "")
            if question not in self.answers:
                yield index, Completion("", "error", error=f"the script has no answer to {question!r}")
                continue
            words = self.answers[question].split(" ")
            text = self.answers[question] if len(words) <= max_new_tokens else " ".join(words[:max_new_tokens])
            reason: FinishReason = "stop" if len(words) <= max_new_tokens else "length"
            yield (
                index,
                Completion(
                    text, reason, sum(len(m.content.split()) for m in prompt), len(words[:max_new_tokens]), 0.001
                ),
            )

    def likelihood(self, conversations: Sequence[Conversation], *, batch_size: int) -> Iterator[tuple[int, Likelihood]]:
        """As `Completer.likelihood`: `nll_per_byte` nats for each byte of the answer; a token is a byte."""
        del batch_size
        for index, conversation in enumerate(conversations):
            size = len(conversation.answer.encode())
            yield index, Likelihood(self.nll_per_byte * size, size, size)


class ScriptedEngine:
    """The test double for `Engine`: one `answer` for everything, or what a function of the prompt gives.

    A token is a word with the blank before it; each takes `seconds`. With `fails_after` tokens it breaks off as an
    engine does that goes away. `asked` keeps the prompts, `given` counts the tokens of all answers.
    """

    name = "scripted"

    def __init__(
        self,
        answer: str | Callable[[Sequence[Message]], str],
        *,
        window: int | None = None,
        seconds: float = 0.0,
        fails_after: int | None = None,
        parameters: int | None = None,
    ) -> None:
        self.answer, self.seconds, self.fails_after = answer, seconds, fails_after
        self.window, self.parameters = window, parameters
        self.asked: list[tuple[Message, ...]] = []
        self.given = 0

    @property
    def hash(self) -> str:
        """Of the answer, where it is one text."""
        return hash_of("scripted", self.answer if isinstance(self.answer, str) else "")

    def count(self, messages: Sequence[Message]) -> int:
        """Words."""
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """As `Engine.stream`, word by word."""
        self.asked.append(tuple(messages))
        text = self.answer if isinstance(self.answer, str) else self.answer(messages)
        tokens = re.findall(r"\s*\S+|\s+$", text)
        shown, stop = "", StopTexts(sampling.stop)
        for given, token in enumerate(tokens[: sampling.max_new_tokens]):
            if given == self.fails_after:
                raise PrerequisiteError("The scripted engine went away. It was told to.")
            if self.seconds:
                time.sleep(self.seconds)
            self.given += 1
            shown += (new := stop.feed(token))
            yield Piece(new)
            if stop.is_met:
                break
        shown += (rest := stop.rest())
        reason: FinishReason = "stop" if stop.is_met or len(tokens) <= sampling.max_new_tokens else "length"
        counts = (self.count(messages), min(len(tokens), sampling.max_new_tokens))
        yield Piece(rest, Completion(shown, reason, *counts))
