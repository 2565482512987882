"""Keys: hashed in their file, revocable while a server runs, scoped, counted."""

from __future__ import annotations

import json

import httpx2 as httpx
import pytest

from medtune.errors import PrerequisiteError
from medtune.serving.gateway import Access, host_name, is_loopback
from medtune.serving.keys import Keys
from medtune.serving.limits import RateLimit

from .conftest import app_of, running

CHAT = {"model": "tuned", "messages": [{"role": "user", "content": "Why am I tired?"}]}


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys.json")


def test_a_key_is_kept_as_its_hash_alone(keys):
    key, text = keys.create("clinic")
    assert text.split("_", 2)[2] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o077 == 0
    assert keys.find(text) == key
    assert Keys(keys.path).find(text) == key


@pytest.mark.parametrize("text", ["", "mt", "mt__", "mt_00000000_x", "\udc80", "mt_\udc80_\udc80", "x" * 10_000])
def test_what_is_no_key_finds_none(keys, text):
    keys.create("clinic")
    assert keys.find(text) is None


def test_a_right_id_with_a_wrong_secret_finds_none(keys):
    _, text = keys.create("clinic")
    assert keys.find(text[:-1]) is None
    assert keys.find(text + "x") is None


def test_a_revoked_key_is_listed_and_finds_none(keys):
    key, text = keys.create("clinic")
    other = Keys(keys.path)
    assert other.find(text)
    keys.revoke(key.id)
    assert other.find(text) is None
    assert other.all()[0].revoked


def test_mistakes_are_explained(keys):
    with pytest.raises(PrerequisiteError, match="no key 'nope'"):
        keys.revoke("nope")
    with pytest.raises(PrerequisiteError, match="Scopes are chat, feedback, metrics"):
        keys.create("clinic", ("everything",))


def test_keys_over_http(keys, assistant):
    _, good = keys.create("clinic")
    key, monitor = keys.create("monitor", ("metrics",))
    with running(lambda: app_of({"tuned": assistant}, access=Access(keys))) as server, httpx.Client() as http:

        def ask(text: str | None, path: str = "/v1/chat/completions") -> httpx.Response:
            headers = {} if text is None else {"authorization": text}
            if path == "/metrics":
                return http.get(server.url + path, headers=headers)
            return http.post(server.url + path, json=CHAT, headers=headers)

        assert ask(f"Bearer {good}").status_code == 200
        assert ask(f"bearer {good}").status_code == 200
        for wrong in (None, "", "Bearer", f"Basic {good}", f"Bearer {good}x"):
            response = ask(wrong)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        assert ask(f"Bearer {monitor}").status_code == 403
        assert ask(f"Bearer {good}", "/metrics").status_code == 403
        assert ask(f"Bearer {monitor}", "/metrics").status_code == 200
        assert http.get(server.url + "/v1/models").status_code == 401
        assert http.get(server.url + "/healthz").status_code == 200
        keys.revoke(key.id)
        assert ask(f"Bearer {monitor}", "/metrics").status_code == 401


@pytest.mark.parametrize("per", ["per_key", "per_address"])
def test_rates_are_limited(keys, assistant, per):
    _, text = keys.create("clinic")
    access = Access(keys, **{per: RateLimit(2)})
    with running(lambda: app_of({"tuned": assistant}, access=access)) as server, httpx.Client() as http:
        headers = {"authorization": f"Bearer {text}"}
        responses = [http.post(server.url + "/v1/chat/completions", json=CHAT, headers=headers) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert 1 <= int(responses[-1].headers["retry-after"]) <= 30
        assert responses[-1].json()["error"]["code"] == "rate_limit_exceeded"


def test_a_bucket_fills_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("medtune.serving.limits.time.monotonic", lambda: now[0])
    limit = RateLimit(60)
    assert [limit.take("a") for _ in range(60)] == [0.0] * 60
    assert limit.take("a") == pytest.approx(1.0)
    assert limit.take("b") == 0.0
    now[0] = 1.01
    assert limit.take("a") == 0.0


def test_buckets_are_bounded(monkeypatch):
    monkeypatch.setattr("medtune.serving.limits.BUCKETS", 3)
    limit = RateLimit(1)
    for number in range(10):
        limit.take(str(number))
    assert len(limit._buckets) == 3


def test_which_hosts_are_loopback():
    assert [host for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8") if is_loopback(host)] == [
        "127.0.0.1", "localhost", "::1", "127.8.8.8",
    ]  # fmt: skip
    assert not [host for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "") if is_loopback(host)]
    assert [host_name(host) for host in ("a.b:80", "A.b", "[::1]:80", "")] == ["a.b", "a.b", "::1", ""]


def test_the_file_is_json(keys):
    keys.create("clinic")
    row = json.loads(keys.path.read_text())["keys"][0]
    assert set(row) == {"id", "name", "hash", "scopes", "created", "revoked"}
