"""The process behind `medtune serve`: runs opened, store and keys at hand, one server until a signal.

Covered: opening each run once, refusing what is not safe to open, what is printed, retention, a clean end.
Not covered: arguments (`commands.serve`), the application (`api`, `page`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from medtune.assistant.open import open_assistant
from medtune.assistant.privacy import mask
from medtune.errors import PrerequisiteError
from medtune.models.engine import Engine
from medtune.models.remote import RemoteEngine
from medtune.recipe import Recipe
from medtune.run_dir import RunDir
from medtune.serving.api import create_app
from medtune.serving.gateway import Access, is_loopback
from medtune.serving.keys import Keys
from medtune.serving.limits import RateLimit
from medtune.serving.page.build import mount
from medtune.serving.service import Served, Service
from medtune.serving.store import Store, StoreError

PER_KEY, PER_ADDRESS = 120, 300
"""Requests a minute where there are keys; without keys only this machine can ask."""
DAY_SECONDS = 86_400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Where the server listens and what it keeps. `store` is a database URL or a file, empty for none."""

    host: str = "127.0.0.1"
    port: int = 8000
    store: str = ""
    keep_days: float = 30.0
    keys: Path | None = None


def run(runs: Mapping[str, tuple[Recipe, RunDir]], engine_url: str | None, options: Options) -> None:
    """Serve `runs` by name until SIGINT or SIGTERM.

    Raises PrerequisiteError: an open address without keys, a taken port, a store that cannot be opened; RunDirError:
    a run that is not finished or does not match its hashes.
    """
    access = _access(options)
    console = Console()
    listener = _listen(options)
    with contextlib.closing(listener):
        store = _open_store(options.store)
        with console.status("opening the runs"):
            served = [open_run(name, recipe, home, engine_url) for name, (recipe, home) in runs.items()]
        language = next(iter(runs.values()))[0].assistant.language
        asyncio.run(_serve(served, store, access, options, listener, language, console))


def open_run(name: str, recipe: Recipe, home: RunDir, engine_url: str | None) -> Served:
    """One run, its model in this process or under its name behind `engine_url`."""
    engine: Engine | None = RemoteEngine(engine_url, name) if engine_url else None
    assistant = open_assistant(recipe, home, engine)
    created = int(home.manifest_path.stat().st_mtime)
    return Served(name, assistant, created, home.path / "report.html", recipe.assistant.max_new_tokens)


def _access(options: Options) -> Access:
    if options.keys is None:
        if not is_loopback(options.host):
            raise PrerequisiteError(
                f"--host {options.host} is reachable by others, and without keys everybody may ask. Make a key: "
                "medtune keys create NAME, then add --keys keys.json; or keep to --host 127.0.0.1."
            )
        return Access()
    keys = Keys(options.keys)
    if all(key.revoked for key in keys.all()):
        raise PrerequisiteError(
            f"{options.keys}: no valid key. Make one: medtune keys create NAME --file {options.keys}"
        )
    return Access(keys, RateLimit(PER_KEY), RateLimit(PER_ADDRESS))


def _open_store(where: str) -> Store | None:
    if not where:
        return None
    url = where if "://" in where else f"sqlite:///{where}"
    return Store(url, lambda text: mask(text)[0])


def _listen(options: Options) -> socket.socket:
    """The address, taken before anything is loaded."""
    try:
        return socket.create_server(
            (options.host, options.port), family=socket.AF_INET6 if ":" in options.host else socket.AF_INET
        )
    except OSError as error:
        raise PrerequisiteError(
            f"{options.host}:{options.port} cannot be listened on ({error.strerror}). Choose another --port or --host."
        ) from error


def build(service: Service, access: Access, options: Options, language: str) -> FastAPI:
    """API and page. A loopback server without keys answers to its own names alone."""
    is_open = access.keys is None
    hosts = frozenset({"127.0.0.1", "localhost", "::1", options.host}) if is_open else frozenset[str]()
    app = create_app(service, access, hosts=hosts)
    mount(app, service, access, language)
    return app


async def _serve(
    served: list[Served], store: Store | None, access: Access, options: Options, listener: socket.socket, language: str,
    console: Console,
) -> None:  # fmt: skip
    service = Service(served, store)
    app = build(service, access, options, language)
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    cleaning = asyncio.create_task(_purge(store, options.keep_days)) if store else None
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.05)
    if server.started:
        _announce(service, options, listener.getsockname()[1], console)
    await serving
    if cleaning:
        cleaning.cancel()
    console.print("Stopped.")


def _announce(service: Service, options: Options, port: int, console: Console) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    root = f"http://{host}:{port}"
    # Of a URL only the beginning: it may hold a password.
    where = options.store.partition("://")[0] if "://" in options.store else options.store
    kept = f"{where}, {options.keep_days:g} days" if service.store else "nothing"
    for title, text in (
        ("Page", f"{root}/"),
        ("API", f"{root}/v1"),
        ("Models", ", ".join(service.served)),
        ("Health", f"{root}/healthz  {root}/readyz  {root}/metrics"),
        ("Stored", kept),
        ("Keys", str(options.keys) if options.keys else "none (this machine alone)"),
    ):
        console.print(f"[bold]{title:<8}[/]", end="")
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print("Ready. Stop with Ctrl+C.")


async def _purge(store: Store, days: float) -> None:
    """Forget what is too old, now and every day."""
    while True:
        try:
            await asyncio.to_thread(store.purge, days)
        except StoreError as error:
            log.error("Old conversations could not be deleted: %s", error)
        await asyncio.sleep(DAY_SECONDS)


class _Server(uvicorn.Server):
    """Ends on a signal and leaves it at that; uvicorn's own would raise the signal again afterwards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
