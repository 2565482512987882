"""Which runs of words some texts share with the files of a folder: how copied sentences are found.

Covered: every file that the data stage reads, archives in place; case, punctuation and apostrophes do not count.
Not covered: a sentence put into other words. The folder streams by; only the texts' own runs stay in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.data.files import BROKEN, damaged, open_files
from medtune.data.formats import READERS, rows_of

_WORD = re.compile(r"\w+")
_APOSTROPHE = re.compile("['’]")
_CHUNK = 1 << 20  # words handled at once, which bounds the memory
_PRIME = np.uint64(1099511628211)

Hashes = NDArray[np.uint64]


def shared_runs(texts: Sequence[str], folder: Path, words: int) -> list[tuple[int, str, str]]:
    """Runs of at least `words` words that stand in one of `texts` and in a file of `folder`.

    Each comes with the text's number and the first file that holds a part of it. Raises DataError where `folder` holds
    no file that can be read.
    """
    tokens = [_APOSTROPHE.sub("", text).split() for text in texts]
    tokens = [[word for part in parts for word in _WORD.findall(part)] for parts in tokens]
    vocabulary: dict[str, int] = {}
    for text in tokens:
        for word in text:
            vocabulary.setdefault(word.casefold(), len(vocabulary) + 1)
    hashes = [_windows(_numbers(text, vocabulary), words) for text in tokens]
    own = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
    if not len(own):
        return []
    found: dict[int, str] = {}
    for name, numbers in _streamed(folder, vocabulary):
        windows = _windows(numbers, words)
        places = np.searchsorted(own, windows)  # `own` is sorted
        for shared in windows[own.take(places, mode="clip") == windows].tolist():
            found.setdefault(shared, name)
    return [
        (number, run, file)
        for number, (text, windows) in enumerate(zip(tokens, hashes, strict=True))
        for run, file in _merged(text, [found.get(window) for window in windows.tolist()], words)
    ]


def _numbers(text: Sequence[str], vocabulary: dict[str, int]) -> Hashes:
    """Each word's number; 0 for a word that no text of ours has."""
    return np.array([vocabulary.get(word.casefold(), 0) for word in text], dtype=np.uint64)


def _windows(numbers: Hashes, words: int) -> Hashes:
    """A hash per window of `words` numbers; 0 where one of them is 0."""
    count = len(numbers) - words + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashes, known = np.zeros(count, np.uint64), np.ones(count, bool)
    for offset in range(words):
        part = numbers[offset : offset + count]
        hashes = hashes * _PRIME + part
        known &= part > 0
    return np.where(known, hashes, np.uint64(0))


def _streamed(folder: Path, vocabulary: dict[str, int]) -> Iterator[tuple[str, Hashes]]:
    """The words of the folder's files as numbers, chunk by chunk, a 0 between two texts."""
    for file in open_files(folder, tuple(READERS)):
        chunk: list[int] = []
        try:
            for row in rows_of(file):
                for text in _strings(dict(row.values)):
                    chunk += map(vocabulary.get, _WORD.findall(_APOSTROPHE.sub("", text).casefold()), repeat(0))
                    chunk.append(0)
                if len(chunk) > _CHUNK:
                    yield file.name, np.array(chunk, dtype=np.uint64)
                    chunk = []
        except BROKEN as error:
            raise damaged(file.name, error) from error
        yield file.name, np.array(chunk, dtype=np.uint64)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _merged(text: Sequence[str], files: Sequence[str | None], words: int) -> Iterator[tuple[str, str]]:
    """Neighbouring windows that were found, as one run of words."""
    start = 0
    while start < len(files):
        file = files[start]
        if file is None:
            start += 1
            continue
        end = start
        while end < len(files) and files[end] is not None:
            end += 1
        yield " ".join(text[start : end + words - 1]), file
        start = end
