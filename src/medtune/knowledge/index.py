"""The index on disk: passages, and for each of three fields its strings, word statistics (BM25) and vectors.

Covered: building with a progress bar, reuse of what has not changed, opening memory-mapped, refusing a foreign encoder.
Not covered: which passages there are (`passages`) and how they are found (`search`).

A field is a list of distinct strings and the passages that each belongs to: `names` (titles and synonyms), `questions`,
and `texts`. An index lies in a folder of its own version below `folder`; the manifest, written last, names it. A build
that was cut off therefore leaves the earlier index as it was.
"""

from __future__ import annotations

import json
import logging
import mmap
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bm25s
import numpy as np
from numpy.typing import NDArray

from medtune.data.progress import bar
from medtune.errors import DataError, RunDirError
from medtune.knowledge.passages import Entry
from medtune.knowledge.words import words
from medtune.run_dir import hash_of, read_json, write_json, write_text
from medtune.types import Passage

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

VERSION = 1
"""Raised whenever the same passages would give another index."""
FIELDS = ("names", "questions", "texts")
ENCODED_WORDS = 70  # of a passage; the rest is found by its words
BATCH = 64
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """Distinct strings, and the passages that each belongs to.

    `keys[start[i]:start[i+1]]` are the strings of passage i, at least one; `vectors` is (strings, dimensions) or None.
    """

    strings: list[str]
    start: NDArray[np.int32]
    keys: NDArray[np.int32]
    bm25: bm25s.BM25
    vectors: Floats | None

    def spread(self, scores: Floats) -> Floats:
        """The best score among each passage's strings: (strings,) -> (passages,)."""
        best: Floats = np.maximum.reduceat(scores[self.keys], self.start[:-1])
        return best

    def by_words(self, tokens: Sequence[str]) -> Floats:
        """BM25 of each string for a query's words."""
        ids = self.bm25.get_tokens_ids(list(tokens))
        scores: Floats = self.bm25.get_scores_from_ids(ids) if ids else np.zeros(len(self.strings), np.float32)
        return scores

    def by_meaning(self, queries: Floats) -> Floats:
        """Cosine of each string to the nearest of `queries` (n, dimensions); zeros without vectors."""
        if self.vectors is None or not len(queries):
            return np.zeros(len(self.strings), np.float32)
        best: Floats = (self.vectors @ queries.T).max(1)
        return best


