"""The data stage: sources in, files of conversations and the data card out.

The rows stream by once: each is converted, cleaned and put into a spool file, and only its hashes stay in memory
(`features`). Duplicates and the split are decided on those; then the spool is copied into train, validation and test
(and test_seen). Nothing is left half-written: the files and the card appear together at the end.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, Any

import numpy as np

from medtune.data import card, collect, duplicates, split
from medtune.data.convert import LAYOUTS
from medtune.data.files import local_files
from medtune.data.near import build
from medtune.data.progress import bar
from medtune.data.sources import local_path
from medtune.errors import DataError, RunDirError
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, hash_of, read_lines, write_json
from medtune.types import Conversation

VERSION = 1
"""Raised whenever the same sources would give other files, so that finished runs are not taken for up to date."""


def fingerprint(recipe: Recipe) -> str:
    """Changes when the recipe's sources, cleaning or split change, or a local source's files do."""
    files = []
    for source in recipe.data.sources:
        path = local_path(source)
        for file in local_files(path) if path is not None and path.exists() else []:
            status = file.stat()
            files.append((str(file), status.st_size, status.st_mtime_ns))
    return hash_of(VERSION, recipe.data.model_dump(include={"sources", "clean", "split"}), files)


def run(recipe: Recipe, run_dir: RunDir) -> None:
    """Write `run_dir.split(...)` and `data_card.json`, and print the leakage table.

    Raises DataError (a source is wrong, too many broken rows, nothing left), PrerequisiteError or RunDirError, and
    leaves what an earlier run wrote as it was.
    """
    spool_path = run_dir.data / ".spool.tmp"
    try:
        run_dir.data.mkdir(parents=True, exist_ok=True)
        with open(spool_path, "w+b") as spool:
            collected = collect.collect(recipe.data, spool)
            features = collected.features
            if not len(features):
                raise DataError(
                    f"data.sources: no conversation is left after cleaning. Dropped: {collected.reasons()}."
                )
            index = build(features.words, recipe.data.clean.near_duplicate)
            verdict = duplicates.find(features, recipe.data.clean)
            parts = split.assign(features, index, verdict == 0, recipe.data.split)
            _note(collected, spool, verdict, dict(enumerate(duplicates.REASONS, 1)))
            _note(collected, spool, parts.side, {split.LEAKING: split.LEAKING_REASON})
            content = card.build_card(recipe, collected, parts, index, spool)
            _write(run_dir, spool, parts, split.written(recipe.data.split))
    except OSError as error:  # a source's own are DataErrors by now
        reason = error.strerror or error
        raise RunDirError(
            f"{run_dir.data}: cannot be written ({reason}). Free space or choose another --out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            spool_path.unlink(missing_ok=True)
    write_json(run_dir.data / "data_card.json", content)
    card.show(content)


def load_split(run_dir: RunDir, name: str) -> list[Conversation]:
    """The conversations of one of `split.NAMES`. Raises RunDirError when the stage has not written it."""
    return [collect.conversation_of(line) for line in read_lines(run_dir.split(name))]


def describe_layouts() -> list[tuple[str, str, str, str]]:
    """Name, columns (optional ones in brackets), an example, and where such data comes from."""
    return [
        (
            name,
            ", ".join([*layout.columns, *(f"[{column}]" for column in layout.optional)]),
            layout.example,
            layout.origin,
        )
        for name, layout in LAYOUTS.items()
    ]


def _note(collected: collect.Collected, spool: IO[bytes], codes: Any, reasons: dict[int, str]) -> None:
    """Count the rows that carry one of `reasons`, each with its first row as the example."""
    features = collected.features
    for code, reason in reasons.items():
        rows = np.flatnonzero(codes == code)
        if len(rows):
            conversation = collect.read_at(spool, int(features.offset[rows[0]]))
            example = collect.Example(
                collected.files[features.file[rows[0]]], int(features.number[rows[0]]), collect.shortened(conversation)
            )
            collected.dropped[reason] = collect.Dropped(len(rows), example)


def _write(run_dir: RunDir, spool: IO[bytes], parts: split.Split, names: tuple[str, ...]) -> None:
    """Copy each kept line of the spool to its split, with its group; a split that is not asked for any more goes."""
    temporary = [run_dir.data / f".{name}.jsonl.tmp" for name in names]
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(path, "wb")) for path in temporary]
            spool.seek(0)
            with bar("writing", len(parts.side)) as advance:
                for line, code, name in zip(spool, parts.side.tolist(), parts.group.tolist(), strict=True):
                    if code < len(files):
                        files[code].write(line.rstrip()[:-1] + f', "group": "{name:016x}"}}\n'.encode())
                    advance()
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for path, name in zip(temporary, names, strict=True):
            os.replace(path, run_dir.split(name))
        for name in split.NAMES[len(names) :]:
            run_dir.split(name).unlink(missing_ok=True)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
