"""A conversation as the page keeps it, in the browser: what was asked, what came back, what is still coming.

Covered: reading what a browser sends (it may be anything), the messages for the service, exports. Not covered: drawing
it (`render`), asking (`chat`).
"""

from __future__ import annotations

import json
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medtune.serving.page.texts import Texts
from medtune.types import Event, Message, Reply, Source, Verdict

State = Literal["writing", "done", "stopped", "failed"]
TURNS = 100


class Turn(BaseModel):
    """A question and what has come of its answer. `id` is the reply's message UUID where it is stored."""

    model_config = ConfigDict(extra="ignore")

    question: str = Field(max_length=100_000)
    model: str = ""
    state: State = "writing"
    id: str = ""
    verdicts: list[Verdict] = []
    parts: list[tuple[str, str]] = []
    reply: Reply | None = None
    error: str = ""
    rating: Literal["", "up", "down"] = ""

    def add(self, event: Event) -> None:
        """What one event changes."""
        if event.verdict:
            self.verdicts.append(event.verdict)
        elif event.kind == "text" and self.parts and self.parts[-1][0] == event.section:
            self.parts[-1] = (event.section, self.parts[-1][1] + event.text)
        elif event.kind == "text":
            self.parts.append((event.section, event.text))
        elif event.reply:
            self.reply, self.state, self.parts, self.verdicts = event.reply, "done", [], []

    @property
    def text(self) -> str:
        """What has been said so far, as plain text."""
        return self.reply.text if self.reply else "".join(text for _, text in self.parts)

    @property
    def urgency(self) -> str:
        """The reply's; before it is there, what the verdicts already say."""
        if self.reply:
            return self.reply.urgency
        alarms = [v for v in self.verdicts if v.guard in ("emergency", "crisis") and v.verdict and not v.is_error]
        return "emergency" if alarms else "routine"

    @property
    def sources(self) -> tuple[Source, ...]:
        return self.reply.sources if self.reply else ()


class Talk(BaseModel):
    """A conversation. `editing` is the turn that the next question replaces, with all after it."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(default_factory=lambda: str(uuid.uuid4()), pattern=r"^[0-9a-f-]{36}$")
    turns: list[Turn] = Field([], max_length=TURNS)
    editing: int | None = None

    def messages(self) -> tuple[Message, ...]:
        """The turns for the assistant, up to the last question. What a stopped answer had said counts as said."""
        found = []
        for turn in self.turns[:-1]:
            found.append(Message("user", turn.question))
            if turn.text:
                found.append(Message("assistant", turn.text))
        return (*found, Message("user", self.turns[-1].question))


def read(value: Any) -> Talk:
    """What the browser kept; a new conversation where it is unreadable. A turn that was cut off counts as stopped."""
    try:
        talk = Talk.model_validate(value or {})
    except ValidationError:
        return Talk()
    for turn in talk.turns:
        turn.state = "stopped" if turn.state == "writing" else turn.state
    return talk


def as_json(talk: Talk) -> str:
    """Everything that is known of the conversation."""
    return json.dumps(talk.model_dump(mode="json"), ensure_ascii=False, indent=2)


def as_markdown(talk: Talk, texts: Texts) -> str:
    """The conversation to read: questions, answers, sources."""
    lines = [f"# {texts['title']}", ""]
    for turn in talk.turns:
        lines += [f"## {texts['you']}", "", turn.question, "", f"## {texts['assistant']}", "", turn.text, ""]
        if turn.sources:
            lines += [f"### {texts['sources']}", ""]
            lines += [f"{n}. {s.title} {f'<{s.url}>' if s.url else ''}".rstrip() for n, s in enumerate(turn.sources, 1)]
            lines += [""]
    return "\n".join(lines)