@dataclass(frozen=True)
class Index:
    """An open index. `manifest` holds `hash`, `passages`, `encoder`, `sources` and `licences`."""

    folder: Path
    manifest: dict[str, Any]
    fields: dict[str, Field]
    kinds: list[str]
    encoder: Encoder | None

    def __len__(self) -> int:
        return len(self.kinds)

    @cached_property
    def _lines(self) -> tuple[mmap.mmap, NDArray[np.int64]]:
        with open(self.folder / "entries.jsonl", "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.load(self.folder / "offsets.npy")

    def entry(self, row: int) -> Entry:
        """The passage in row `row` with its names and questions."""
        lines, offsets = self._lines
        return _entry(json.loads(lines[offsets[row] : offsets[row + 1]]))

    def passage(self, row: int) -> Passage:
        return self.entry(row).passage

    @cached_property
    def row_of(self) -> dict[str, int]:
        """From a passage's id to its row."""
        return {name: row for row, name in enumerate(read_json(self.folder / "ids.json"))}

    def related(self, passage: Passage) -> list[Passage]:
        """All passages under the same title of the same source, in the order of the source, itself among them."""
        names = self.fields["names"]
        row = self.row_of[passage.id]
        key = names.keys[names.start[row]]  # the title comes first
        owners = np.searchsorted(names.start, np.flatnonzero(names.keys == key), side="right") - 1
        passages = [self.passage(int(owner)) for owner in owners]
        return [p for p in passages if (p.title, p.source) == (passage.title, passage.source)]


def build(entries: Sequence[Entry], folder: Path, encoder: Encoder | None) -> dict[str, Any]:
    """Write the index of `entries` into `folder`; what an index there already holds is not encoded again.

    Returns the manifest. An index that is up to date is left alone. Raises DataError without entries, RunDirError when
    `folder` holds something else or cannot be written.
    """
    if not entries:
        raise DataError("There is no passage to index. Name a source in assistant.knowledge.sources.")
    lines = [json.dumps(asdict(entry), ensure_ascii=False, sort_keys=True) for entry in entries]
    described = _describe(encoder)
    name = hash_of(VERSION, ENCODED_WORDS, described, lines)
    old = _old(folder)
    if old is not None and old["hash"] == name and (folder / name).is_dir():
        return old
    try:
        new = folder / name
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        earlier = folder / old["hash"] if old is not None and old["encoder"] == described else None
        strings = _strings(entries)
        encode = _encode_with(encoder)
        with bar("encoding", sum(len(set(s)) for field in strings.values() for s in field) if encoder else 0) as step:
            for field in FIELDS:
                _write_field(new / field, strings[field], earlier and earlier / field, encode, step)
        ends = np.cumsum([0, *(len(line.encode()) + 1 for line in lines)], dtype=np.int64)
        np.save(new / "offsets.npy", ends)
        write_text(new / "entries.jsonl", "".join(line + "\n" for line in lines))
        write_json(new / "kinds.json", [entry.kind for entry in entries])
        write_json(new / "ids.json", [entry.passage.id for entry in entries])
        manifest = {
            "version": VERSION,
            "hash": name,
            "passages": len(entries),
            "encoder": described,
            "sources": _counted([entry.passage.source for entry in entries]),
            "licences": _counted([entry.passage.licence or "not stated" for entry in entries]),
        }
        write_json(folder / "manifest.json", manifest)
    except OSError as error:
        raise RunDirError(f"{folder}: cannot be written ({error.strerror}). Free space or choose another.") from error
    for other in folder.iterdir():
        if other.is_dir() and other.name != name and (other / "offsets.npy").exists():
            shutil.rmtree(other, ignore_errors=True)
    return manifest


def open_index(folder: Path, encoder: Encoder | None) -> Index:
    """The index in `folder`, its arrays memory-mapped. Without `encoder` it is searched by words alone.

    Raises RunDirError for a folder without an index, and for one that was built with another encoder.
    """
    manifest = _old(folder)
    if manifest is None:
        raise RunDirError(f"{folder}: there is no index. Build it: medtune knowledge build RECIPE --out {folder}")
    found, wanted = manifest["encoder"], _describe(encoder)
    if found is not None and wanted is not None and found["fingerprint"] != wanted["fingerprint"]:
        raise RunDirError(
            f"{folder}: built with the encoder {found['name']} ({found['fingerprint']}), but {wanted['name']} "
            f"({wanted['fingerprint']}) is asked for; their vectors cannot be compared. Build the index again, or set "
            "assistant.knowledge.encoder to the one it was built with."
        )
    home = folder / manifest["hash"]
    try:
        fields = {name: _read_field(home / name, dense=encoder is not None) for name in FIELDS}
        kinds = read_json(home / "kinds.json")
    except (OSError, ValueError) as error:
        raise RunDirError(f"{folder}: the index is damaged ({error}). Delete the folder and build it again.") from error
    return Index(home, manifest, fields, kinds, encoder if found is not None else None)


def _old(folder: Path) -> dict[str, Any] | None:
    """The manifest in `folder`, or None where it is empty, missing or of another version."""
    path = folder / "manifest.json"
    if not path.exists():
        if folder.is_dir() and any(f.name not in (".lock",) and not (f / FIELDS[0]).is_dir() for f in folder.iterdir()):
            raise RunDirError(f"{folder}: this folder is not empty and holds no index. Choose another.")
        return None
    manifest: dict[str, Any] = read_json(path)
    if not {"version", "hash", "encoder"} <= manifest.keys():
        raise RunDirError(f"{folder}: this is not an index (its manifest.json is another one). Choose another folder.")
    return manifest if manifest["version"] == VERSION else None


def _describe(encoder: Encoder | None) -> dict[str, Any] | None:
    if encoder is None:
        return None
    return {"name": encoder.name, "fingerprint": encoder.fingerprint, "dimensions": encoder.dimensions}


def _counted(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in dict.fromkeys(values)}


def _entry(line: dict[str, Any]) -> Entry:
    passage = Passage(**line["passage"])
    return replace(Entry(passage), names=tuple(line["names"]), questions=tuple(line["questions"]), kind=line["kind"])


# Fields --------------------------------------------------------------------------------------------------------------


def _strings(entries: Sequence[Entry]) -> dict[str, list[list[str]]]:
    """The strings of each field by passage; the title stands in for a question that is missing."""
    return {
        "names": [list(dict.fromkeys((e.passage.title, *e.names))) for e in entries],
        "questions": [list(dict.fromkeys(e.questions)) or [f"{e.passage.title} {e.passage.section}"] for e in entries],
        "texts": [[f"{e.passage.title}. {e.passage.section}\n{e.passage.text}"] for e in entries],
    }


def _write_field(
    folder: Path,
    strings: list[list[str]],
    earlier: Path | None,
    encode: Callable[[list[str], Callable[[], None]], Floats] | None,
    step: Callable[[], None],
) -> None:
    distinct = {string: number for number, string in enumerate(dict.fromkeys(s for own in strings for s in own))}
    folder.mkdir()
    write_json(folder / "strings.json", list(distinct))
    np.save(folder / "start.npy", np.cumsum([0, *map(len, strings)], dtype=np.int32))
    np.save(folder / "keys.npy", np.array([distinct[s] for own in strings for s in own], np.int32))
    bm25 = bm25s.BM25(csc_backend="numpy")
    bm25.index([words(string) or [""] for string in distinct], show_progress=False)
    bm25.save(folder / "bm25", show_progress=False)
    if encode is not None:
        known = _known_vectors(earlier)
        new = [string for string in distinct if string not in known]
        known |= dict(zip(new, encode(new, step), strict=True))
        np.save(folder / "vectors.npy", np.stack([known[string] for string in distinct]).astype(np.float32))


def _known_vectors(folder: Path | None) -> dict[str, Floats]:
    if folder is None or not (folder / "vectors.npy").exists():
        return {}
    return dict(zip(read_json(folder / "strings.json"), np.load(folder / "vectors.npy"), strict=True))


def _read_field(folder: Path, *, dense: bool) -> Field:
    path = folder / "vectors.npy"
    return Field(
        read_json(folder / "strings.json"),
        np.load(folder / "start.npy"),
        np.load(folder / "keys.npy"),
        bm25s.BM25.load(folder / "bm25", mmap=True, show_progress=False),
        np.load(path, mmap_mode="r") if dense and path.exists() else None,
    )


def _encode_with(encoder: Encoder | None) -> Callable[[list[str], Callable[[], None]], Floats] | None:
    """Encodes strings cut to their first words, like lengths together; in bfloat16 where the processor computes it."""
    if encoder is None:
        return None
    import torch

    capabilities = torch.cpu.get_capabilities()
    is_fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

    def encode(strings: list[str], step: Callable[[], None]) -> Floats:
        vectors = np.zeros((len(strings), encoder.dimensions), np.float32)
        short = [" ".join(string.split()[:ENCODED_WORDS]) for string in strings]
        order = sorted(range(len(short)), key=lambda i: len(short[i]))
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            with torch.autocast("cpu", torch.bfloat16, enabled=is_fast):
                vectors[rows] = encoder.encode([short[i] for i in rows], batch_size=BATCH)
            for _ in rows:
                step()
        return vectors

    return encode
