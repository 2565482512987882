"""The index: reuse of vectors, atomic builds, foreign encoders and foreign folders."""

from dataclasses import replace

import numpy as np
import pytest

from medtune.errors import DataError, RunDirError
from medtune.knowledge import index as indexing
from medtune.knowledge.index import build, open_index
from medtune.knowledge.search import search


def test_passages_names_and_questions_come_back(tmp_path, corpus, encoder):
    manifest = build(corpus, tmp_path / "index", encoder)
    index = open_index(tmp_path / "index", encoder)
    assert [index.entry(row) for row in range(len(index))] == corpus
    assert manifest["passages"] == len(index) == len(corpus)
    assert manifest["sources"] == {"test": len(corpus)}


def test_vectors_and_words_are_memory_mapped(tmp_path, corpus, encoder):
    build(corpus, tmp_path / "index", encoder)
    index = open_index(tmp_path / "index", encoder)
    assert isinstance(index.fields["texts"].vectors, np.memmap)
    assert isinstance(index.bm25.scores["data"], np.memmap)


def test_same_passages_give_the_same_hash_and_nothing_is_written(tmp_path, corpus, encoder):
    first = build(corpus, tmp_path / "index", encoder)
    before = len(encoder.encoded)
    assert build(corpus, tmp_path / "index", encoder) == first
    assert len(encoder.encoded) == before
    assert build(corpus, tmp_path / "other", encoder)["hash"] == first["hash"]


def test_only_what_changed_is_encoded_again(tmp_path, corpus, encoder):
    first = build(corpus, tmp_path / "index", encoder)
    encoder.encoded.clear()
    changed = [replace(corpus[0], passage=replace(corpus[0].passage, id="new", text="Uric acid crystals."))]
    second = build([*corpus[1:], *changed], tmp_path / "index", encoder)
    assert encoder.encoded == ["Gout. Uric acid crystals."]
    assert second["hash"] != first["hash"]
    assert [f.name for f in (tmp_path / "index").iterdir() if f.is_dir()] == [second["hash"]]
    fresh = open_index(tmp_path / "index", encoder)
    build([*corpus[1:], *changed], tmp_path / "fresh", encoder)
    np.testing.assert_array_equal(
        fresh.fields["texts"].vectors, open_index(tmp_path / "fresh", encoder).fields["texts"].vectors
    )


def test_a_build_that_is_cut_off_leaves_the_earlier_index(tmp_path, corpus, encoder, monkeypatch):
    first = build(corpus, tmp_path / "index", encoder)

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(indexing, "_write_words", cut_off)
    with pytest.raises(KeyboardInterrupt):
        build(corpus[:5], tmp_path / "index", encoder)
    monkeypatch.undo()
    index = open_index(tmp_path / "index", encoder)
    assert index.manifest == first
    assert len(index) == len(corpus)
    build(corpus[:5], tmp_path / "index", encoder)
    assert len(open_index(tmp_path / "index", encoder)) == 5


def test_an_open_index_survives_a_later_build(tmp_path, corpus, encoder):
    build(corpus, tmp_path / "index", encoder)
    index = open_index(tmp_path / "index", encoder)
    build(corpus[:5], tmp_path / "index", encoder)
    assert search(index, "treatment of gout", 1)[0].passage.title == "Gout"
    assert index.related(corpus[1].passage) == [e.passage for e in corpus[:3]]


def test_another_encoder_is_refused(tmp_path, corpus, encoder):
    build(corpus, tmp_path / "index", encoder)
    with pytest.raises(RunDirError, match=r"built with the encoder hash .* but other .* is asked for"):
        open_index(tmp_path / "index", type(encoder)("other"))


def test_an_index_without_encoder_opens_with_any_and_one_with_opens_without(tmp_path, corpus, encoder):
    build(corpus, tmp_path / "words", None)
    assert open_index(tmp_path / "words", encoder).encoder is None
    build(corpus, tmp_path / "both", encoder)
    assert open_index(tmp_path / "both", None).fields["texts"].vectors is None


def test_a_folder_that_is_no_index_is_left_alone(tmp_path, corpus):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunDirError, match="not empty and holds no index"):
        build(corpus, tmp_path, None)
    assert [f.name for f in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(RunDirError, match="there is no index"):
        open_index(tmp_path / "nowhere", None)


def test_a_damaged_index_says_so(tmp_path, corpus):
    manifest = build(corpus, tmp_path / "index", None)
    (tmp_path / "index" / manifest["hash"] / "kinds.npy").unlink()
    with pytest.raises(RunDirError, match="damaged"):
        open_index(tmp_path / "index", None)


def test_no_passage_is_refused(tmp_path):
    with pytest.raises(DataError, match="no passage"):
        build([], tmp_path / "index", None)


def test_related_passages_are_those_of_the_title(tmp_path, corpus):
    build(corpus, tmp_path / "index", None)
    index = open_index(tmp_path / "index", None)
    assert [p.id for p in index.related(corpus[4].passage)] == [e.passage.id for e in corpus[3:6]]
