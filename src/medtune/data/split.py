"""Which conversations are for training, validation and test, and how much of the test the training split gives away.

Conversations about one topic, or with one prompt, form a group; groups go to one side as a whole, drawn by a hash of
their content and the seed. A held-out conversation whose answer is nearly repeated on another side is left out:
chaining such answers into groups would merge two fifths of MedQuAD into one (docs/decisions/0003-split.md).
On request some questions whose answer stays in training form a second test, of unseen phrasings of seen topics.
Neither the order of the rows nor the machine changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medtune.data.features import Features, Hashes
from medtune.data.near import Ints, NearIndex, matches
from medtune.errors import DataError
from medtune.recipe import SplitSection

Sides = NDArray[np.int8]
NAMES = ("train", "validation", "test", "test_seen")
TRAIN, VALIDATION, TEST, TEST_SEEN, LEAKING, DUPLICATE = range(6)
LEAKING_REASON = "held out, but the answer is nearly repeated on another side"
SAMPLE = 5000  # held-out conversations that a leakage measurement looks at, at most


def written(section: SplitSection) -> tuple[str, ...]:
    """The splits that are written, in the order of their codes."""
    return NAMES if section.phrasings else NAMES[:TEST_SEEN]


@dataclass(frozen=True)
class Split:
    """For each row its side (LEAKING and DUPLICATE are on none) and the hash that names its group."""

    side: Sides
    group: Hashes

    @property
    def kept(self) -> NDArray[np.bool_]:
        """The rows that are on one of the sides."""
        return self.side <= TEST_SEEN


def groups(features: Features) -> tuple[Ints, Hashes]:
    """Rows that share a topic or a prompt, directly or through others: a number per row, and a name per number."""
    size = len(features)
    rows, nodes = [], []
    for hashes in (features.topic, features.prompt):
        present = np.flatnonzero(hashes)
        values, inverse = np.unique(hashes[present], return_inverse=True)
        rows.append(present)
        nodes.append(inverse + size)
        size += len(values)
    links = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(links[0]), dtype=np.int8), links), shape=(size, size))
    component = connected_components(graph, directed=False)[1][: len(features)]
    label = np.unique(component, return_inverse=True)[1]
    names = np.full(label.max(initial=-1) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(names, label, features.key)
    return label, names


def assign(features: Features, index: NearIndex, kept: NDArray[np.bool_], section: SplitSection) -> Split:
    """Draw the sides of the `kept` rows. `index` holds the answers of all rows.

    Raises DataError when nothing can be held out because all conversations hang together.
    """
    label, names = groups(features)
    side = np.where(kept, TRAIN, DUPLICATE).astype(np.int8)
    sizes = np.bincount(label[kept], minlength=len(names))
    largest = np.lexsort((names, -sizes))[0]
    queue = np.argsort(_shuffled(names, section.seed), kind="stable")
    queue = queue[(queue != largest) & (sizes[queue] > 0)]  # the largest group stays in train
    for code, share in ((TEST, section.test), (VALIDATION, section.validation)):
        queue = _draw(index, label, queue, side, code=code, share=share)
        if share and not (side == code).any():
            raise DataError(
                f"data.split.{NAMES[code]}: {share} of {int(kept.sum())} conversations leaves none to hold out: they "
                f"form {len(names)} groups by topic and question. Raise the share, add data, or give finer topics."
            )
    if section.phrasings:
        _hold_phrasings(features, label, side, section)
    return Split(side, names[label])


def _hold_phrasings(features: Features, label: Ints, side: Sides, section: SplitSection) -> None:
    """Move `section.phrasings` of a group's training questions with one answer to the second test; one always stays.

    Raises DataError when no answer has questions enough.
    """
    train = np.flatnonzero(side == TRAIN)
    order = train[np.lexsort((_shuffled(features.key[train], section.seed), features.answer[train], label[train]))]
    shared = np.stack([label[order].astype(np.uint64), features.answer[order]])
    _, start, size = np.unique(shared, axis=1, return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, size)
    held = np.minimum(np.round(section.phrasings * size), size - 1)
    side[order[rank < np.repeat(held, size)]] = TEST_SEEN
    if not (side == TEST_SEEN).any():
        raise DataError(
            f"data.split.phrasings: {section.phrasings} holds out nothing: at most {size.max(initial=0)} training "
            "questions about one topic share an answer. Raise the share, or set it to 0 for data of that kind."
        )


def _draw(index: NearIndex, label: Ints, queue: Ints, side: Sides, *, code: int, share: float) -> Ints:
    """Move groups from the front of `queue` to side `code` until it holds `share` of all that remain; returns the rest.

    How many of the drawn rows leak shows only after drawing, so it goes in rounds, towards the target from below.
    """
    sizes = np.bincount(label[side != DUPLICATE], minlength=label.max() + 1)
    by_group, ends = np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))
    starts = np.append(0, ends[:-1])
    own, other = np.empty(0, np.int64), np.empty(0, np.int64)
    while True:
        leaking = np.unique(own[(side[other] != code) & (side[other] <= TEST)])
        target = round(share * (int((side <= TEST).sum()) - len(leaking)))
        missing = target - (int((side == code).sum()) - len(leaking))
        chosen = _next_groups(queue, sizes, missing, target)
        if not len(chosen):
            side[leaking] = LEAKING
            return queue
        queue = queue[~np.isin(queue, chosen)]
        rows = np.concatenate([by_group[starts[group] : ends[group]] for group in chosen.tolist()])
        rows = rows[side[rows] == TRAIN]
        side[rows] = code
        pairs = [(np.full(len(near), row), near) for row, near in matches(index, rows)]
        own = np.concatenate([own, *(pair[0] for pair in pairs)])
        other = np.concatenate([other, *(pair[1] for pair in pairs)])


def _next_groups(queue: Ints, sizes: Ints, missing: int, target: int) -> Ints:
    """Groups from the front of `queue` for two thirds of the `missing` rows: those that fit.

    A group that would make up more than a tenth of the side waits until no other is left.
    """
    for largest in (max(target // 10, 1), target):
        room, chosen = -(-missing * 2 // 3), []
        for group in queue[sizes[queue] <= min(largest, max(missing, 0))].tolist():
            if room <= 0:
                break
            if sizes[group] <= max(room, 1):
                chosen.append(group)
                room -= sizes[group]
        if chosen:
            return np.array(chosen, dtype=np.int64)
    return np.empty(0, np.int64)


def _shuffled(names: Hashes, seed: int) -> Hashes:
    """A 64-bit mix (splitmix64) of each name and the seed: a random order that every machine agrees on."""
    z = names + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Leakage:
    """Shares of a test's conversations: question verbatim in train, answer nearly repeated there, topic there."""

    questions: float | None
    answers: float
    topics: float | None
    measured: int


