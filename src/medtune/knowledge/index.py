"""The index on disk: passages, their names, and vectors of their questions and texts beside word statistics (BM25).

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
from medtune.knowledge.names import Names, names_of
from medtune.knowledge.passages import Entry, is_prose
from medtune.knowledge.words import words
from medtune.run_dir import hash_of, read_json, write_json, write_text
from medtune.types import Passage

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

VERSION = 3
"""Raised whenever the same passages would give another index."""
FIELDS = ("names", "questions", "texts")
ENCODED = ("questions", "texts")
ENCODED_WORDS = 75  # of a passage; the rest is found by its words
BATCH = 64
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """Distinct strings, and the passages that each belongs to.

    `keys[start[i]:start[i+1]]` are the strings of passage i, at least one; `vectors` is (strings, dimensions) or None.
    """

    start: NDArray[np.int32]
    keys: NDArray[np.int32]
    vectors: Floats | None

    def spread(self, scores: Floats) -> Floats:
        """The best score among each passage's strings: (strings,) -> (passages,)."""
        best: Floats = np.maximum.reduceat(scores[self.keys], self.start[:-1])
        return best


@dataclass(frozen=True)
class Index:
    """An open index. `manifest` holds `hash`, `passages`, `encoder`, `sources` and `licences`.

    By row (passage): `kinds` are numbers into `kind_names`; `is_prose` is False for lists of links and tables.
    """

    folder: Path
    manifest: dict[str, Any]
    fields: dict[str, Field]
    bm25: bm25s.BM25
    kind_names: list[str]
    kinds: NDArray[np.int16]
    is_prose: NDArray[np.bool_]
    encoder: Encoder | None

    def __len__(self) -> int:
        return len(self.kinds)

    @cached_property
    def names(self) -> Names:
        """The names field as weighted words, in the field's order."""
        strings = read_json(self.folder / "names" / "strings.json")
        ends, ids = self.bm25.scores["indptr"], self.bm25.vocab_dict

        def frequency(word: str) -> int:
            number = ids.get(word)
            return int(ends[number + 1] - ends[number]) if number is not None else 0

        return names_of(strings, len(self), frequency)

    def by_words(self, text: str) -> Floats:
        """BM25 of each passage, (passages,)."""
        numbers = self.bm25.get_tokens_ids(words(text))
        scores: Floats = self.bm25.get_scores_from_ids(numbers) if numbers else np.zeros(len(self), np.float32)
        return scores

    def by_meaning(self, field: str, vector: Floats) -> Floats:
        """The best cosine of `vector` to each passage's strings of `field`, (passages,)."""
        own = self.fields[field]
        assert own.vectors is not None  # an index with an encoder has them
        return own.spread(own.vectors @ vector)

    @cached_property
    def _titles(self) -> NDArray[np.int32]:
        """The number of each passage's title: the first of its names."""
        own = self.fields["names"]
        titles: NDArray[np.int32] = own.keys[own.start[:-1]]
        return titles

    def by_title(self, scores: Floats) -> Floats:
        """The best of `scores` (passages,) among the passages under the same title, for each passage."""
        best = np.full(int(self._titles.max()) + 1, -np.inf, np.float32)
        np.maximum.at(best, self._titles, scores)
        return best[self._titles]

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
        rows = np.flatnonzero(self._titles == self._titles[self.row_of[passage.id]])
        passages = [self.passage(int(row)) for row in rows]
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
        _write_fields(new, entries, earlier, encoder)
        _write_words(new, entries)
        ends = np.cumsum([0, *(len(line.encode()) + 1 for line in lines)], dtype=np.int64)
        np.save(new / "offsets.npy", ends)
        write_text(new / "entries.jsonl", "".join(line + "\n" for line in lines))
        write_json(new / "ids.json", [entry.passage.id for entry in entries])
        kinds = sorted({entry.kind for entry in entries})
        write_json(new / "kinds.json", kinds)
        np.save(new / "kinds.npy", np.array([kinds.index(entry.kind) for entry in entries], np.int16))
        np.save(new / "is_prose.npy", np.array([is_prose(entry.passage.text) for entry in entries]))
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
        raise RunDirError(
            f"{folder}: there is no index of this version. Build it: medtune knowledge build RECIPE --out {folder}"
        )
    found, wanted = manifest["encoder"], _describe(encoder)
    if found is not None and wanted is not None and found["fingerprint"] != wanted["fingerprint"]:
        raise RunDirError(
            f"{folder}: built with the encoder {found['name']} ({found['fingerprint']}), but {wanted['name']} "
            f"({wanted['fingerprint']}) is asked for; their vectors cannot be compared. Build the index again, or set "
            "assistant.knowledge.encoder to the one it was built with."
        )
    home = folder / manifest["hash"]
    encoder = encoder if found is not None else None
    try:
        index = Index(
            home,
            manifest,
            {name: _read_field(home / name, dense=encoder is not None and name in ENCODED) for name in FIELDS},
            bm25s.BM25.load(home / "bm25", mmap=True, show_progress=False),
            read_json(home / "kinds.json"),
            np.load(home / "kinds.npy"),
            np.load(home / "is_prose.npy"),
            encoder,
        )
        _ = index.names, index.row_of, index._lines  # read now: a later build takes this version's folder away
        return index
    except (OSError, ValueError) as error:
        raise RunDirError(f"{folder}: the index is damaged ({error}). Delete the folder and build it again.") from error


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


