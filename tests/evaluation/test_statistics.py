"""Intervals that hold what they promise: by cluster, paired, exact on the data itself."""

import numpy as np
import pytest
import sacrebleu

from medtune.evaluation import metrics
from medtune.evaluation.statistics import Bootstrap

MEAN = metrics.METRICS["rouge_l"].value


def columns(values):
    return np.array([(value, 1.0) for value in values])


def test_the_value_is_that_of_the_data_itself():
    interval = Bootstrap(200, 0).interval(columns([0.0, 0.5, 1.0, 1.0]), ["a", "a", "b", "c"], MEAN)
    assert interval.value == 0.625
    assert interval.low <= interval.value <= interval.high


def test_the_value_of_bleu_is_sacrebleus():
    references = ["the lung is an organ of the body", "asthma narrows the airways a lot", "take the pill twice a day"]
    answers = ["the lung is an organ", "asthma narrows the airways in the lung", ""]
    counts = np.array([metrics.bleu_counts(r, a) for r, a in zip(references, answers, strict=True)])
    interval = Bootstrap(300, 0).interval(counts, ["a", "b", "c"], metrics.bleu)
    assert interval.value == sacrebleu.corpus_bleu(answers, [references]).score


def test_the_seed_decides():
    values, groups = columns(np.random.default_rng(0).random(50)), [str(i) for i in range(50)]
    first, again, other = (Bootstrap(300, seed).interval(values, groups, MEAN) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_repeating_a_cluster_adds_no_certainty():
    values = np.random.default_rng(0).random(40)
    groups = [str(i) for i in range(40)]
    once = Bootstrap(1000, 0).interval(columns(values), groups, MEAN)
    repeated = Bootstrap(1000, 0).interval(columns(np.repeat(values, 10)), list(np.repeat(groups, 10)), MEAN)
    alone = Bootstrap(1000, 0).interval(columns(np.repeat(values, 10)), [""] * 400, MEAN)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    assert alone.high - alone.low < 0.5 * (once.high - once.low), "without clusters it would look certain"


def test_a_pair_is_resampled_together():
    generator = np.random.default_rng(0)
    before = generator.random(100)
    after = before + 0.05 + generator.normal(0, 0.01, 100)
    groups = [str(i) for i in range(100)]
    bootstrap = Bootstrap(500, 0)
    paired = bootstrap.difference(columns(before), columns(after), groups, MEAN)
    alone = bootstrap.interval(columns(before), groups, MEAN)
    assert 0.045 < paired.low < paired.value < paired.high < 0.055
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


def test_a_system_does_not_differ_from_itself():
    values, groups = columns(np.random.default_rng(0).random(30)), [str(i % 7) for i in range(30)]
    paired = Bootstrap(200, 0).difference(values, values, groups, MEAN)
    assert (paired.value, paired.low, paired.high) == (0, 0, 0)


def test_nothing_measured_is_none_and_one_cluster_has_no_interval():
    bootstrap = Bootstrap(200, 0)
    assert bootstrap.interval(np.zeros((0, 2)), [], MEAN) is None
    assert bootstrap.difference(np.zeros((0, 2)), np.zeros((0, 2)), [], MEAN) is None
    interval = bootstrap.interval(columns([0.2, 0.4]), ["a", "a"], MEAN)
    assert (interval.value, interval.low, interval.high) == (pytest.approx(0.3), None, None)


def clustered(generator, clusters):
    """Scores of 1 to 5 questions per cluster around the cluster's own level; their mean is 0.3."""
    levels = generator.beta(3, 7, clusters)
    sizes = generator.integers(1, 6, clusters)
    noise = generator.normal(0, 0.05, sizes.sum())
    return np.repeat(levels, sizes) + noise, list(np.repeat(np.arange(clusters).astype(str), sizes))


def coverage(clusters, repeats):
    hits = 0
    for repeat in range(repeats):
        values, groups = clustered(np.random.default_rng([clusters, repeat]), clusters)
        interval = Bootstrap(400, 0).interval(columns(values), groups, MEAN)
        hits += interval.low <= 0.3 <= interval.high
    return hits / repeats


@pytest.mark.parametrize("clusters", [30, 60, 150])
def test_intervals_cover_the_truth_as_often_as_they_say(clusters):
    # 95 % promised; 93 to 97 % allowed, and 800 repeats know their own rate only to within 1.6 points (two sigma).
    assert 0.93 - 0.016 <= coverage(clusters, 800) <= 0.97 + 0.016