def random_sides(rows: int, section: SplitSection) -> Sides:
    """What is usually done: a random split of all rows, duplicates and all. The comparison in the leakage table."""
    held_out = round(section.test * rows), round(section.validation * rows)
    side = np.repeat(np.array([TEST, VALIDATION, TRAIN], dtype=np.int8), [*held_out, rows - sum(held_out)])
    return np.random.default_rng(section.seed).permutation(side)


def leakage(features: Features, side: Sides, index: NearIndex, code: int = TEST) -> Leakage | None:
    """How much of the test `code` stands in train; None where it is empty. At most SAMPLE rows are looked at."""
    test, train = np.flatnonzero(side == code), side == TRAIN
    if not len(test):
        return None
    test = test[np.argsort(_shuffled(features.key[test], 0), kind="stable")][:SAMPLE]
    repeated = sum(bool(train[near].any()) for _, near in matches(index, test))
    questions, topics = (_shared(hashes, test, train) for hashes in (features.prompt, features.topic))
    return Leakage(questions, repeated / len(test), topics, len(test))


def _shared(hashes: Hashes, test: Ints, train: NDArray[np.bool_]) -> float | None:
    """Of the test rows that have such a hash, the share whose hash is also in train."""
    ours = hashes[test]
    ours = ours[ours != 0]
    return float(np.isin(ours, hashes[train]).mean()) if len(ours) else None
