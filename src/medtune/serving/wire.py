"""OpenAI's chat shapes: what a request may say, and how a reply and its events are written.

Covered: reading a body into an `Ask`'s parts, with fields that would change the meaning refused by name and harmless
unknown ones ignored; completions, chunks, and the one extra object `medtune`. Not covered: routes (`api`), errors
(`errors`). Numbers and texts are read strictly: "0.5" is no temperature.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from medtune.models.engine import Sampling
from medtune.serving.errors import ServingError
from medtune.types import Event, Message, Reply, Role, Verdict

MESSAGES, CHARACTERS = 200, 100_000
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}
"""Fields that would change the meaning, and the values of them that do not."""


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("the character U+0000 is not allowed in a text")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half a character: a surrogate without its other half")
    return text


Text = Annotated[str, AfterValidator(_text)]
UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
Identifier = Annotated[str, Field(pattern=UUID), AfterValidator(str.lower)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(_Body):
    """A piece of a message's content; only text is understood."""

    type: Literal["text"]
    text: Text


class ChatMessage(_Body):
    """One turn. `system` and `developer` texts are read by nobody: the assistant follows its own."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=100)]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Body):
    """What a stream brings beside the text."""

    include_usage: bool = False


class Metadata(_Body):
    """OpenAI's free metadata; `conversation` continues a stored conversation."""

    conversation: Identifier | None = None


class GuardRequest(_Body):
    """The guards alone, on a conversation."""

    model: str = Field(min_length=1, max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)


class ChatRequest(GuardRequest):
    """A conversation to answer. Other fields of OpenAI's are ignored where they are harmless, else refused by name."""

    model_config = ConfigDict(strict=True, extra="allow")

    max_tokens: int | None = Field(None, ge=1, le=100_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=100_000)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None


class ErrorFacts(BaseModel):
    """What went wrong: words for people, a type and a code for programs, the field where there is one."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorFacts


class FeedbackRequest(_Body):
    """What a reader thinks of a reply. `consent`: whether it may be used to tune."""

    message_id: str = Field(pattern=UUID.replace("^", "^(chatcmpl-)?"))
    rating: Literal["up", "down"]
    reason: Text = Field("", max_length=2_000)
    correction: Text = Field("", max_length=20_000)
    consent: bool = False


def messages_of(request: GuardRequest) -> tuple[Message, ...]:
    """The turns. Raises ServingError (400): nothing that a user says at the end, or far too much text."""
    if sum(len(message.text) for message in request.messages) > CHARACTERS:
        message = f"messages: more than {CHARACTERS:,} characters in all. Leave out the oldest turns."
        raise ServingError(400, message, param="messages", code="context_length_exceeded")
    last = request.messages[-1]
    if last.role != "user" or not last.text.strip():
        raise ServingError(400, "messages: the last one must be the user's, with a text.", param="messages")
    return tuple(Message(ROLES[message.role], message.text) for message in request.messages)


def sampling_of(request: ChatRequest, most: int) -> Sampling:
    """How to generate. Greedy unless a temperature is given; `max_completion_tokens` wins over `max_tokens`.

    `most` is the number of tokens where the request names none. Raises ServingError (400) on a refused field.
    """
    for name, value in (request.model_extra or {}).items():
        if name in HARMLESS and value is not None and value not in HARMLESS[name]:
            raise ServingError(
                400, f"{name}: not supported here; leave it out.", param=name, code="unsupported_parameter"
            )
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return Sampling(
        request.max_completion_tokens or request.max_tokens or most,
        request.temperature or 0.0,
        1.0 if request.top_p is None else request.top_p,
        request.seed,
        tuple(text for text in stop if text),
    )


def model_card(id: str, created: int) -> dict[str, Any]:
    """An entry of `/v1/models`."""
    return {"id": id, "object": "model", "created": created, "owned_by": "medtune"}


def verdict_object(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON."""
    return asdict(verdict)


def medtune_object(reply: Reply, **more: Any) -> dict[str, Any]:
    """Everything that a client which knows sections and sources can show; `more` beside it (ids, whether stored)."""
    return {**asdict(reply), **more}


def usage(reply: Reply) -> dict[str, int]:
    """Tokens that the model read and wrote: both 0 where no model spoke."""
    total = reply.prompt_tokens + reply.completion_tokens
    return {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "total_tokens": total}


def finish_reason(reply: Reply) -> str:
    """OpenAI's word. A reply that something broke off is whole in itself, so it ends with `stop`, too."""
    return "length" if reply.finish_reason == "length" else "stop"


def completion(id: str, model: str, reply: Reply, medtune: Mapping[str, Any]) -> dict[str, Any]:
    """The reply as a `chat.completion`."""
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(reply)}
    return {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(reply),
        "medtune": medtune,
    }


class Chunks:
    """The `chat.completion.chunk`s of one stream: all with the same id, time and model."""

    def __init__(self, id: str, model: str, include_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage

    def role(self) -> dict[str, Any]:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def event(self, event: Event) -> dict[str, Any] | None:
        """A verdict or a piece of text; None for the events that the last chunk sums up."""
        if event.verdict is not None:
            return self._chunk({"content": ""}, medtune={"verdict": verdict_object(event.verdict)})
        return (
            self._chunk({"content": event.text}, medtune={"section": event.section}) if event.kind == "text" else None
        )

    def end(self, reply: Reply, medtune: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The last chunk with its finish reason, and the usage where it was asked for."""
        chunks = [self._chunk({}, finish_reason(reply), medtune)]
        if self._include_usage:
            chunks.append({**self._head, "choices": [], "usage": usage(reply)})
        return chunks

    def _chunk(
        self, delta: dict[str, str], reason: str | None = None, medtune: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]} | ({"usage": None} if self._include_usage else {})
        return chunk if medtune is None else {**chunk, "medtune": medtune}
