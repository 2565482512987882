"""The one way to an answer over HTTP: page and API ask the service, so that nothing can go round a guard.

Covered: which run answers, a bounded number of running and waiting requests, cancelling, time limits, what is stored
and counted. Not covered: what is said (`assistant`), HTTP (`api`), the page (`page`), who may ask (`keys`, `limits`).

The assistant is synchronous; each reply is made in a thread and handed over event by event. `Service.start` refuses at
once what does not fit; everything later comes out of `Answer.events`. Closing an answer stops the assistant before its
next event. Where a store is set, question and reply are written before the reply's last event is handed over.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from medtune.models.engine import Engine, Sampling
from medtune.serving.errors import ServingError, busy, not_found, out_of_time, store_away
from medtune.serving.metrics import Metrics
from medtune.serving.store import Store, StoreError
from medtune.types import Event, Message, Reply, Verdict

FIXED = frozenset({"disclosure", "disclaimer", "escalation", "notice"})
"""Sections that come without an engine."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Assistant(Protocol):
    """What the service needs of `assistant.assistant.Assistant`."""

    @property
    def engine(self) -> Engine | None: ...
    def in_language(self, code: str) -> Assistant: ...
    def check(self, messages: Sequence[Message]) -> Mapping[str, Verdict]: ...
    def stream(self, messages: Sequence[Message], sampling: Sampling | None = None) -> Iterator[Event]: ...


@dataclass(frozen=True)
class Served:
    """A run that is served under the name `id`. `created` in seconds since 1970; `report` its report.html, if any.

    `max_new_tokens` holds where a request names no number.
    """

    id: str
    assistant: Assistant
    created: int = 0
    report: Path | None = None
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Limits:
    """How much is done at once. `running` replies are made, `waiting` more may queue; each has `seconds` in all.

    An engine that gave no token for `probe_seconds` is asked for one, and has as long to give it.
    """

    running: int = 8
    waiting: int = 32
    seconds: float = 300.0
    probe_seconds: float = 5.0


