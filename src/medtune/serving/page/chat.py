"""The chat tab: its components and what happens on each of them.

Covered: asking with the verdict first, stop, retry, edit, ratings, export, deleting, what a reload brings back.
Not covered: HTML (`render`), two runs side by side (`compare`), the page around (`build`).

The conversation lives in the browser and comes along with every event; the server keeps only which answer is running
for which session. Answers come through the service like everyone else's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from medtune.serving.errors import ServingError
from medtune.serving.gateway import Access
from medtune.serving.page import render
from medtune.serving.page.talk import TURNS, Talk, Turn, as_json, as_markdown, read
from medtune.serving.page.texts import Texts
from medtune.serving.service import Answer, Ask, Service
from medtune.serving.store import Rating, Store
from medtune.serving.wire import CHARACTERS

FRAME_SECONDS = 0.12
"""The browser draws the growing answer no more often than this."""

DOWNLOAD = """(text, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text]));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}"""
SCRIPT = (render.HERE / "page.js").read_text(encoding="utf-8")

Updates = AsyncIterator[dict[Any, Any]]


@dataclass
class Chat:
    """The tab. Call it inside of `gr.Blocks`; `load` is the page's load event."""

    service: Service
    access: Access
    texts: Texts
    answers: dict[str, Answer] = field(default_factory=dict)

    def build(self, page: gr.Blocks) -> None:
        """Lay out the tab and bind its events."""
        t, runs = self.texts, list(self.service.served)
        self.kept = gr.BrowserState(None, storage_key="medtune-conversation", secret="medtune")
        self.model = gr.Dropdown(runs, value=runs[0], label=t["run"], visible=len(runs) > 1)
        self.log = gr.HTML(render.start(t), js_on_load=SCRIPT, elem_classes="medtune", elem_id="log")
        self.live = gr.HTML("", js_on_load=SCRIPT, elem_classes="medtune", elem_id="live")
        self.status = gr.HTML(self._said(""), js_on_load="", elem_classes="medtune")
        with gr.Row(elem_classes="composer", equal_height=True):
            self.question = gr.Textbox(
                label=t["question"], placeholder=t["placeholder"], lines=1, max_lines=6, scale=6, min_width=180,
                elem_id="question",
            )  # fmt: skip
            self.send_button = gr.Button(t["send"], variant="primary", scale=1, min_width=90, elem_id="send")
            self.stop_button = gr.Button(
                t["stop"], variant="stop", scale=1, min_width=90, visible=False, elem_id="stop"
            )
        with gr.Row():
            delete = gr.Button(t["new"], size="sm", min_width=120, elem_id="delete")
            markdown = gr.Button(t["export_markdown"], size="sm", min_width=120, elem_id="save-markdown")
            as_data = gr.Button(t["export_json"], size="sm", min_width=120, elem_id="save-json")
        kept = t["kept_here"] if self.service.store is None else t["kept_there"]
        gr.HTML(render.notice(kept, t["limits"]), js_on_load="", elem_classes="medtune")
        saved, name = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")

        everything = [self.log, self.live, self.status, self.kept, self.question, self.send_button, self.stop_button]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        asked = [self.question, self.model, self.kept]
        gr.on([self.question.submit, self.send_button.click], self.send, asked, everything, **private)
        for component in (self.log, self.live):
            component.click(self.act, [self.model, self.kept], everything, **private)
        self.stop_button.click(self.stop, None, None, queue=False, **private)
        delete.click(self.delete, [self.kept], everything, **private)
        for button, export in ((markdown, self.markdown), (as_data, self.json)):
            button.click(export, [self.kept], [saved, name], **private).then(None, [saved, name], None, js=DOWNLOAD)
        page.load(self.restore, [self.kept], everything, **private)

    async def send(self, question: str, model: str, kept: Any, request: gr.Request) -> Updates:
        """A question from the input field."""
        talk = read(kept)
        if not question.strip():
            yield {self.status: self._said(self.texts["empty_question"])}
            return
        if talk.editing is not None:
            talk.turns = talk.turns[: talk.editing]
        async for updates in self._ask(talk, question.strip(), model, request):
            yield updates

    async def act(self, model: str, kept: Any, event: gr.EventData, request: gr.Request) -> Updates:
        """A click inside of the conversation; `event` is what `page.js` sent, so it may be anything."""
        talk, sent = read(kept), event._data if isinstance(event._data, dict) else {}
        action, number = sent.get("action"), sent.get("turn")
        turn = talk.turns[number] if isinstance(number, int) and 0 <= number < len(talk.turns) else None
        if action == "example":
            async for updates in self._ask(talk, str(sent.get("text")), model, request):
                yield updates
        elif turn is None:
            return
        elif action == "retry":
            talk.turns = talk.turns[:number]
            async for updates in self._ask(talk, turn.question, model, request):
                yield updates
        elif action == "edit":
            talk.editing = number
            yield {self.question: gr.update(value=turn.question, autofocus=True), self.kept: self._dump(talk)}
        elif action in ("up", "down"):
            yield await self._rate(talk, turn, sent)

    async def stop(self, request: gr.Request) -> None:
        """End the running answer; what it has said stays."""
        if answer := self.answers.get(request.session_hash or ""):
            answer.close()

    async def delete(self, kept: Any) -> dict[Any, Any]:
        """Forget the conversation, here and in the store."""
        talk = read(kept)
        said = ""
        if self.service.store is not None:
            try:
                await self.service.in_store(lambda store: store.delete(talk.id))
            except ServingError as error:
                return {self.status: self._said(str(error))}
        return self._settled(Talk(), said) | {self.question: ""}

    def restore(self, kept: Any) -> dict[Any, Any]:
        """After a reload: what the browser kept."""
        return self._settled(read(kept), "")

    def markdown(self, kept: Any) -> tuple[str, str]:
        """The conversation to read, and a file name."""
        return as_markdown(read(kept), self.texts), "conversation.md"

    def json(self, kept: Any) -> tuple[str, str]:
        """The conversation with everything that is known of it, and a file name."""
        return as_json(read(kept)), "conversation.json"

    async def _ask(self, talk: Talk, question: str, model: str, request: gr.Request) -> Updates:
        session = request.session_hash or ""
        if session in self.answers:
            return
        if sum(len(turn.question) + len(turn.text) for turn in talk.turns[-(TURNS - 1) :]) + len(question) > CHARACTERS:
            said = self.texts["too_long"].format(most=CHARACTERS)
            yield {self.status: render.status(said, is_shown=True)}
            return
        talk.turns, talk.editing = [*talk.turns[-(TURNS - 1) :], Turn(question=question, model=self._name(model))], None
        turn = talk.turns[-1]
        try:
            self.access.count(request.client.host if request.client else "")
            answer = self.service.start(Ask(model, talk.messages(), conversation=talk.id, language=self.texts["code"]))
        except ServingError as error:
            turn.state, turn.error = "failed", str(error)
            yield self._settled(talk, self.texts["failed"]) | {self.question: ""}
            return
        self.answers[session] = answer
        try:
            yield {
                self.log: self._turns(talk, talk.turns[:-1]), self.live: self._live(talk), self.question: "",
                self.kept: self._dump(talk), self.status: self._said(self.texts["checking"]),
                self.send_button: gr.update(visible=False), self.stop_button: gr.update(visible=True),
            }  # fmt: skip
            async for updates in self._draw(talk, answer):
                yield updates
        finally:
            answer.close()
            del self.answers[session]
        yield self._settled(talk, self.texts["ready" if turn.state == "done" else turn.state])

    async def _draw(self, talk: Talk, answer: Answer) -> Updates:
        """The growing answer; it leaves the last turn done, stopped or failed."""
        turn, drawn = talk.turns[-1], 0.0
        try:
            async for event in answer.events(1.0):
                if event is None:
                    turn.error = "" if answer.is_running else self.texts["waiting"]
                else:
                    turn.add(event)
                if event is None or event.verdict or time.monotonic() - drawn > FRAME_SECONDS:
                    drawn = time.monotonic()
                    yield {self.live: self._live(talk)}
            turn.state = "done" if turn.reply else "stopped"
            turn.id = answer.id if answer.is_stored else ""
        except ServingError as error:
            turn.state, turn.error = "failed", str(error)

    async def _rate(self, talk: Talk, turn: Turn, sent: dict[str, Any]) -> dict[Any, Any]:
        reason = sent.get("reason") if sent.get("reason") in self.texts["reasons"] else ""
        correction = str(sent.get("correction", ""))[:20_000]

        def add(store: Store) -> str | None:
            rating: Rating = "up" if sent["action"] == "up" else "down"
            consent = sent.get("consent") is True
            return store.add_feedback(turn.id, rating, str(reason), correction, consent=consent)

        try:
            if await self.service.in_store(add):
                turn.rating = sent["action"]
        except ServingError as error:
            return {self.status: self._said(str(error))}
        return self._settled(talk, self.texts["thanks"] if turn.rating else "")

    def _settled(self, talk: Talk, said: str) -> dict[Any, Any]:
        return {
            self.log: self._turns(talk, talk.turns) if talk.turns else render.start(self.texts),
            self.live: "", self.kept: self._dump(talk), self.status: self._said(said),
            self.send_button: gr.update(visible=True), self.stop_button: gr.update(visible=False),
        }  # fmt: skip

    def _turns(self, talk: Talk, shown: list[Turn]) -> str:
        return render.turns(shown, self.texts, total=len(talk.turns), can_rate=self.service.store is not None)

    def _live(self, talk: Talk) -> str:
        return render.turns(talk.turns[-1:], self.texts, first=len(talk.turns) - 1, is_live=True)

    def _name(self, model: str) -> str:
        """Who speaks is said only where there is a choice."""
        return model if len(self.service.served) > 1 else ""

    @staticmethod
    def _dump(talk: Talk) -> dict[str, Any]:
        return talk.model_dump(mode="json")

    @staticmethod
    def _said(text: str) -> str:
        return render.status(text)
