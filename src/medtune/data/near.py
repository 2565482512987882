"""Near-duplicate search: for one word set, every other whose Jaccard similarity reaches a threshold. Exact.

Two sets with Jaccard >= t share k words among the rarest `n - ceil(t n) + k` of each (prefix filtering: Chaudhuri et
al. 2006), so only these few words are indexed, and every candidate is verified on the whole sets. Results therefore
depend neither on the order of the rows nor on the machine. Words are 32-bit hashes; nothing holds the text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
WORD = re.compile(r"\w+")
_ROUNDING = 1e-9  # 0.8 x 5 must count as 4
_BLOCK = 1 << 14  # rows handled at once, which bounds the memory


@dataclass(frozen=True)
class WordSets:
    """Row i is `words[starts[i]:starts[i + 1]]`, hashes without repetition."""

    starts: Ints
    words: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Ints:
        return np.diff(self.starts)

    def __getitem__(self, row: int) -> NDArray[np.uint32]:
        return self.words[self.starts[row] : self.starts[row + 1]]

    def take(self, rows: Ints) -> WordSets:
        """Only these rows, in their order."""
        sizes = self.sizes[rows]
        return WordSets(np.append(0, np.cumsum(sizes)), self.words[_ranges(self.starts[rows], sizes)])


def word_hashes(words: Iterable[str]) -> array[int]:
    """One hash per distinct word."""
    return array("I", map(crc32, " ".join(set(words)).encode().split()))


def word_sets(texts: Iterable[str]) -> WordSets:
    """The word sets of `texts`, case folded."""
    hashes = [word_hashes(WORD.findall(text.casefold())) for text in texts]
    flat = array("I")
    for item in hashes:
        flat.extend(item)
    return WordSets(
        np.append(0, np.cumsum([len(item) for item in hashes], dtype=np.int64)), np.frombuffer(flat, np.uint32)
    )


@dataclass(frozen=True)
class NearIndex:
    """Word sets, rarest word first, and for the words in their prefixes the rows:
    `rows[postings[i]:postings[i + 1]]` hold `vocabulary[i]`."""

    sets: WordSets
    threshold: float
    vocabulary: NDArray[np.uint32]
    postings: Ints
    rows: NDArray[np.int32]


def build(sets: WordSets, threshold: float) -> NearIndex:
    """Index `sets` for `matches`. The words of each row are put into another order, in place."""
    _sort_rarest_first(sets)
    lengths = _prefixes(sets.sizes, threshold)
    words = sets.words[_ranges(sets.starts[:-1], lengths)]
    order = np.argsort(words, kind="stable")
    rows = np.repeat(np.arange(len(sets), dtype=np.int32), lengths)[order]
    vocabulary, first = np.unique(words[order], return_index=True)
    return NearIndex(sets, threshold, vocabulary, np.append(first, len(words)), rows)


def matches(index: NearIndex, queries: Ints) -> Iterator[tuple[int, Ints]]:
    """For each query row, in the given order, the other rows with Jaccard >= threshold (in no fixed order).

    Rows without words match nothing.
    """
    sets, limit = index.sets, index.threshold
    mark = np.zeros(1 << 16, dtype=bool)
    for begin in range(0, len(queries), _BLOCK):
        block = queries[begin : begin + _BLOCK]
        lengths = _prefixes(sets.sizes[block], limit)
        words = sets.words[_ranges(sets.starts[block], lengths)]
        places = np.searchsorted(index.vocabulary, words)
        ends = np.cumsum(lengths)
        for query, end, length in zip(block.tolist(), ends.tolist(), lengths.tolist(), strict=True):
            lists = [index.rows[index.postings[p] : index.postings[p + 1]] for p in places[end - length : end].tolist()]
            candidates = _frequent(index, query, np.concatenate(lists)) if lists else np.empty(0, np.int32)
            chunks = [candidates[start : start + _BLOCK] for start in range(0, len(candidates), _BLOCK)]
            yield query, np.concatenate([np.empty(0, np.int64), *(_verified(index, query, c, mark) for c in chunks)])


def _frequent(index: NearIndex, query: int, found: NDArray[np.int32]) -> NDArray[np.int32]:
    """The rows that share enough prefix words with the query: as many as the shorter of the two overlaps demands."""
    candidates, shared = np.unique(found, return_counts=True)
    sizes = index.sets.starts[candidates + 1] - index.sets.starts[candidates]
    own = int(index.sets.starts[query + 1] - index.sets.starts[query])
    return candidates[shared >= _demanded(np.minimum(sizes, own))]


def _verified(index: NearIndex, query: int, candidates: NDArray[np.int32], mark: NDArray[np.bool_]) -> Ints:
    """The candidates that reach the threshold. `mark` is all False, and is so again afterwards."""
    sets, limit = index.sets, index.threshold
    own = np.sort(sets[query])
    rows: Ints = candidates[candidates != query].astype(np.int64)
    sizes = sets.starts[rows + 1] - sets.starts[rows]
    fits = (sizes >= limit * len(own) - _ROUNDING) & (sizes * limit <= len(own) + _ROUNDING)
    rows, sizes = rows[fits], sizes[fits]

    def exact(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
        return np.asarray(own[np.minimum(np.searchsorted(own, words), len(own) - 1)] == words)

    # The 65,536 marks stay in the cache; their hits are a superset, so that few rows are left to compare exactly.
    mark[own & 0xFFFF] = True
    for is_shared in (lambda words: mark[words & 0xFFFF], exact):
        if len(rows):
            words = sets.words[_ranges(sets.starts[rows], sizes)]
            shared = np.add.reduceat(is_shared(words), np.cumsum(sizes) - sizes, dtype=np.int64)
            enough = shared * (1 + limit) >= limit * (sizes + len(own)) - _ROUNDING
            rows, sizes = rows[enough], sizes[enough]
    mark[own & 0xFFFF] = False
    return rows


def _demanded(sizes: Ints) -> Ints:
    """How many words two prefixes must share. More than one, since long rows share some rare word by chance."""
    return 1 + sizes // 20


def _prefixes(sizes: Ints, threshold: float) -> Ints:
    """How many of its rarest words a row is indexed by; see the module's docstring, where k is `_demanded`."""
    lengths: Ints = sizes - np.ceil(threshold * sizes - _ROUNDING).astype(np.int64) + _demanded(sizes)
    return np.where(sizes > 0, np.minimum(lengths, sizes), 0)


def _sort_rarest_first(sets: WordSets) -> None:
    """Sort each row in place by how often its words occur, then by hash: one total order for all rows."""
    blocks = [slice(row, row + _BLOCK) for row in range(0, len(sets), _BLOCK)]
    spans = [slice(*sets.starts[[block.start, min(block.stop, len(sets))]].tolist()) for block in blocks]
    mask = (1 << min(len(sets.words).bit_length(), 22)) - 1  # how rare a word is need only be estimated
    counts = np.zeros(mask + 1, dtype=np.int64)
    for span in spans:
        counts += np.bincount(sets.words[span] & mask, minlength=mask + 1)
    rarity = np.minimum(counts, (1 << 18) - 1).astype(np.uint64) << np.uint64(32)
    for block, span in zip(blocks, spans, strict=True):
        sizes, words = sets.sizes[block], sets.words[span]
        owner = np.repeat(np.arange(len(sizes), dtype=np.uint64) << np.uint64(50), sizes)
        sets.words[span] = np.sort(owner | rarity[words & mask] | words) & np.uint64(0xFFFFFFFF)


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """The concatenation of `arange(start, start + length)` over all pairs."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    ranges: Ints = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)
    return ranges
