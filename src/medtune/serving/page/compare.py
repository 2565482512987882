"""The compare tab: one question to two runs side by side, blind on request, and a vote that is kept.

Covered: streaming both at once, hiding which is which, votes (where a store is switched on).
Not covered: follow-up questions and statistics over votes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from medtune.serving.errors import ServingError
from medtune.serving.gateway import Access
from medtune.serving.page import render
from medtune.serving.page.chat import FRAME_SECONDS
from medtune.serving.page.talk import Turn
from medtune.serving.page.texts import Texts
from medtune.serving.service import Answer, Ask, Service
from medtune.serving.wire import CHARACTERS
from medtune.types import Message

CHOICES = {"left": "better_left", "right": "better_right", "both": "both_good", "none": "none_good"}


@dataclass
class Compare:
    """The tab, for a service with at least two runs."""

    service: Service
    access: Access
    texts: Texts

    def build(self) -> None:
        """Lay out the tab and bind its events."""
        t, runs = self.texts, list(self.service.served)
        with gr.Row():
            left = gr.Dropdown(runs, value=runs[0], label=t["left"], min_width=140, elem_id="left-run")
            right = gr.Dropdown(runs, value=runs[1], label=t["right"], min_width=140, elem_id="right-run")
        question = gr.Textbox(
            label=t["question"], placeholder=t["placeholder"], max_lines=6, elem_id="compare-question"
        )
        blind = gr.Checkbox(False, label=t["blind"], elem_id="blind")
        ask = gr.Button(t["ask_both"], variant="primary", elem_id="ask-both")
        with gr.Row():
            with gr.Column(min_width=280):
                self.left = gr.HTML("", js_on_load="", elem_classes="medtune", elem_id="left-answer")
            with gr.Column(min_width=280):
                self.right = gr.HTML("", js_on_load="", elem_classes="medtune", elem_id="right-answer")
        with gr.Row(visible=False) as self.ballot:
            votes = {choice: gr.Button(t[key], size="sm", min_width=120) for choice, key in CHOICES.items()}
        self.said = gr.HTML(render.status(""), js_on_load="", elem_classes="medtune", elem_id="voted")
        self.pair = gr.State(None)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shown = [self.left, self.right, self.ballot, self.said, self.pair]
        gr.on([ask.click, question.submit], self.ask, [question, left, right, blind], shown, **private)
        for choice, button in votes.items():
            button.click(self._voter(choice), [self.pair], [self.ballot, self.said], **private)

    async def ask(
        self, question: str, left: str, right: str, blind: bool, request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        """Both answers as they grow, then the ballot."""
        if not question.strip():
            yield {self.said: render.status(self.texts["empty_question"], is_shown=True)}
            return
        if len(question) > CHARACTERS:
            yield {self.said: render.status(self.texts["too_long"].format(most=CHARACTERS), is_shown=True)}
            return
        models = random.sample([left, right], 2) if blind else [left, right]
        names = [self.texts["side_a"], self.texts["side_b"]] if blind else models
        turns = [Turn(question=question.strip(), model=name) for name in names]
        answers: list[Answer] = []
        try:
            for model in models:
                self.access.count(request.client.host if request.client else "")
                answers.append(
                    self.service.start(Ask(model, (Message("user", question.strip()),), language=self.texts["code"]))
                )
            drawing = asyncio.gather(*(_fill(turn, answer) for turn, answer in zip(turns, answers, strict=True)))
            while not drawing.done():
                yield self._sides(turns) | {self.ballot: gr.update(visible=False), self.said: render.status("")}
                await asyncio.wait({drawing}, timeout=FRAME_SECONDS)
            pair = {"models": models, "ids": [a.id for a in answers if a.is_stored], "is_blind": blind}
            yield self._sides(turns) | {self.ballot: gr.update(visible=True), self.pair: pair}
        except ServingError as error:
            yield {self.said: render.status(str(error), is_shown=True)}
        finally:
            for answer in answers:
                answer.close()

    def _voter(self, choice: str) -> Any:
        async def vote(pair: dict[str, Any]) -> dict[Any, Any]:
            ids, (left, right) = pair["ids"], pair["models"]
            if len(ids) == 2:
                try:
                    await self.service.in_store(
                        lambda store: store.add_vote(ids[0], ids[1], choice, is_blind=pair["is_blind"])
                    )
                except ServingError as error:
                    return {self.said: render.status(str(error), is_shown=True)}
            said = self.texts["voted"].format(left=left, right=right)
            return {self.ballot: gr.update(visible=False), self.said: render.status(said, is_shown=True)}

        return vote

    def _sides(self, turns: list[Turn]) -> dict[Any, Any]:
        return {
            side: render.turns([turn], self.texts, first=at, is_side=True)
            for at, (side, turn) in enumerate(zip((self.left, self.right), turns, strict=True))
        }


async def _fill(turn: Turn, answer: Answer) -> None:
    """Add everything that comes to `turn`."""
    try:
        async for event in answer.events():
            if event is not None:
                turn.add(event)
        turn.state = "done" if turn.reply else "stopped"
    except ServingError as error:
        turn.state, turn.error = "failed", str(error)
