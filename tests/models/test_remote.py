"""A remote engine against a local server that misbehaves as told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from medtune.errors import PrerequisiteError
from medtune.models.engine import Sampling
from medtune.models.remote import ATTEMPTS, RemoteEngine
from medtune.types import Message

PROMPT = (Message("user", "What is asthma?"),)
WORDS = ["Asth", "ma is a ", "disease ", "of the lungs."]


class Server(ThreadingHTTPServer):
    """Does the first thing on its list for the first request, the second for the second; the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = ["answer"]
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        server.keys.append(self.headers.get("authorization"))
        deed = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        if deed.isdigit():
            self._plain(int(deed), json.dumps({"error": {"message": f"told to say {deed}"}}))
        elif deed == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif deed == "whole":
            choice = {"message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
            self._plain(200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}))
        elif deed == "odd":
            self._plain(200, json.dumps({"choices": "none", "usage": [1]}))
        elif deed == "html":
            self._plain(200, "<html>not what you want</html>")
        else:
            self._stream(deed)

    def _plain(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        if status == 429:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(text.encode())

    def _stream(self, deed: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        words = WORDS * 500 if deed == "endless" else WORDS
        for number, word in enumerate(words):
            if deed == "slow":
                time.sleep(3)
            if deed == "cut" and number == 2:
                return
            if deed == "broken" and number == 1:
                self.wfile.write(b"data: {not json\n\n")
            if deed == "fault" and number == 1:
                self._send({"error": {"message": "out of memory"}})
                return
            self._send({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            self.server.sent += 1
            if deed == "endless":
                time.sleep(0.01)
        self._send({"choices": [{"delta": {}, "finish_reason": "length" if deed == "length" else "stop"}]})
        self._send({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}})
        self.wfile.write(b": a comment\n\ndata: [DONE]\n\n")

    def _send(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *args: Any) -> None:
        del args


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    found.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def engine(server: Server) -> Iterator[RemoteEngine]:
    remote = RemoteEngine(server.url, "tiny", timeout_seconds=0.5, pause_seconds=0.001)
    yield remote
    remote.close()


def text_of(engine: RemoteEngine, sampling: Sampling | None = None) -> str:
    return "".join(piece.text for piece in engine.stream(PROMPT, sampling or Sampling()))


def test_a_stream_comes_piece_by_piece(server: Server, engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    *pieces, last = engine.stream(PROMPT, Sampling(32, 0.7, 0.9, 11, ("\n\n",)))
    assert [piece.text for piece in pieces] == WORDS
    assert last.completion is not None
    completion = last.completion
    assert (completion.text, completion.finish_reason) == ("".join(WORDS), "stop")
    assert (completion.prompt_tokens, completion.completion_tokens) == (5, 9)
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "What is asthma?"}]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (32, 0.7, 0.9, 11)
    assert (body["model"], body["stop"], body["stream"]) == ("tiny", ["\n\n"], True)
    assert server.keys == [None]
    monkeypatch.setenv("MEDTUNE_ENGINE_KEY", "secret-key")
    keyed = RemoteEngine(server.url, "tiny")
    text_of(keyed)
    assert server.keys[-1] == "Bearer secret-key"
    assert "secret-key" not in f"{vars(keyed)} {keyed.hash}"
    keyed.close()


@pytest.mark.parametrize("fault", ["429", "500", "503", "reset", "html"])
def test_what_passes_is_tried_again(server: Server, engine: RemoteEngine, fault: str) -> None:
    server.plan = [fault, fault, "answer"]
    assert text_of(engine) == "".join(WORDS)
    assert len(server.bodies) == 3


@pytest.mark.parametrize("fault", ["429", "500", "reset", "html", "odd", "slow"])
def test_what_stays_is_explained(server: Server, engine: RemoteEngine, fault: str) -> None:
    server.plan = [fault]
    with pytest.raises(PrerequisiteError, match=f"does not answer.*after {ATTEMPTS} attempts.*Start it"):
        text_of(engine)
    assert len(server.bodies) == ATTEMPTS


@pytest.mark.parametrize("status", ["400", "401", "404"])
def test_what_will_not_pass_is_not_tried_again(server: Server, engine: RemoteEngine, status: str) -> None:
    server.plan = [status]
    with pytest.raises(PrerequisiteError, match=f"{status} told to say {status}"):
        text_of(engine)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("fault", ["cut", "broken", "fault"])
def test_an_answer_that_breaks_off_is_never_begun_anew(server: Server, engine: RemoteEngine, fault: str) -> None:
    server.plan = [fault]
    shown: list[str] = []
    with pytest.raises(PrerequisiteError, match="in the middle of an answer"):
        shown.extend(piece.text for piece in engine.stream(PROMPT, Sampling()))
    assert shown == WORDS[: len(shown)] != []
    assert len(server.bodies) == 1


def test_nobody_there_is_a_prerequisite() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    engine = RemoteEngine(url, "tiny", pause_seconds=0.001)
    with pytest.raises(PrerequisiteError, match="ConnectError"):
        text_of(engine)
    engine.close()
    with pytest.raises(PrerequisiteError, match="Expected http"):
        RemoteEngine("localhost:8000", "tiny")


def test_closing_ends_the_connection(server: Server, engine: RemoteEngine) -> None:
    server.plan = ["endless"]
    pieces = engine.stream(PROMPT, Sampling(10_000))
    next(pieces)
    pieces.close()
    time.sleep(0.2)
    at = server.sent
    time.sleep(0.2)
    assert server.sent == at < 200


def test_stop_texts_and_lengths_and_servers_that_do_not_stream(server: Server, engine: RemoteEngine) -> None:
    assert text_of(engine, Sampling(stop=("a disease",))) == "Asthma is "
    server.plan = ["length"]
    *_, last = engine.stream(PROMPT, Sampling())
    assert last.completion is not None
    assert last.completion.finish_reason == "length"
    server.plan = ["whole"]
    assert text_of(engine) == "".join(WORDS)


def test_completes_many_and_fails_alone(server: Server, engine: RemoteEngine) -> None:
    server.plan = ["404", "answer"]
    found = dict(engine.complete([PROMPT] * 6, max_new_tokens=8, batch_size=3))
    assert sorted(found) == list(range(6))
    reasons = sorted(completion.finish_reason for completion in found.values())
    assert reasons == ["error"] + ["stop"] * 5
    assert all(c.text == "".join(WORDS) for c in found.values() if c.finish_reason == "stop")
    assert list(engine.likelihood([], batch_size=1)) == []
