"""Which names a message mentions: diseases, drugs and other subjects by title or synonym, misspelt ones too.

Covered: rare words weigh more than common ones; a word that no passage knows is read as the nearest word of a name.
Not covered: meaning (the encoder), word order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import OSA
from scipy import sparse

from medtune.knowledge.words import words

Floats = NDArray[np.float32]
SHORTEST = 5  # letters of a word that is corrected: in shorter ones another letter makes another word
ALIKE = 0.74  # share of letters in place from which two words are one, misspelt
DOUBT = 0.85  # weight of a corrected word


@dataclass(frozen=True)
class Names:
    """`matrix` is (names, words): the weight of each word in each name; `total` its row sums."""

    vocabulary: dict[str, int]
    matrix: sparse.csr_matrix
    total: Floats
    is_known: Callable[[str], bool]

    @cached_property
    def _by_letter(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for word in self.vocabulary:
            if len(word) >= SHORTEST:
                found[word[0]].append(word)
        return found

    def mentioned(self, text: str) -> tuple[Floats, Floats]:
        """Per name: the share of its weight that `text` mentions (0 to 1), and that weight. Both (names,)."""
        given = np.zeros(len(self.vocabulary), np.float32)
        for word in words(text):
            number = self.vocabulary.get(word)
            if number is not None:
                given[number] = 1
            elif len(word) >= SHORTEST and not self.is_known(word):
                near = process.extractOne(
                    word, self._by_letter[word[0]], scorer=OSA.normalized_similarity, score_cutoff=ALIKE
                )
                if near is not None:
                    number = self.vocabulary[near[0]]
                    given[number] = max(given[number], DOUBT * near[1])
        mass: Floats = np.asarray(self.matrix @ given, np.float32)
        return mass / self.total, mass


def names_of(strings: Sequence[str], documents: int, frequency: Callable[[str], int]) -> Names:
    """The `strings` as bags of weighted words. `frequency` says in how many of `documents` passages a word stands."""
    bags = [list(dict.fromkeys(words(string))) or [string.lower()] for string in strings]
    vocabulary: dict[str, int] = {}
    columns = np.array([vocabulary.setdefault(word, len(vocabulary)) for bag in bags for word in bag])
    weight = np.array([np.log(1 + documents / (1 + frequency(word))) for word in vocabulary], np.float32)
    ends = np.cumsum([0, *map(len, bags)])
    matrix = sparse.csr_matrix((weight[columns], columns, ends), shape=(len(bags), len(vocabulary)))
    total = np.asarray(matrix.sum(axis=1), np.float32).ravel()
    return Names(vocabulary, matrix, total, lambda word: frequency(word) > 2)
