"""What an assistant's language model must be able to do, and how a request may steer it. No model, no torch.

Covered: the interface `Engine`, its `Sampling`, its `Piece`s of text, stop texts. Not covered: the in-process model
(`streaming`), one behind a URL (`remote`), one that follows a script (`scripted`). An engine serves several requests at
once: whoever batches them does so behind this interface.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from medtune.types import Completion, Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is generated. `temperature` 0 is greedy. `seed` is this request's own; None takes a fresh one."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more text. The last piece of an answer also brings the whole `completion`, with counts and finish reason."""

    text: str
    completion: Completion | None = None


class Engine(Protocol):
    """A language model that answers one conversation at a time, piece by piece; safe to use from several threads.

    `name` is what it is called, `hash` changes with what it would answer. `parameters` is its size, None where unknown;
    `window` the number of tokens that a prompt and its answer may have together, None where unknown.
    """

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def window(self) -> int | None: ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens that these turns take as a prompt; where the tokenizer is out of reach, an estimate."""
        ...

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """The answer to turns that end with the user's. Closing the iterator stops the model within two tokens.

        Raises PrerequisiteError where the model is away, before the first piece or in mid-answer.
        """
        ...


class StopTexts:
    """Text that may be shown so far: without a stop text, nor the beginning of one that may yet become whole."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = [text for text in stop if text]
        self.held, self.is_met = "", False

    def feed(self, text: str) -> str:
        """What may be shown of `text` and of what was held back before."""
        if self.is_met:
            return ""
        self.held += text
        ends = [at for mark in self.stop if (at := self.held.find(mark)) >= 0]
        if ends:
            shown, self.held, self.is_met = self.held[: min(ends)], "", True
            return shown
        keep = max((_overlap(self.held, mark) for mark in self.stop), default=0)
        shown, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return shown

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        shown, self.held = self.held, ""
        return shown


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)
