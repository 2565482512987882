"""The store, on SQLite and on a real PostgreSQL where there is one."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import delete, text, update

from medtune.errors import PrerequisiteError
from medtune.serving import store as module
from medtune.serving.scripted import ScriptedAssistant
from medtune.serving.store import Store, StoreError, conversations, feedback, messages, votes
from medtune.types import Message

from .conftest import app_of, running

A, B = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
TURNS = (Message("user", "My name is Jane Doe. Why am I tired?"),)
REPLY = ScriptedAssistant().stream(TURNS)
*_, LAST = REPLY
REPLY = LAST.reply


def mask(text: str) -> str:
    return re.sub("Jane Doe", "[NAME]", text)


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL of our own, or a skip that says why."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = shutil.which("pg_ctl") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    # PostgreSQL refuses to run as root; its package brings a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    if user and not any(entry.pw_name == user for entry in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = tempfile.mkdtemp(prefix="pg")
    if user:
        shutil.chown(folder, user)
    options = {"check": True, "user": user, "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data = f"{folder}/data"
    subprocess.run([Path(found).with_name("initdb"), "-D", data, "-A", "trust", "-U", "test"], **options)
    subprocess.run([found, "-D", data, "-o", f"-k {folder} -h '' -F", "-w", "start"], **options)
    yield f"postgresql+psycopg://test@/postgres?host={folder}"
    subprocess.run([found, "-D", data, "-m", "immediate", "-w", "stop"], **options)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request, tmp_path):
    is_sqlite = request.param == "sqlite"
    found = Store(f"sqlite:///{tmp_path}/chats.db" if is_sqlite else request.getfixturevalue("postgres"), mask)
    yield found
    with found._writing() as connection:
        connection.execute(delete(conversations))
    found.close()


def test_a_turn_is_one_row_per_message_and_masked(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    question, reply = store.rows(messages)
    assert (question["role"], question["content"]) == ("user", "My name is [NAME]. Why am I tired?")
    assert (reply["id"], reply["role"], reply["content"]) == (B, "assistant", REPLY.text)
    assert [question["position"], reply["position"]] == [0, 1]
    assert '"urgency": "routine"' in reply["facts"]


def test_a_conversation_goes_on_with_its_last_turn_alone(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    longer = (*TURNS, Message("assistant", REPLY.text), Message("user", "Is it contagious?"))
    store.add_turn(A, A, longer, REPLY, "tuned")
    assert [row["content"] for row in store.rows(messages)][2] == "Is it contagious?"
    assert [row["position"] for row in store.rows(messages)] == [0, 1, 2, 3]
    assert len(store.rows(conversations)) == 1


def test_the_same_reply_is_never_written_twice(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    with pytest.raises(StoreError):
        store.add_turn(A, B, TURNS, REPLY, "tuned")
    assert len(store.rows(messages)) == 2  # and nothing of the second attempt is left


def test_a_conversation_belongs_to_its_key(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned", "key1")
    with pytest.raises(StoreError, match="another key"):
        store.add_turn(A, A, TURNS, REPLY, "tuned", "key2")
    assert store.add_feedback(B, "up", consent=True, owner="key2") is None
    assert not store.delete(A, "key2")
    assert store.delete(A, "key1")


def test_feedback_hangs_on_the_message_and_is_masked(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    assert store.add_feedback(B, "up", consent=False)
    assert store.add_feedback(B, "down", "wrong", "Jane Doe needs iron.", consent=True)
    (row,) = store.rows(feedback)
    assert (row["message"], row["rating"], row["correction"], row["consent"]) == (B, "down", "[NAME] needs iron.", True)
    question = store.rows(messages)[0]["id"]
    assert store.add_feedback(question, "up", consent=True) is None  # a question is not rated
    assert store.add_feedback(A, "up", consent=True) is None


def test_deleting_takes_everything_along(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    store.add_feedback(B, "up", consent=True)
    store.add_vote(B, B, "left", is_blind=True)
    assert store.delete(A)
    assert not store.delete(A)
    assert [store.rows(table) for table in (conversations, messages, feedback, votes)] == [[], [], [], []]


def test_old_conversations_are_purged(store):
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    store.add_turn(B, A, TURNS, REPLY, "tuned")
    with store._writing() as connection:
        old = datetime.now(UTC) - timedelta(days=31)
        connection.execute(update(conversations).where(conversations.c.id == A).values(created=old))
    assert store.purge(30) == 1
    assert {row["conversation"] for row in store.rows(messages)} == {B}


def test_an_older_database_is_lifted_and_a_newer_one_refused(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/chats.db"
    Store(url, mask).close()

    def lift(connection) -> None:
        connection.execute(text("ALTER TABLE messages ADD COLUMN colour VARCHAR(8) DEFAULT 'red'"))

    monkeypatch.setattr(module, "MIGRATIONS", (lift,))
    for _ in range(2):  # the second time nothing is left to do
        Store(url, mask).close()
    with sqlite3.connect(tmp_path / "chats.db") as connection:
        assert connection.execute("SELECT version FROM medtune_schema").fetchall() == [(2,)]
        assert "colour" in {row[1] for row in connection.execute("PRAGMA table_info(messages)")}
    connection.close()
    monkeypatch.setattr(module, "MIGRATIONS", ())
    with pytest.raises(PrerequisiteError, match="newer medtune"):
        Store(url, mask)


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////nowhere/at/all.db", "oracle://x", "postgresql+psycopg://127.0.0.1:1/x"]
)
def test_a_database_that_cannot_be_opened_is_explained(url):
    with pytest.raises(PrerequisiteError, match="--store"):
        Store(url, mask)


def test_a_new_database_is_its_owners_alone_and_what_is_deleted_is_overwritten(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/chats.db", mask)
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("chats.db*")} == {0o600}
    store.delete(A)
    store.close()
    assert b"Why am I tired?" not in (tmp_path / "chats.db").read_bytes()


def test_what_is_deleted_is_overwritten_also_where_sqlite_was_built_otherwise():
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA secure_delete=OFF")
    module._prepare_sqlite(connection, None)
    assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)
    connection.close()


def test_sqlite_writes_ahead(tmp_path):
    Store(f"sqlite:///{tmp_path}/chats.db", mask).close()
    connection = sqlite3.connect(tmp_path / "chats.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def body(question: str, **more) -> dict:
    return {"model": "tuned", "messages": [{"role": "user", "content": question}], **more}


@pytest.fixture
def stored(tmp_path, assistant):
    def make():
        return app_of({"tuned": assistant}, store=Store(f"sqlite:///{tmp_path}/chats.db", mask))

    with running(make) as server, httpx.Client(base_url=server.url) as http:
        yield server.service.store, http


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_is_on_disk_before_it_is_acknowledged(stored, stream):
    store, http = stored
    shown = http.post("/v1/chat/completions", json=body("I am Jane Doe and tired", stream=stream)).text
    assert '"is_stored":true' in shown
    question, reply = store.rows(messages)
    assert reply["id"] in shown
    assert question["content"] == "I am [NAME] and tired"


def test_a_conversation_by_id_feedback_and_delete_over_http(stored):
    store, http = stored
    first = http.post("/v1/chat/completions", json=body("tired?")).json()
    metadata = {"conversation": first["medtune"]["conversation_id"]}
    http.post("/v1/chat/completions", json=body("contagious?", metadata=metadata))
    assert len(store.rows(conversations)) == 1
    sent = {"message_id": first["id"], "rating": "down", "reason": "wrong", "correction": "Iron.", "consent": True}
    done = http.post("/v1/feedback", json=sent)
    assert done.json()["message_id"] == first["medtune"]["message_id"]
    assert store.rows(feedback)[0]["correction"] == "Iron."
    assert http.post("/v1/feedback", json={**sent, "message_id": A}).status_code == 404
    assert http.post("/v1/feedback", json={**sent, "rating": "so-so"}).status_code == 400
    path = f"/v1/conversations/{metadata['conversation']}"
    assert http.delete(path).json()["deleted"]
    assert http.delete(path).status_code == 404
    assert store.rows(messages) == []


def test_a_conversation_of_an_uppercase_id_can_be_deleted(stored):
    store, http = stored
    id = "ABCDEF00-0000-4000-8000-00000000000A"
    http.post("/v1/chat/completions", json=body("tired?", metadata={"conversation": id}))
    assert store.rows(conversations)[0]["id"] == id.lower()
    assert http.delete(f"/v1/conversations/{id}").status_code == 200


def test_a_store_that_fails_keeps_the_reply_back_but_no_emergency(stored, caplog):
    store, http = stored
    with store._writing() as connection:
        connection.execute(text("ALTER TABLE messages RENAME TO gone"))
    response = http.post("/v1/chat/completions", json=body("tired?"))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
    assert int(response.headers["retry-after"]) > 0
    emergency = http.post("/v1/chat/completions", json=body("I have chest pain"))
    assert emergency.status_code == 200
    assert emergency.json()["medtune"]["is_stored"] is False
    assert "tired?" not in caplog.text
    with store._writing() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO messages"))
    assert http.post("/v1/chat/completions", json=body("tired?")).status_code == 200


def test_a_full_disk_keeps_whole_turns_and_goes_on_when_there_is_room(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/chats.db", str)
    with store._writing() as connection:
        connection.execute(text("PRAGMA max_page_count = 40"))
    turns, kept = (Message("user", "tired? " * 500),), []

    def fill() -> None:
        for number in range(1000):
            store.add_turn(f"{number:036}", f"{number:035}r", turns, REPLY, "tuned")
            kept.append(number)

    with pytest.raises(StoreError, match="full"):
        fill()
    assert len(store.rows(messages)) == 2 * len(kept) > 0
    with store._writing() as connection:
        connection.execute(text("PRAGMA max_page_count = 4000"))
    store.add_turn(A, B, TURNS, REPLY, "tuned")
    assert store.rows(messages)[-1]["id"] == B
    store.close()


def test_without_a_store_nothing_is_kept(server):
    response = httpx.post(server.url + "/v1/feedback", json={"message_id": A, "rating": "up"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "store_off")


KILLED = """
import sys
from medtune.serving.scripted import ScriptedAssistant
from medtune.serving.store import Store
from medtune.types import Message
import uuid
store = Store(sys.argv[1], str)
*_, last = ScriptedAssistant().stream([Message("user", "tired?")])
while True:
    id = str(uuid.uuid4())
    store.add_turn(str(uuid.uuid4()), id, [Message("user", "tired?")], last.reply, "tuned")
    print(id, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_and_doubles_nothing(tmp_path):
    url = f"sqlite:///{tmp_path}/chats.db"
    process = subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline().strip() for _ in range(30)]
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    acknowledged += [line for line in process.stdout.read().split("\n")[:-1] if line]
    process.wait()
    process.stdout.close()
    store = Store(url, str)
    rows = store.rows(messages)
    replies = [row["id"] for row in rows if row["role"] == "assistant"]
    assert set(acknowledged) <= set(replies)
    assert len(replies) == len(set(replies)) <= len(acknowledged) + 1
    assert len(rows) == 2 * len(replies)
    store.close()
