"""A model behind a URL answers the same questions as everybody else, and is told from one that is away."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medtune.errors import PrerequisiteError, RecipeError
from medtune.evaluation import stage
from medtune.evaluation.endpoints import endpoints
from medtune.evaluation.runner import RecordFile, ask
from medtune.recipe_file import validate
from medtune.run_dir import RunDir, read_json, write_lines


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = body["messages"][-1]["content"]
        self.server.asked.append((question, body["max_tokens"], body["temperature"]))
        status = 400 if "refuse" in question else 200
        choice = {"message": {"role": "assistant", "content": f"An answer to {question}"}, "finish_reason": "stop"}
        text = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        del args


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.asked = []
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def recipe_for(port, **evaluate):
    endpoint = {"name": "prompted-8b", "url": f"http://127.0.0.1:{port}/v1", "model": "m"}
    section = {"systems": ["nearest"], "endpoints": [endpoint], "max_new_tokens": 9, "encoder": "none", **evaluate}
    section |= {"latency_questions": 1, "resamples": 100}
    sources = [{"layout": "chat", "path": "a"}]
    return validate({"name": "r", "model": {"base": "b"}, "data": {"sources": sources}, "evaluate": section}, "r")


def test_the_whole_stage_with_a_model_behind_a_url(server, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    for name, numbers in (("train", range(10)), ("validation", range(10, 14)), ("test", range(20, 26))):
        rows = [
            {"id": f"c{n}", "group": f"g{n}", "messages": [
                {"role": "user", "content": f"What is disease {n} ?"}, {"role": "assistant", "content": f"It is {n}."},
            ]} for n in numbers
        ]  # fmt: skip
        write_lines(run_dir.split(name), rows)
    stage.run(recipe_for(server.server_port), run_dir)
    found = read_json(run_dir.evaluation / "summary.json")
    assert list(found["systems"]) == ["nearest", "prompted-8b"]
    system = found["systems"]["prompted-8b"]
    assert system["counts"] == {"asked": 6, "scored": 6, "unanswered": 0, "unparsed": 0, "failed": 0, "likelihood": 0}
    assert system["metrics"]["perplexity"] is None
    assert system["metrics"]["stop_rate"]["value"] == 1
    assert system["cost"]["first_token_p50_seconds"] > 0
    questions = {question for question, *_ in server.asked}
    assert {f"What is disease {n} ?" for n in range(20, 26)} <= questions
    assert {(new, temperature) for question, new, temperature in server.asked[1:7]} == {(9, 0.0)}
    assert not [warning for warning in found["warnings"] if "likelihood" in warning]


def test_a_refused_question_is_counted_as_failed(server, conversation, tmp_path):
    (candidate,) = [
        ask(c.system, [conversation(1), conversation(2, "refuse this")], RecordFile(tmp_path / "r.jsonl"), 2)
        for c in endpoints(recipe_for(server.server_port))
    ]
    assert sorted(record.status for record in candidate) == ["failed", "scored"]


def test_a_server_that_is_away_is_told_before_the_questions(server):
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(PrerequisiteError, match=r"evaluate.endpoints, prompted-8b: .*does not answer"):
        list(endpoints(recipe_for(port)))


def test_an_endpoint_has_a_name_of_its_own():
    with pytest.raises(RecipeError, match="the name tuned stands for another system"):
        recipe_for(1, endpoints=[{"name": "tuned", "url": "http://x/v1", "model": "m"}])