@dataclass(frozen=True)
class Ask:
    """One request. `conversation` continues a stored one; `owner` is the key's id, empty without one.

    `language` is that of the fixed texts; empty takes the run's.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling | None = None
    conversation: str = ""
    owner: str = ""
    language: str = ""


@dataclass(eq=False)
class Answer:
    """A reply on its way. `id` is the reply's message UUID; `conversation` the one that it belongs to.

    It may take `seconds`, waiting included.
    """

    ask: Ask
    seconds: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    conversation: str = ""
    is_stored: bool = False
    is_running: bool = False
    _queue: asyncio.Queue[Event | BaseException | None] = field(default_factory=asyncio.Queue)
    _gone: threading.Event = field(default_factory=threading.Event)
    _task: asyncio.Task[None] | None = None
    _start: float = field(default_factory=time.monotonic)

    async def events(self, idle_seconds: float | None = None) -> AsyncGenerator[Event | None, None]:
        """The reply's events; None whenever nothing came for `idle_seconds`. Raises ServingError where it cannot go on.

        Leaving the iterator early closes the answer.
        """
        async with aclosing(self.batches(idle_seconds)) as batches:
            async for batch in batches:
                for event in batch or (None,):
                    yield event

    async def batches(self, idle_seconds: float | None = None) -> AsyncGenerator[list[Event], None]:
        """As `events`, everything that has come meanwhile at once; an empty list whenever nothing came."""
        try:
            while True:
                left = self._start + self.seconds - time.monotonic()
                if left <= 0:
                    raise out_of_time(self.seconds)
                try:
                    async with asyncio.timeout(left if idle_seconds is None else min(idle_seconds, left)):
                        items = [await self._queue.get()]
                except TimeoutError:
                    yield []
                    continue
                while not self._queue.empty():
                    items.append(self._queue.get_nowait())
                if events := [item for item in items if isinstance(item, Event)]:
                    yield events
                if isinstance(items[-1], BaseException):
                    raise items[-1]
                if items[-1] is None:
                    return
        finally:
            self.close()

    async def reply(self) -> Reply:
        """The whole reply; the events on the way are dropped."""
        found = None
        async for event in self.events():
            found = event.reply if event else found
        if found is None:
            raise ServingError(503, "The reply was stopped.", "server_error", code="stopped")
        return found

    def close(self) -> None:
        """Stop: a waiting answer leaves the queue, a running one ends before its next event. Closing twice is fine."""
        self._gone.set()
        if self._task is not None and not self.is_running:
            self._task.cancel()


class Service:
    """Everything that is served, and the limits on it. Use within one event loop; `aclose` ends it."""

    def __init__(self, served: Sequence[Served], store: Store | None = None, limits: Limits | None = None) -> None:
        self.served = {run.id: run for run in served}
        self.store, self.limits, self.metrics = store, limits or Limits(), Metrics()
        # Beside those that make replies, a few for guards, emergencies and the store.
        self._threads = ThreadPoolExecutor(self.limits.running + 4, thread_name_prefix="medtune")
        self._slots = asyncio.Semaphore(self.limits.running)
        self._open: set[Answer] = set()
        self.away: tuple[str, ...] | None = None
        self._alive_at: dict[str, float] = {}
        self._spoke_at: dict[str, float] = {}
        self._probing = ThreadPoolExecutor(len(self.served), thread_name_prefix="medtune-probe")
        self._probes: dict[str, asyncio.Future[bool]] = {}
        self._mean_seconds = 1.0
        self.metrics.waiting.set_function(lambda: sum(not answer.is_running for answer in self._open))

    def start(self, ask: Ask) -> Answer:
        """Begin a reply. Raises ServingError: no such run, or too many waiting."""
        run = self.run(ask.model)
        if len(self._open) >= self.limits.running + self.limits.waiting:
            self.metrics.rejected.inc()
            raise busy(self._mean_seconds * len(self._open) / self.limits.running)
        answer = Answer(ask, self.limits.seconds, conversation=ask.conversation or str(uuid.uuid4()))
        answer._task = asyncio.create_task(self._answer(run, answer))
        self._open.add(answer)
        answer._task.add_done_callback(lambda task: self._finish(answer, task))
        return answer

    def run(self, model: str) -> Served:
        """The run of that name. Raises ServingError (404) with the names that there are."""
        if model not in self.served:
            raise not_found(model, self.served)
        return self.served[model]

    async def guard(self, model: str, messages: Sequence[Message]) -> tuple[Verdict, ...]:
        """The guards alone: nothing is generated, searched or stored."""
        verdicts = await self._check(self.run(model), messages)
        for verdict in verdicts:
            self.metrics.guard(verdict)
        return verdicts

    async def in_store(self, work: Callable[[Store], T]) -> T:
        """What `work` returns, in a thread. Raises ServingError where no store is switched on or it is away."""
        if self.store is None:
            raise ServingError(404, "Nothing is stored here: medtune serve --store URL.", code="store_off")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, self.store)
        except StoreError as error:
            log.error("The store failed: %s", error)
            raise store_away() from error

    async def watch(self) -> None:
        """Keep `away` up to date: the names of the runs whose engine gives no token; None until it was asked once."""
        while True:
            self.away = await self.probe()
            await asyncio.sleep(self.limits.probe_seconds)

    async def probe(self) -> tuple[str, ...]:
        """Names of the runs whose engine is away. One that gave a token lately is not asked again.

        An engine that leaves the question waiting is there as long as an answer of its run goes on.
        """
        alive = await asyncio.gather(*(self._probe(run) for run in self.served.values()), return_exceptions=True)
        return tuple(id for id, is_alive in zip(self.served, alive, strict=True) if is_alive is not True)

    async def aclose(self) -> None:
        """Stop what runs and wait for it."""
        tasks = [answer._task for answer in self._open if answer._task]
        for answer in list(self._open):
            answer.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)
        self._probing.shutdown(wait=False)
        if self.store is not None:
            self.store.close()

    async def _probe(self, run: Served) -> bool:
        engine = run.assistant.engine
        if engine is None or time.monotonic() - self._alive_at.get(run.id, -math.inf) < self.limits.probe_seconds:
            return True

        def ask() -> bool:
            return any(True for _ in engine.stream([Message("user", "Hello")], Sampling(max_new_tokens=1)))

        # One thread for each run: a probe that hangs is waited for, not repeated.
        if run.id not in self._probes or self._probes[run.id].done():
            self._probes[run.id] = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._probing, ask))
        try:
            async with asyncio.timeout(self.limits.probe_seconds):
                is_alive = await asyncio.shield(self._probes[run.id])
        except TimeoutError:
            # An engine that is busy with a long answer is not away.
            return time.monotonic() - self._spoke_at.get(run.id, -math.inf) < self.limits.probe_seconds
        if is_alive:
            self._alive_at[run.id] = time.monotonic()
        return is_alive

    async def _answer(self, run: Served, answer: Answer) -> None:
        # Nobody in an emergency waits behind other people's answers: the reply to it needs no model.
        if self._slots.locked() and _is_alarm(await self._check(run, answer.ask.messages)):
            await self._make(run, answer)
            return
        async with self._slots:
            await self._make(run, answer)

    async def _make(self, run: Served, answer: Answer) -> None:
        answer.is_running = True
        self.metrics.queue_seconds.observe(time.monotonic() - answer._start)
        loop = asyncio.get_running_loop()

        def hand_over(event: Event) -> None:
            loop.call_soon_threadsafe(answer._queue.put_nowait, event)

        with self.metrics.running.track_inprogress():
            await loop.run_in_executor(self._threads, self._draw, run, answer, hand_over)
        self._mean_seconds += 0.1 * (time.monotonic() - answer._start - self._mean_seconds)

    async def _check(self, run: Served, messages: Sequence[Message]) -> tuple[Verdict, ...]:
        """The guards' verdicts, in a thread. They hear what the assistant's own hear: no client's system message."""
        spoken = [message for message in messages if message.role in ("user", "assistant")]
        loop = asyncio.get_running_loop()
        return tuple((await loop.run_in_executor(self._threads, run.assistant.check, spoken)).values())

    def _draw(self, run: Served, answer: Answer, hand_over: Callable[[Event], None]) -> None:
        """In a thread: everything that the assistant says, until it ends or nobody listens any more."""
        ask = answer.ask
        assistant = run.assistant.in_language(ask.language) if ask.language else run.assistant
        events = assistant.stream(ask.messages, ask.sampling)
        clock = self.metrics.clock(answer._start)
        for event in events:
            if answer._gone.is_set():
                events.close()  # type: ignore[attr-defined]
                return
            if event.verdict:
                self.metrics.guard(event.verdict)
            if event.kind == "text":
                clock.tick()
                if event.section not in FIXED:
                    self._spoke_at[run.id] = time.monotonic()
            if event.reply:
                if event.reply.completion_tokens and not event.reply.is_error:
                    self._alive_at[run.id] = time.monotonic()
                self.metrics.count(event.reply)
                self._keep(answer, event.reply)
            hand_over(event)

    def _keep(self, answer: Answer, reply: Reply) -> None:
        """Store question and reply. An emergency reply is handed over even where the store is away."""
        if self.store is None:
            return
        try:
            self.store.add_turn(
                answer.conversation, answer.id, answer.ask.messages, reply, answer.ask.model, answer.ask.owner
            )
            answer.is_stored = True
        except StoreError as error:
            log.error("A reply could not be stored: %s", error)
            if reply.urgency != "emergency":
                raise store_away() from error

    def _finish(self, answer: Answer, task: asyncio.Task[None]) -> None:
        self._open.discard(answer)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or answer._gone.is_set():
            self.metrics.cancelled.inc()
        if error is not None and not isinstance(error, ServingError):
            log.error("The assistant broke.", exc_info=error)
            error = ServingError(503, "The assistant broke; the log says why.", "server_error", code="assistant_failed")
        answer._queue.put_nowait(error)


def _is_alarm(verdicts: Sequence[Verdict]) -> bool:
    """Whether these end in the fixed text for an emergency or a crisis."""
    return any(v.guard in ("emergency", "crisis") and v.verdict and not v.is_error for v in verdicts)
