"""Conversations and feedback in a database: SQLite (write-ahead log) or PostgreSQL, by SQLAlchemy.

Covered: one row per message under its UUID, masked before it is written; feedback on a message; votes between two runs;
deleting a conversation; retention; the schema's version. Not covered: whether to store at all (the service's caller
decides; the default is not to) and turning feedback into training data.

Invariant: what `add_turn` returned from is on disk; what it did not return from is not there at all. A question and its
reply are written together. A new database gets today's tables; an older one is lifted by `MIGRATIONS`, whose entry n
lifts version n + 1 to n + 2; a newer one is refused.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from medtune.errors import MedtuneError, PrerequisiteError
from medtune.types import Message, Reply

Mask = Callable[[str], str]
Rating = Literal["up", "down"]

metadata = MetaData()
_id = String(36)
schema = Table("medtune_schema", metadata, Column("version", Integer, nullable=False))
conversations = Table(
    "conversations",
    metadata,
    Column("id", _id, primary_key=True),
    Column("owner", String(16), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False, index=True),
)
messages = Table(
    "messages",
    metadata,
    Column("id", _id, primary_key=True),
    Column("conversation", _id, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("model", String(200), nullable=False),
    Column("facts", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)
feedback = Table(
    "feedback",
    metadata,
    Column("id", _id, primary_key=True),
    Column("message", _id, ForeignKey("messages.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("rating", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("correction", Text, nullable=False),
    Column("consent", Boolean, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)
votes = Table(
    "votes",
    metadata,
    Column("id", _id, primary_key=True),
    Column("left", _id, ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("right", _id, ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("choice", String(8), nullable=False),
    Column("is_blind", Boolean, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = ()


class StoreError(MedtuneError, RuntimeError):
    """The database did not do what was asked; nothing of it was kept."""


class Store:
    """One database. Safe to use from several threads. `mask` is applied to every text before it is written."""

    def __init__(self, url: str, mask: Mask) -> None:
        """Raises PrerequisiteError: no such URL or driver, out of reach, made by a newer medtune."""
        try:
            self._engine = create_engine(url, pool_pre_ping=True)
            if make_url(url).get_backend_name() == "sqlite":
                _create_private(make_url(url).database or "")
                event.listen(self._engine, "connect", _prepare_sqlite)
            with self._engine.begin() as connection:
                _migrate(connection)
        except ImportError as error:
            raise PrerequisiteError(f"--store: {error}. Install the database's driver, such as psycopg.") from error
        except (ArgumentError, SQLAlchemyError) as error:
            raise PrerequisiteError(
                f"--store: the database cannot be opened ({_short(error)}). Give a URL such as sqlite:///chats.db or "
                "postgresql+psycopg://user@host/name."
            ) from error
        self._mask = mask

    def add_turn(
        self, conversation: str, id: str, turns: Sequence[Message], reply: Reply, model: str, owner: str = ""
    ) -> None:
        """Write what is new of `turns` (all of them in a new conversation, else the last) and the reply under `id`.

        Raises StoreError: out of reach, full, or a conversation that belongs to another owner.
        """
        now = datetime.now(UTC)
        with self._writing() as connection:
            known = connection.execute(select(conversations.c.owner).where(conversations.c.id == conversation)).scalar()
            if known is None:
                connection.execute(insert(conversations).values(id=conversation, owner=owner, created=now))
            elif known != owner:
                raise StoreError("The conversation belongs to another key.")
            of_it = messages.c.conversation == conversation
            count = connection.execute(select(func.count()).select_from(messages).where(of_it)).scalar_one()
            new: list[tuple[str, str, str, dict[str, Any]]] = [
                (str(uuid.uuid4()), turn.role, turn.content, {}) for turn in (turns[-1:] if count else turns)
            ]
            new.append((id, "assistant", reply.text, _facts(reply)))
            rows = [
                {
                    "id": key, "conversation": conversation, "position": count + at, "role": role, "model": model,
                    "content": self._mask(text), "facts": json.dumps(facts), "created": now,
                }
                for at, (key, role, text, facts) in enumerate(new)
            ]  # fmt: skip
            connection.execute(insert(messages), rows)

    def add_feedback(
        self, message: str, rating: Rating, reason: str = "", correction: str = "", *, consent: bool, owner: str = ""
    ) -> str | None:
        """Feedback on a reply, which replaces an earlier one; its id, or None where `owner` has no such reply."""
        with self._writing() as connection:
            if not self._has(connection, message, owner):
                return None
            connection.execute(delete(feedback).where(feedback.c.message == message))
            key = str(uuid.uuid4())
            row = {
                "id": key, "message": message, "rating": rating, "reason": self._mask(reason), "consent": consent,
                "correction": self._mask(correction), "created": datetime.now(UTC),
            }  # fmt: skip
            connection.execute(insert(feedback).values(row))
            return key

    def add_vote(self, left: str, right: str, choice: str, *, is_blind: bool) -> None:
        """Which of two replies was better: `left`, `right`, `both` or `none`."""
        row = {
            "id": str(uuid.uuid4()), "left": left, "right": right, "choice": choice, "is_blind": is_blind,
            "created": datetime.now(UTC),
        }  # fmt: skip
        with self._writing() as connection:
            connection.execute(insert(votes).values(row))

    def delete(self, conversation: str, owner: str = "") -> bool:
        """Delete a conversation with its messages and feedback; False where `owner` has none of that id."""
        mine = (conversations.c.id == conversation) & (conversations.c.owner == owner)
        with self._writing() as connection:
            return bool(connection.execute(delete(conversations).where(mine)).rowcount)

    def purge(self, days: float) -> int:
        """Delete conversations that began more than `days` ago; how many."""
        old = conversations.c.created < datetime.now(UTC) - timedelta(days=days)
        with self._writing() as connection:
            return connection.execute(delete(conversations).where(old)).rowcount

    def rows(self, table: Table) -> list[Mapping[str, Any]]:
        """Everything in one table, oldest first."""
        with self._writing() as connection:
            order = [table.c[name] for name in ("created", "position") if name in table.c]
            found = connection.execute(select(table).order_by(*order)).mappings().all()
            return [dict(row) for row in found]

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(_short(error)) from error

    def _has(self, connection: Connection, message: str, owner: str) -> bool:
        joined = messages.join(conversations, messages.c.conversation == conversations.c.id)
        mine = (messages.c.id == message) & (conversations.c.owner == owner) & (messages.c.role == "assistant")
        return connection.execute(select(messages.c.id).select_from(joined).where(mine)).first() is not None


def _facts(reply: Reply) -> dict[str, Any]:
    """What is kept of a reply beside its text: nothing that could quote the user."""
    return {
        "urgency": reply.urgency,
        "is_error": reply.is_error,
        "finish_reason": reply.finish_reason,
        "sources": [source.id for source in reply.sources],
        "verdicts": {v.guard: [v.verdict, round(v.score, 4), v.is_error] for v in reply.verdicts},
        "tokens": [reply.prompt_tokens, reply.completion_tokens],
    }


def _migrate(connection: Connection) -> None:
    newest = 1 + len(MIGRATIONS)
    if not inspect(connection).has_table(schema.name):
        metadata.create_all(connection)
        connection.execute(insert(schema).values(version=newest))
        return
    version = connection.execute(select(schema.c.version)).scalar_one()
    if version > newest:
        raise PrerequisiteError(
            f"--store: the database has version {version}, made by a newer medtune. Update medtune."
        )
    for lift in MIGRATIONS[version - 1 :]:
        lift(connection)
    connection.execute(update(schema).values(version=newest))


def _create_private(file: str) -> None:
    """A new database's file, which its owner alone may read; SQLite gives its log the same mode."""
    if file and not file.startswith((":memory:", "file:")):
        with suppress(OSError):  # it is there, or SQLite says what is wrong
            Path(file).touch(0o600, exist_ok=False)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _short(error: Exception) -> str:
    """The first line of the driver's own words: SQLAlchemy's message would repeat the row, and so the user's text."""
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200]