def _strings(entry: Entry) -> dict[str, list[str]]:
    """The strings of each field for one passage; its title and section stand in for a question that is missing."""
    passage = entry.passage
    heading = f"{passage.title} {passage.section}".strip()
    section = "" if passage.section in entry.questions else passage.section
    return {
        "names": list(dict.fromkeys((passage.title, *entry.names))),
        "questions": list(dict.fromkeys(entry.questions)) or [heading],
        "texts": [" ".join(f"{passage.title}. {section} {passage.text}".split()[:ENCODED_WORDS])],
    }


def _write_fields(new: Path, entries: Sequence[Entry], earlier: Path | None, encoder: Encoder | None) -> None:
    strings = [_strings(entry) for entry in entries]
    distinct = {field: list(dict.fromkeys(s for own in strings for s in own[field])) for field in FIELDS}
    with bar("encoding", sum(len(distinct[field]) for field in ENCODED) if encoder else 0) as step:
        for field in FIELDS:
            folder = new / field
            folder.mkdir()
            number = {string: n for n, string in enumerate(distinct[field])}
            write_json(folder / "strings.json", distinct[field])
            np.save(folder / "start.npy", np.cumsum([0, *(len(own[field]) for own in strings)], dtype=np.int32))
            np.save(folder / "keys.npy", np.array([number[s] for own in strings for s in own[field]], np.int32))
            if encoder is not None and field in ENCODED:
                known = _known_vectors(earlier and earlier / field)
                missing = [string for string in distinct[field] if string not in known]
                for _ in range(len(number) - len(missing)):
                    step()
                known |= dict(zip(missing, _encode(encoder, missing, step), strict=True))
                np.save(folder / "vectors.npy", np.stack([known[s] for s in distinct[field]]).astype(np.float32))


def _write_words(new: Path, entries: Sequence[Entry]) -> None:
    """One bag of words per passage: its names, questions, heading and text."""
    parts = (
        "\n".join((e.passage.title, *e.names, *(e.questions or (e.passage.section,)), e.passage.text)) for e in entries
    )
    bm25 = bm25s.BM25()
    bm25.index([words(part) or [""] for part in parts], show_progress=False)
    bm25.save(new / "bm25", show_progress=False)


def _known_vectors(folder: Path | None) -> dict[str, Floats]:
    if folder is None or not (folder / "vectors.npy").exists():
        return {}
    return dict(zip(read_json(folder / "strings.json"), np.load(folder / "vectors.npy"), strict=True))


def _read_field(folder: Path, *, dense: bool) -> Field:
    vectors = np.load(folder / "vectors.npy", mmap_mode="r") if dense else None
    return Field(np.load(folder / "start.npy"), np.load(folder / "keys.npy"), vectors)


def _encode(encoder: Encoder, strings: list[str], step: Callable[[], None]) -> Floats:
    """Like lengths together; in bfloat16 where the processor computes it (three times as fast, cosine > .9999)."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    is_fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    vectors = np.zeros((len(strings), encoder.dimensions), np.float32)
    order = sorted(range(len(strings)), key=lambda n: len(strings[n]))
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH]
        with torch.autocast("cpu", torch.bfloat16, enabled=is_fast):
            vectors[rows] = encoder.encode([strings[n] for n in rows], batch_size=BATCH)
        for _ in rows:
            step()
    return vectors
