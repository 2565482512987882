"""A model behind any OpenAI-compatible URL (vLLM, llama.cpp, Ollama, SGLang, ...), as an `Engine` and a `Completer`.

Covered: streams and batches of requests, time limits, retries with growing pauses on 429, 5xx and lost connections, as
long as nothing of an answer has arrived. Not covered: likelihoods (the protocol has none), other protocols. The key is
read from the environment variable MEDTUNE_ENGINE_KEY and is in no object that is printed or saved.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx

from medtune.errors import MedtuneError, PrerequisiteError
from medtune.models.engine import Piece, Sampling, StopTexts
from medtune.run_dir import hash_of
from medtune.types import Completion, Conversation, FinishReason, Likelihood, Message

KEY = "MEDTUNE_ENGINE_KEY"
ATTEMPTS = 4
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
CHARACTERS_PER_TOKEN = 3
"""On the safe side for English; the server's tokenizer is out of reach."""
RETRIED = (429, 500, 502, 503, 504)


class _Away(Exception):
    """One attempt failed and another may succeed; `pause_seconds` is what the server asks for."""

    def __init__(self, reason: str, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


class RemoteEngine:
    """The model `name` behind `url` (".../v1", or the server's root). Any number of threads may share it.

    `window` is what the server gives the model, where it is known; `timeout_seconds` bounds the wait for each piece.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        window: int | None = None,
        timeout_seconds: float = 60.0,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise PrerequisiteError(f"The engine's URL is {url!r}. Expected http://HOST:PORT/v1 or https://...")
        base = url.rstrip("/")
        self.url = base if urlsplit(base).path else f"{base}/v1"
        self.name, self.window, self.pause_seconds = name, window, pause_seconds
        self.parameters: int | None = None
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds))
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)

    def close(self) -> None:
        """Let go of the open connections."""
        self._client.close()

    @property
    def hash(self) -> str:
        """Of URL and name: what lies behind them is the server's affair."""
        return hash_of("remote", self.url, self.name)

    def count(self, messages: Sequence[Message]) -> int:
        """An estimate from the number of characters."""
        return sum(4 + len(message.content) // CHARACTERS_PER_TOKEN for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """As `Engine.stream`. Closing the iterator closes the connection, by which servers stop generating.

        Raises PrerequisiteError once all attempts have failed, or where the answer breaks off.
        """
        start = time.perf_counter()
        for attempt in range(ATTEMPTS):
            has_text = False
            try:
                with closing(self._attempt(messages, sampling, start)) as pieces:
                    for piece in pieces:
                        has_text = True
                        yield piece
                return
            except _Away as away:
                if has_text or attempt == ATTEMPTS - 1:
                    raise PrerequisiteError(self._explain(away, attempt + 1, has_text)) from away
                self._wait(attempt, away)

    def complete(
        self, prompts: Sequence[tuple[Message, ...]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Completion]]:
        """As `Completer.complete`, `batch_size` requests at a time. A request that fails is an answer with an error."""
        sampling = Sampling(max_new_tokens)

        def answer(index: int) -> tuple[int, Completion]:
            try:
                *_, last = self.stream(prompts[index], sampling)
            except MedtuneError as error:
                return index, Completion("", "error", error=str(error))
            return index, last.completion or Completion("", "error", error="the answer has no end")

        with ThreadPoolExecutor(batch_size) as pool:
            for done in as_completed([pool.submit(answer, index) for index in range(len(prompts))]):
                yield done.result()

    def likelihood(self, conversations: Sequence[Conversation], *, batch_size: int) -> Iterator[tuple[int, Likelihood]]:
        """Never gives one: chat servers do not rate a text that they are given."""
        del conversations, batch_size
        yield from ()

    def _attempt(self, messages: Sequence[Message], sampling: Sampling, start: float) -> Generator[Piece, None, None]:
        """One request. Raises _Away where another try may help, PrerequisiteError where none will."""
        body = self._body(messages, sampling)
        try:
            with self._client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    self._refuse(response)
                yield from self._pieces(response, messages, sampling, start)
        except httpx.HTTPError as error:
            raise _Away(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body

    def _refuse(self, response: httpx.Response) -> None:
        said = f"{response.status_code} {_message(response)}"
        if response.status_code in RETRIED:
            raise _Away(said, _seconds(response.headers.get("retry-after")))
        raise PrerequisiteError(
            f"{self.url} refuses the request ({said}). Expected an OpenAI-compatible server that serves {self.name!r}. "
            f"Check URL and model name, and the key in {KEY}."
        )

    def _pieces(
        self, response: httpx.Response, messages: Sequence[Message], sampling: Sampling, start: float
    ) -> Generator[Piece, None, None]:
        stop, shown, reason, counted = StopTexts(sampling.stop), "", "", 0
        usage: dict[str, Any] = {}
        for chunk in _chunks(response):
            if "error" in chunk:
                raise _Away(f"the server reports {_text_of(chunk['error'])}")
            usage = _object(chunk.get("usage")) or usage
            choice = _choice(chunk)
            reason = choice.get("finish_reason") or reason
            new = _object(choice.get("delta")).get("content") or ""
            if new and not stop.is_met:
                counted += 1
                text = stop.feed(new)
                shown += text
                yield Piece(text)
        if not reason:
            raise _Away("the answer broke off before its end")
        rest = stop.rest()
        why: FinishReason = "length" if reason == "length" and not stop.is_met else "stop"
        counts = (usage.get("prompt_tokens") or self.count(messages), usage.get("completion_tokens") or counted)
        yield Piece(rest, Completion((shown + rest).strip(), why, *counts, time.perf_counter() - start))

    def _wait(self, attempt: int, away: _Away) -> None:
        pause = self.pause_seconds * 2**attempt * random.uniform(0.75, 1.25)
        asked = pause if away.pause_seconds is None else away.pause_seconds
        time.sleep(min(max(pause, asked), LONGEST_PAUSE_SECONDS))

    def _explain(self, away: _Away, attempts: int, has_text: bool) -> str:
        when = "in the middle of an answer" if has_text else f"after {attempts} attempts"
        return (
            f"The language model {self.name!r} at {self.url} does not answer ({away}; given up {when}). Expected a "
            "running OpenAI-compatible server. Start it, or correct URL and model name."
        )


def _chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON objects of an event stream, or the one object of a server that does not stream."""
    if "text/event-stream" not in response.headers.get("content-type", ""):
        response.read()
        whole = _json(response.text)
        choice = _choice(whole)
        yield {**whole, "choices": [{**choice, "delta": choice.get("message")}] if choice else []}
        return
    for line in response.iter_lines():
        if line.startswith("data:") and (data := line[5:].strip()):
            if data == "[DONE]":
                return
            yield _json(data)


def _choice(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    return _object(choices[0]) if isinstance(choices, list) and choices else {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _Away(f"the server sends no JSON object but {text[:80]!r}")
    return found


def _message(response: httpx.Response) -> str:
    try:
        return _text_of(response.json().get("error") or "")
    except (ValueError, AttributeError):
        return response.text[:200]


def _text_of(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:200]


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is left to our own pauses."""
    return float(header) if header and header.replace(".", "", 1).isdigit() else None
