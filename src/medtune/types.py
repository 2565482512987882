"""The values that travel between the stages. All are frozen; none knows how it is stored or computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "text"]
FinishReason = Literal["stop", "length", "error"]
Status = Literal["scored", "unanswered", "unparsed", "failed"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Role `text` is a document for continued pre-training: it is rendered as it is, without a template."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that end with the assistant's answer, and where they come from.

    `topic` is what the split groups by (a disease, a term, a document); empty when the source names none.
    `group` is the split's cluster id; the statistics resample by it. It is empty before the split.
    """

    id: str
    messages: tuple[Message, ...]
    topic: str = ""
    question_type: str = ""
    source: str = ""
    url: str = ""
    licence: str = ""
    group: str = ""

    @property
    def question(self) -> str:
        """The last user turn before the final answer; the empty string for a plain text."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The final assistant turn (or the text itself): what evaluation takes as the reference."""
        return self.messages[-1].content

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the final answer: what a system is given."""
        return self.messages[:-1]


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation as token ids.

    Causal models: `labels` is as long as `input_ids`, -100 wherever the token is not supervised (not yet shifted).
    Encoder-decoder models: `input_ids` is the encoder's input, `labels` the decoder's target, every label supervised.
    `truncated` counts the tokens that `data.max_length` cut away.
    """

    id: str
    input_ids: list[int]
    labels: list[int]
    truncated: int = 0

    @property
    def supervised(self) -> int:
        """Number of tokens that enter the loss."""
        return sum(label != -100 for label in self.labels)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a system answered. `finish_reason` is `stop` (ended by itself), `length` (cut off) or `error`."""

    text: str
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Negative log-likelihood of one reference answer, in nats, over its `tokens` tokens and `bytes` UTF-8 bytes."""

    nll: float
    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Record:
    """One system's answer to one test question, with its scores.

    An empty answer is `unanswered` and scores 0; `scores` is empty where nothing was graded (`failed`, `unparsed`).
    """

    system: str
    id: str
    group: str
    question: str
    reference: str
    completion: Completion
    status: Status
    likelihood: Likelihood | None = None
    scores: dict[str, float] = field(default_factory=dict)
