"""Which conversations are for training, validation and test, and how much of the test the training split gives away.

Conversations about one topic, or with one prompt, form a group; groups go to one side as a whole, drawn by a hash of their
content and the seed. A held-out conversation whose answer is nearly repeated on another side is left out altogether: chaining
such answers into groups would merge most of a corpus (docs/decisions/0002-split.md). Order and machine change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medtune.data.features import Features, Hashes
from medtune.data.near import Ints, NearIndex, build, matches
from medtune.errors import DataError
from medtune.recipe import SplitSection

NAMES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST, LEFT_OUT = range(4)
LEAKING = "held out, but its answer nearly repeats one on another side"
SAMPLE = 5000  # test conversations that a leakage measurement looks at, at most


@dataclass(frozen=True)
class Split:
    """For each row its side (an index into NAMES, or LEFT_OUT), and the hash that names its group."""

    side: NDArray[np.int8]
    group: Hashes


def groups(features: Features) -> tuple[Ints, Hashes]:
    """Rows that share a topic or a prompt, directly or through others: a number per row, and a name per number."""
    n = len(features)
    rows, nodes, size = [], [], n
    for hashes in (features.topic, features.prompt):
        present = np.flatnonzero(hashes)
        values, inverse = np.unique(hashes[present], return_inverse=True)
        rows.append(present)
        nodes.append(inverse + size)
        size += len(values)
    links = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(links[0]), dtype=np.int8), links), shape=(size, size))
    label = np.unique(connected_components(graph, directed=False)[1][:n], return_inverse=True)[1]
    names = np.full(label.max(initial=-1) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(names, label, features.key)
    return label, names


def assign(features: Features, section: SplitSection, near_duplicate: float) -> Split:
    """Draw the sides. Raises DataError when nothing can be held out because all conversations hang together."""
    label, names = groups(features)
    sizes = np.bincount(label, minlength=len(names))
    side = np.zeros(len(features), dtype=np.int8)
    queue = np.argsort(_shuffled(names, section.seed), kind="stable")
    if len(names) > 1:
        queue = queue[queue != np.lexsort((names, -sizes))[0]]  # the largest group stays in train
    index = build(features.words, near_duplicate)
    for code, share in ((TEST, section.test), (VALIDATION, section.validation)):
        if share:
            drawn = _draw(index, label, queue[side[_first_rows(label, len(names))][queue] == TRAIN], side, code, share)
            if not drawn:
                raise DataError(
                    f"data.split.{NAMES[code]}: {share} of {len(features)} conversations in {len(names)} topics leaves none that can be "
                    f"held out whole. Set it higher, or give the source a finer topic."
                )
    return Split(side, names[label])


def _draw(index: NearIndex, label: Ints, queue: Ints, side: NDArray[np.int8], code: int, share: float) -> int:
    """Move groups from the front of `queue` to `code` until `share` of what remains is there. Returns their rows."""
    sizes = np.bincount(label)
    by_group = np.argsort(label, kind="stable")
    ends = np.cumsum(sizes)
    near: dict[int, Ints] = {}
    for largest in (0.1, 1.0):  # groups that would make up much of a side only where the others do not suffice
        while True:
            members = np.fromiter(near, dtype=np.int64, count=len(near))
            leaking = [
                row
                for row, others in near.items()
                if (side[others] != code).any() and (side[others][side[others] != code] != LEFT_OUT).any()
            ]
            available = len(label) - int((side == LEFT_OUT).sum()) - len(leaking)
            target = round(share * available)
            missing = target - (len(members) - len(leaking))
            chosen = []
            for group in queue.tolist():
                if missing <= 0:
                    break
                if sizes[group] <= min(missing, max(largest * target, 1)):
                    chosen.append(group)
                    missing -= sizes[group]
            if not chosen:
                break
            queue = queue[~np.isin(queue, chosen)]
            rows = np.concatenate([by_group[ends[group] - sizes[group] : ends[group]] for group in chosen])
            side[rows] = code
            near.update(matches(index, rows))
    side[np.array(leaking, dtype=np.int64)] = LEFT_OUT
    return len(members) - len(leaking)


def _first_rows(label: Ints, count: int) -> Ints:
    first = np.zeros(count, dtype=np.int64)
    first[label[::-1]] = np.arange(len(label))[::-1]
    return first


def _shuffled(names: Hashes, seed: int) -> Hashes:
    """A 64-bit mix (splitmix64) of each name and the seed: a random order that every machine agrees on."""
    z = names + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Leakage:
    """Shares of the test conversations: question verbatim in train, answer near-duplicated there, topic there."""

    questions: float | None
    answers: float
    topics: float | None
    measured: int


def random_sides(features: Features, split: Split, seed: int) -> NDArray[np.int8]:
    """What a plain random split of the same sizes would have done: the comparison in the leakage table."""
    side = split.side.copy()
    kept = np.flatnonzero(side != LEFT_OUT)
    order = kept[np.argsort(_shuffled(features.key[kept], seed), kind="stable")]
    side[order] = np.sort(side[kept])[::-1]
    return side


def leakage(features: Features, side: NDArray[np.int8], index: NearIndex, code: int = TEST) -> Leakage | None:
    """How much of one side stands in train; None when the side is empty. At most SAMPLE conversations are looked at."""
    held_out, train = np.flatnonzero(side == code), side == TRAIN
    if not len(held_out):
        return None
    held_out = held_out[np.argsort(_shuffled(features.key[held_out], 0), kind="stable")][:SAMPLE]
    repeated = sum(bool(train[near].any()) for _, near in matches(index, held_out))
    return Leakage(
        _shared(features.prompt, held_out, train),
        repeated / len(held_out),
        _shared(features.topic, held_out, train),
        len(held_out),
    )


def _shared(hashes: Hashes, held_out: Ints, train: NDArray[np.bool_]) -> float | None:
    """Of the held-out rows that have such a hash, the share whose hash is in train."""
    ours = hashes[held_out]
    ours = ours[ours != 0]
    return float(np.isin(ours, hashes[train]).mean()) if len(ours) else None
