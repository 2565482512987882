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
    `group` is the split's cluster id; the statistics resample by it. It is empty before the split. `references` are
    further right answers, of which evaluation takes the best; `must_have` are statements that an answer must make.
    """

    id: str
    messages: tuple[Message, ...]
    topic: str = ""
    question_type: str = ""
    source: str = ""
    url: str = ""
    licence: str = ""
    group: str = ""
    references: tuple[str, ...] = ()
    must_have: tuple[str, ...] = ()

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
    `references` are further right answers beside `reference`.
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
    references: tuple[str, ...] = ()


# What the assistant says, and why -------------------------------------------------------------------------------------

Urgency = Literal["emergency", "urgent", "routine", "not_medical"]
Support = Literal["supported", "unsupported", "fixed"]
EventKind = Literal["verdict", "text", "sources", "withheld", "reply"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guard's decision on a conversation.

    `guard` is `emergency`, `crisis`, `scope`, `injection` or `advice`; `verdict` is true where the guard fires (for
    `scope`: where the question is in scope). `score` lies in 0..1 and is compared with the guard's threshold. `kind`
    says which (`stroke`, `self-harm plan`), `reason` says why in words. `is_error` marks a guard that could not decide:
    it then counts as fired (as out of reach, not as out of scope).
    """

    guard: str
    verdict: bool
    score: float
    reason: str
    kind: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that an answer may rest on, and where it comes from. `id` is stable across rebuilds."""

    id: str
    text: str
    title: str
    section: str = ""
    url: str = ""
    date: str = ""
    licence: str = ""
    source: str = ""
    reviewed: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, with its score (comparable within one search only)."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a reply. `passages` are the ids of those that support it; `score` in 0..1 says how well.

    `fixed` text is medtune's own (emergency advice, refusals, disclaimer): it needs no passage.
    """

    text: str
    support: Support
    passages: tuple[str, ...] = ()
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplySection:
    """A part of a reply: `name` is `escalation`, `in_short`, `details`, `what_to_do`, `seek_care` or `notice`."""

    name: str
    heading: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader is shown of a passage that a reply rests on; `id` is the passage's."""

    id: str
    title: str
    url: str = ""
    date: str = ""
    licence: str = ""
    reviewed: bool = False
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Text that was generated and not shown, and why."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the assistant says. `seconds` holds each step's time by name; `disclosure` is empty after the first turn.

    `finish_reason` is the model's, or `stop` where no model spoke. `is_error` marks a reply given because something
    was broken (engine away, guard failed): the text is then fixed and safe.
    """

    urgency: Urgency
    sections: tuple[ReplySection, ...]
    sources: tuple[Source, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    disclaimer: str = ""
    disclosure: str = ""
    language: str = "en"
    phone: str = ""
    finish_reason: FinishReason = "stop"
    is_error: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The reply as plain text: what a client that knows no sections shows. Disclosure first, disclaimer last.

        In an emergency nothing comes before what must be done: the disclosure follows it.
        """
        parts = [f"{s.heading}\n{s.text}" if s.heading else s.text for s in self.sections]
        ordered = (*parts, self.disclosure) if self.urgency == "emergency" else (self.disclosure, *parts)
        return "\n\n".join(part for part in (*ordered, self.disclaimer) if part)


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a streamed reply, in this order: `verdict`s, `text`, `sources`, `withheld`, last the whole `reply`.

    The `text` of all events joined is `Reply.text`. `section` names the section that a piece of text belongs to.
    """

    kind: EventKind
    text: str = ""
    section: str = ""
    verdict: Verdict | None = None
    sources: tuple[Source, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    reply: Reply | None = None
