"""What the page refuses before the service is asked, without a browser."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest

from medtune.serving.gateway import Access
from medtune.serving.page.chat import Chat
from medtune.serving.page.compare import Compare
from medtune.serving.page.talk import Talk, Turn
from medtune.serving.page.texts import texts
from medtune.serving.scripted import ScriptedAssistant
from medtune.serving.service import Served, Service
from medtune.serving.wire import CHARACTERS

REQUEST = SimpleNamespace(session_hash="one", client=None)


async def all_of(updates):
    return [update async for update in updates]


@pytest.mark.parametrize("said", [0, CHARACTERS - 10])
def test_more_text_than_the_api_takes_ends_in_a_status_line(said):
    assistant = ScriptedAssistant()

    async def ask():
        service = Service([Served("a", assistant), Served("b", assistant)])
        chat, compare = Chat(service, Access(), texts("en")), Compare(service, Access(), texts("en"))
        with gr.Blocks() as page:
            chat.build(page)
            compare.build()
        long = "x" * (CHARACTERS + 1 - said)
        kept = Talk(turns=[Turn(question="x" * said, state="done")] if said else []).model_dump(mode="json")
        event = SimpleNamespace(_data={"action": "example", "text": long})
        found = [await all_of(chat.send(long, "a", kept, REQUEST)), await all_of(chat.act("a", kept, event, REQUEST))]
        found = [(update, chat.status) for update in found]
        if not said:
            found.append((await all_of(compare.ask(long, "a", "b", False, REQUEST)), compare.said))
        await service.aclose()
        return found

    for updates, status in asyncio.run(ask()):
        (update,) = updates
        assert list(update) == [status]
        assert "may have 100000 characters" in update[status]
    assert not assistant.calls
