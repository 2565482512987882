"""An interpolated Kneser-Ney model of token n-grams: what counting alone reaches on the text that a model has read.

Lower orders count in how many contexts a token stands, not how often (Kneser and Ney 1995); the discount is
n1 / (n1 + 2 n2) of each order. Token ids are below 2**13; longer n-grams are told apart by a 64-bit hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Order:
    """Counts of one order, as sorted keys and their values."""

    grams: NDArray[np.uint64]
    counts: Array
    contexts: NDArray[np.uint64]
    totals: Array
    kinds: Array
    discount: float


def keys(rows: Array) -> NDArray[np.uint64]:
    """One number per row of token ids; rows without a column are all the same."""
    key = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        key = key * MIX + column.astype(np.uint64) + np.uint64(1)
    return key


def windows(documents: Sequence[Sequence[int]], order: int) -> Array:
    """Every run of `order` tokens of the documents, as rows."""
    parts = [np.lib.stride_tricks.sliding_window_view(np.array(d), order) for d in documents if len(d) >= order]
    return np.concatenate(parts)


def fit(documents: Sequence[Sequence[int]], order: int = 5) -> list[Order]:
    """The orders from 1 to `order`."""
    rows, orders = windows(documents, order), []
    _, first, counts = np.unique(keys(rows), return_index=True, return_counts=True)
    rows = rows[first]
    while rows.shape[1]:
        gram = keys(rows)
        by_gram = np.argsort(gram)
        contexts, where = np.unique(keys(rows[:, :-1]), return_inverse=True)
        ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
        orders.append(
            Order(
                gram[by_gram],
                counts[by_gram],
                contexts,
                np.bincount(where, counts).astype(np.int64),
                np.bincount(where),
                ones / max(ones + 2 * twos, 1),
            )
        )
        rows = rows[:, 1:]
        _, first, counts = np.unique(keys(rows), return_index=True, return_counts=True)
        rows = rows[first]
    return orders[::-1]


def probabilities(orders: Sequence[Order], document: Sequence[int], vocabulary: int) -> NDArray[np.float64]:
    """The probability of each token after the first, given those before it."""
    ids = np.array(document)
    p = np.full(len(ids) - 1, 1 / vocabulary)
    for n, order in enumerate(orders, 1):
        if len(ids) < n:
            break
        rows = np.lib.stride_tricks.sliding_window_view(ids, n)[max(2 - n, 0) :]
        count, (total, kinds) = _look(order.grams, keys(rows), order.counts), _contexts(order, rows)
        lower = p[len(p) - len(rows) :]
        discounted = (np.maximum(count - order.discount, 0) + order.discount * kinds * lower) / np.maximum(total, 1)
        p[len(p) - len(rows) :] = np.where(total > 0, discounted, lower)
    return p


def _contexts(order: Order, rows: Array) -> tuple[Array, Array]:
    key = keys(rows[:, :-1])
    return _look(order.contexts, key, order.totals), _look(order.contexts, key, order.kinds)


def _look(table: NDArray[np.uint64], wanted: NDArray[np.uint64], values: Array) -> Array:
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return np.where(table[place] == wanted, values[place], 0)
