"""A real server on a free port, and a scripted assistant behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import uvicorn

from medtune.serving.api import create_app
from medtune.serving.scripted import ScriptedAssistant
from medtune.serving.service import Limits, Served, Service


@contextlib.contextmanager
def running(make_app) -> Iterator[SimpleNamespace]:
    """`make_app()` is called within the server's event loop; the value has `url`, `app` and `service`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    found = SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}", app=None)
    ready = threading.Event()

    async def serve() -> None:
        found.app = make_app()
        found.service = found.app.state.service
        found.server = uvicorn.Server(uvicorn.Config(found.app, log_level="error", timeout_graceful_shutdown=2))
        task = asyncio.create_task(found.server.serve([listener]))
        while not found.server.started and not task.done():
            await asyncio.sleep(0.01)
        ready.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield found
    finally:
        found.server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the server did not shut down"


def app_of(assistants, *, store=None, limits=None, **options):
    """An application that serves `assistants` (by id)."""
    service = Service([Served(id, assistant) for id, assistant in assistants.items()], store, limits)
    return create_app(service, **options)


_SHARED = ScriptedAssistant()


@pytest.fixture
def assistant() -> ScriptedAssistant:
    """What `server` serves as `tuned`, as good as new."""
    _SHARED.__init__()
    return _SHARED


@pytest.fixture(scope="session")
def _server():
    base = ScriptedAssistant(default="The base says so.")
    assistants, limits = {"tuned": _SHARED, "base": base}, Limits(probe_seconds=0.2)
    with running(lambda: app_of(assistants, limits=limits, ping_seconds=0.2)) as found:
        yield found


@pytest.fixture
def server(_server, assistant):
    """Two runs, `tuned` and `base`, without keys or store: one server for all tests, its script as good as new."""
    del assistant
    return _server


def wait_for(condition, seconds: float = 5.0) -> bool:
    """Whether `condition()` became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
