"""A small corpus with every field, and an encoder that counts what it is asked to encode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from medtune.knowledge.passages import Entry
from medtune.types import Passage


class HashEncoder:
    """Texts to vectors by their words: texts that share words are near. `encoded` is what it was asked for."""

    dimensions = 64

    def __init__(self, name: str = "hash") -> None:
        self.name = name
        self.fingerprint = f"fingerprint of {name}"
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        del batch_size
        self.encoded += texts
        vectors = np.full((len(texts), self.dimensions), 1e-3, np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                vector[hashlib.md5(word.strip("?.,").encode()).digest()[0] % self.dimensions] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def entry(title: str, kind: str, question: str, text: str, *names: str) -> Entry:
    passage = Passage(f"{title}/{kind}", text, title, question, f"https://example.org/{title}", source="test")
    return Entry(passage, (title, *names), (question,), kind)


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture
def corpus() -> list[Entry]:
    """Three subjects with three kinds of answer each; one answer is a list of links."""
    links = (
        "These resources address the diagnosis of it: - Genetic Testing Registry: Gout - MedlinePlus Encyclopedia: Gout"
    )
    return [
        entry("Gout", "information", "What is Gout?", "Gout is a painful swelling of joints by uric acid.", "podagra"),
        entry("Gout", "treatment", "What are the treatments for Gout?", "Rest, ice and anti-inflammatory medicine."),
        entry("Gout", "research", "What research is done on Gout?", links),
        entry("Asthma", "information", "What is Asthma?", "Asthma makes airways narrow, so that breathing is hard."),
        entry("Asthma", "treatment", "What are the treatments for Asthma?", "Inhalers open the airways."),
        entry("Asthma", "causes", "What causes Asthma?", "Allergy, smoke and infections set it off."),
        entry("Marfan syndrome", "information", "What is Marfan syndrome?", "A disorder of connective tissue.", "MFS"),
        entry("Marfan syndrome", "inheritance", "Is Marfan syndrome inherited?", "It is autosomal dominant.", "MFS"),
        entry("Marfan syndrome", "treatment", "What are the treatments for Marfan syndrome?", "Drugs slow it.", "MFS"),
    ]
