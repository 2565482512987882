"""The split's promises: disjoint, of the asked size, without leaks, independent of the order of the rows."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest

from medtune.data import duplicates, split
from medtune.data.collect import collect
from medtune.data.features import Collector, Features
from medtune.data.near import build
from medtune.errors import DataError
from medtune.recipe import CleanSection, DataSection, Source, SplitSection
from medtune.types import Conversation, Message


def corpus(seed: int, topics: int = 300) -> list[Conversation]:
    """One to six questions per topic; a fifth of the answers are one template with the topic filled in."""
    draw = random.Random(seed)
    words = [f"word{i}" for i in range(3000)]
    template = " ".join(draw.choices(words, k=40))
    made = []
    for topic in range(topics):
        for question in range(draw.randrange(1, 7)):
            answer = " ".join(draw.choices(words, k=30))
            if draw.random() < 0.2:
                answer = f"{template} topic{topic} {question}"
            made.append(conversation(f"question {question} about topic {topic}", answer, f"Topic {topic}"))
    return made


def conversation(question: str, answer: str, topic: str = "") -> Conversation:
    return Conversation(id="", messages=(Message("user", question), Message("assistant", answer)), topic=topic)


def features_of(conversations: list[Conversation]) -> Features:
    collector = Collector()
    for number, item in enumerate(conversations):
        collector.add(item, source=0, file="f", number=number, offset=0)
    return collector.finish()


def sides(conversations: list[Conversation], **options: float) -> tuple[Features, split.Split]:
    features = features_of(conversations)
    index = build(features.words, 0.8)
    kept = duplicates.find(features, CleanSection(max_repeats=None)) == 0
    return features, split.assign(features, index, kept, SplitSection(**options))


@pytest.mark.parametrize("seed", range(5))
def test_sides_are_disjoint_of_the_asked_size_and_leak_nothing(seed: int) -> None:
    features, parts = sides(corpus(seed), validation=0.1, test=0.1)
    for hashes in (features.topic, features.prompt, parts.group):
        held = [set(hashes[parts.side == code].tolist()) for code in (split.TRAIN, split.VALIDATION, split.TEST)]
        assert not held[0] & held[1]
        assert not held[0] & held[2]
        assert not held[1] & held[2]
    total = parts.kept.sum()
    assert abs((parts.side == split.TEST).sum() / total - 0.1) < 0.01
    assert abs((parts.side == split.VALIDATION).sum() / total - 0.1) < 0.01
    measured = split.leakage(features, parts.side, build(features.words, 0.8))
    assert measured is not None
    assert (measured.questions, measured.answers, measured.topics) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_the_rows_changes_nothing(seed: int) -> None:
    conversations = corpus(seed)
    features, parts = sides(conversations, validation=0.1, test=0.1)
    expected = dict(zip(features.key.tolist(), zip(parts.side, parts.group, strict=True), strict=True))
    random.Random(seed).shuffle(conversations)
    features, parts = sides(conversations, validation=0.1, test=0.1)
    assert dict(zip(features.key.tolist(), zip(parts.side, parts.group, strict=True), strict=True)) == expected


def test_seed_draws_another_test() -> None:
    tests = [set(np.flatnonzero(sides(corpus(0), seed=seed)[1].side == split.TEST).tolist()) for seed in (0, 1)]
    assert len(tests[0] & tests[1]) < 0.5 * len(tests[0])


def test_known_draw() -> None:
    """The same content gives the same test on every machine. When this must change, raise `stage.VERSION`."""
    conversations = [conversation(f"question {i}?", f"answer number {i} is this", f"topic {i}") for i in range(12)]
    _, parts = sides(conversations, validation=0.1, test=0.25)
    assert np.flatnonzero(parts.side == split.TEST).tolist() == [1, 7, 10]


def test_same_question_joins_topics_and_largest_group_stays_in_train() -> None:
    conversations = [conversation(f"q{i}", f"text {i} alone a{i} b{i}", "large") for i in range(5)]
    conversations += [conversation("shared", "x y z one", "t1"), conversation("Shared?", "u v w two", "t2")]
    label, _ = split.groups(features_of(conversations))
    assert len(set(label[:5].tolist())) == 1
    assert label[5] == label[6] != label[0]
    for seed in range(5):
        _, parts = sides(conversations, validation=0, test=0.3, seed=seed)
        assert (parts.side[:5] == split.TRAIN).all()


def test_held_out_answer_repeated_elsewhere_is_left_out() -> None:
    template = " ".join(f"w{i}" for i in range(30))
    conversations = [conversation(f"q{i}", f"{template} {i}", f"t{i}") for i in range(50)]
    conversations += [conversation(f"p{i}", f"own{i} text{i} here{i} and{i}", f"s{i}") for i in range(50)]
    _, parts = sides(conversations, validation=0, test=0.2)
    assert (parts.side[50:] == split.TEST).sum() == (parts.side == split.TEST).sum() > 0
    assert 0 < (parts.side[:50] == split.LEAKING).sum() < 25


def test_one_topic_cannot_be_split() -> None:
    conversations = [conversation(f"q{i}", f"text {i} alone a{i} b{i}", "asthma") for i in range(20)]
    with pytest.raises(DataError, match=r"data\.split\.test: 0\.05 of 20 conversations.*1 groups"):
        sides(conversations)


def test_no_test_is_asked_for() -> None:
    features, parts = sides(corpus(0), validation=0.1, test=0)
    assert not (parts.side == split.TEST).any()
    assert split.leakage(features, parts.side, build(features.words, 0.8)) is None


def test_random_split_of_the_same_corpus_leaks() -> None:
    features, _ = sides(corpus(1))
    measured = split.leakage(features, split.random_sides(len(features), SplitSection()), build(features.words, 0.8))
    assert measured is not None
    assert measured.topics is not None
    assert measured.topics > 0.7
    assert measured.answers > 0.05


def ways_of_asking(topics: int, questions: int) -> list[Conversation]:
    return [
        conversation(f"way {way} to ask about t{topic}", f"answer a{topic} b{topic} c{topic}", f"t{topic}")
        for topic in range(topics)
        for way in range(questions)
    ]


def test_phrasings_hold_out_questions_whose_answer_stays_in_training() -> None:
    conversations = [*ways_of_asking(40, 5), *(conversation(f"q{i}", f"lone w{i} x{i} y{i}") for i in range(10))]
    features, parts = sides(conversations, validation=0.1, test=0.1, phrasings=0.4)
    seen, train = parts.side == split.TEST_SEEN, parts.side == split.TRAIN
    topics = len(np.unique(features.topic[train & (features.topic != 0)]))
    assert seen.sum() == 2 * topics
    assert not seen[200:].any(), "the only question with its answer stays in training"
    assert set(features.topic[seen].tolist()) <= set(features.topic[train].tolist())
    assert not set(features.prompt[seen].tolist()) & set(features.prompt[train].tolist())
    held_out = np.isin(parts.side, (split.TEST, split.VALIDATION))
    assert not set(features.topic[held_out].tolist()) & set(features.topic[train | seen].tolist())
    index = build(features.words, 0.8)
    unseen, measured = (split.leakage(features, parts.side, index, code) for code in (split.TEST, split.TEST_SEEN))
    assert unseen is not None
    assert measured is not None
    assert (unseen.questions, unseen.answers, unseen.topics) == (0, 0, 0)
    assert (measured.questions, measured.answers, measured.topics) == (0, 1, 1)


def test_phrasings_change_neither_the_other_held_out_sides_nor_with_the_order_of_the_rows() -> None:
    conversations = ways_of_asking(60, 4)
    _, plain = sides(conversations, validation=0.1, test=0.1)
    features, parts = sides(conversations, validation=0.1, test=0.1, phrasings=0.25)
    for code in (split.VALIDATION, split.TEST):
        assert ((plain.side == code) == (parts.side == code)).all()
    held = set(features.key[parts.side == split.TEST_SEEN].tolist())
    features, parts = sides(conversations[::-1], validation=0.1, test=0.1, phrasings=0.25)
    assert set(features.key[parts.side == split.TEST_SEEN].tolist()) == held


def test_phrasings_that_hold_out_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"phrasings: 0\.2 holds out nothing: at most 1 training questions"):
        sides(ways_of_asking(40, 1), validation=0.1, test=0.1, phrasings=0.2)


@pytest.mark.slow
def test_medquad_meets_the_sizes_without_leaks(shared_data: Path) -> None:
    section = DataSection(sources=(Source(layout="medquad_csv", path=str(shared_data / "medquad.csv.gz")),))
    with tempfile.TemporaryFile() as spool:
        features = collect(section, spool).features
    index = build(features.words, 0.8)
    parts = split.assign(features, index, duplicates.find(features, section.clean) == 0, section.split)
    random_leakage = split.leakage(features, split.random_sides(len(features), section.split), index)
    assert random_leakage is not None
    assert random_leakage.questions == pytest.approx(0.2, abs=0.04)
    assert random_leakage.answers == pytest.approx(0.18, abs=0.04)
    after = split.leakage(features, parts.side, index)
    assert after is not None
    assert (after.questions, after.answers, after.topics) == (0, 0, 0)
    assert abs((parts.side == split.TEST).sum() / parts.kept.sum() - 0.05) < 0.001
    assert (parts.side == split.LEAKING).sum() < 0.025 * len(features)


def test_duplicates_by_reason() -> None:
    long = " ".join(f"w{i}" for i in range(20))
    conversations = [
        conversation("What is A?", long),
        conversation("what is a", long.upper()),  # exact, but for case and punctuation
        conversation("What is A?", long + " more"),  # nearly the same: the longer one stays
        conversation("What is B?", long),
        conversation("What is C?", long),
        conversation("What is D?", "something else entirely"),
    ]
    verdict = duplicates.find(features_of(conversations), CleanSection(max_repeats=1)).tolist()
    assert sorted(verdict[:2]) == [1, 2]
    assert verdict[2] == 0
    assert sorted(verdict[3:5]) == [0, 3]
    assert verdict[5] == 0
