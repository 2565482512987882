"""Keys of the API: made, listed and revoked in one JSON file that holds their hashes alone.

Covered: creating, finding in constant time, scopes, revoking while a server runs. Not covered: how often a key may ask
(`limits`). A key is `mt_<id>_<secret>` with 256 random bits, so one SHA-256 is as good as a slow hash: nothing can be
guessed. The key itself is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from medtune.errors import PrerequisiteError
from medtune.run_dir import read_json, write_json

SCOPES = ("chat", "feedback", "metrics")


@dataclass(frozen=True)
class Key:
    """A key as it is stored. `created` and `revoked` are UTC; `revoked` is empty while the key is good."""

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    created: str
    revoked: str = ""


class Keys:
    """The keys of one file, read again whenever the file has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}

    def all(self) -> tuple[Key, ...]:
        """Every key, in the order of their making; none where the file does not exist."""
        self._refresh()
        return tuple(self._keys.values())

    def create(self, name: str, scopes: tuple[str, ...] = SCOPES[:2]) -> tuple[Key, str]:
        """A new key and, for the only time, its text. Raises PrerequisiteError on a scope that does not exist."""
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise PrerequisiteError(f"No such scope: {', '.join(unknown)}. Scopes are {', '.join(SCOPES)}.")
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        text = f"mt_{id}_{secret}"
        key = Key(id, name, _hash(text), tuple(scopes), _now())
        self._write((*self.all(), key))
        return key, text

    def revoke(self, id: str) -> Key:
        """End a key; it stays in the list. Raises PrerequisiteError where there is no such id."""
        keys = {key.id: key for key in self.all()}
        if id not in keys:
            raise PrerequisiteError(f"There is no key {id!r} in {self.path}. Known: {', '.join(keys) or 'none'}.")
        keys[id] = Key(**{**asdict(keys[id]), "revoked": keys[id].revoked or _now()})
        self._write(tuple(keys.values()))
        return keys[id]

    def find(self, text: str) -> Key | None:
        """The good key that `text` is. An unknown id takes as long as a wrong secret."""
        self._refresh()
        parts = text.split("_", 2)
        key = self._keys.get(parts[1]) if len(parts) == 3 else None
        is_same = hmac.compare_digest(key.hash if key else _hash(""), _hash(text))
        return key if key and is_same and not key.revoked else None

    def _refresh(self) -> None:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
            return
        stamp = (facts.st_mtime_ns, facts.st_ino)
        if stamp != self._stamp:
            rows = read_json(self.path)["keys"]
            self._keys = {row["id"]: Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows}
            self._stamp = stamp

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_json(self.path, {"keys": [asdict(key) for key in keys]})
        self.path.chmod(0o600)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
