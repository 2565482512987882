"""Intervals that hold what they promise: by cluster, paired, exact on the data itself."""

import numpy as np
import pytest
import sacrebleu
from scipy.stats import binomtest

from medtune.evaluation import metrics, overlap
from medtune.evaluation.statistics import Bootstrap, holm, wilson

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
    counts = np.array([overlap.bleu_counts((r,), a) for r, a in zip(references, answers, strict=True)])
    interval = Bootstrap(300, 0).interval(counts, ["a", "b", "c"], overlap.bleu)
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


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [60, 150])
def test_intervals_of_a_difference_cover_the_truth_at_ten_thousand_resamples(clusters):
    hits = 0
    for repeat in range(500):
        generator = np.random.default_rng([clusters, repeat, 2])
        before, groups = clustered(generator, clusters)
        gain = np.repeat(generator.normal(0.02, 0.1, clusters), [groups.count(g) for g in dict.fromkeys(groups)])
        found = Bootstrap(10_000, 0).difference(columns(before), columns(before + gain), groups, MEAN)
        hits += found.low <= 0.02 <= found.high
    assert 0.93 - 0.02 <= hits / 500 <= 0.97 + 0.02


def no_difference(repeat, clusters=40):
    generator = np.random.default_rng([repeat, 3])
    before, groups = clustered(generator, clusters)
    return columns(before), columns(before + generator.normal(0, 0.1, len(before))), groups


def test_p_values_raise_a_false_alarm_once_in_twenty():
    p_values = [Bootstrap(300, 0).difference(*no_difference(repeat), MEAN).p for repeat in range(600)]
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07
    assert 0.45 <= np.mean(p_values) <= 0.55


def test_a_p_value_is_never_zero_and_one_where_nothing_differs():
    before, groups = columns(np.linspace(0.1, 0.5, 30)), [str(i) for i in range(30)]
    bootstrap = Bootstrap(999, 0)
    assert bootstrap.difference(before, before + np.array([0.3, 0]), groups, MEAN).p == 1 / 1000
    assert bootstrap.difference(before, before, groups, MEAN).p == 1


def test_three_clusters_prove_nothing():
    before, groups = columns([0.1, 0.2, 0.3]), ["a", "b", "c"]
    assert Bootstrap(2000, 0).difference(before, before + np.array([0.3, 0]), groups, MEAN).p > 0.2, (
        "2 of 8 swaps look as good"
    )


def test_the_resolvable_difference_is_found_in_eight_of_ten_tests():
    found, size = 0, None
    for repeat in range(200):
        before, after, groups = no_difference(repeat, 100)
        size = size or Bootstrap(400, 0).difference(before, after, groups, MEAN).resolvable
        with_gain = after + np.array([size, 0.0])
        result = Bootstrap(400, 0).difference(before, with_gain, groups, MEAN)
        found += result.low > 0
    assert 0.7 <= found / 200 <= 0.9


def test_holm_corrects_as_in_the_textbook():
    # by hand: sorted .01 .02 .03 .04, times 4 3 2 1, and never less than the one before
    found = holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.02})
    assert found == pytest.approx({"d": 0.06, "a": 0.04, "c": 0.06, "b": 0.06})
    assert list(found) == ["d", "a", "c", "b"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("hits", [0, 3, 20, 40])
def test_wilson_of_independent_records_is_scipys(hits):
    rows = np.array([(i < hits, 1.0) for i in range(40)], dtype=float)
    found = wilson(rows, [""] * 40)
    expected = binomtest(hits, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.03, abs=1e-12)
    assert found.value == hits / 40


def test_wilson_of_a_repeated_cluster_adds_no_certainty():
    rows, groups = np.array([(i < 8, 1.0) for i in range(40)], dtype=float), [str(i) for i in range(40)]
    once = wilson(rows, groups)
    repeated = wilson(np.repeat(rows, 10, axis=0), list(np.repeat(groups, 10)))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    never = wilson(np.repeat(rows * [0, 1], 10, axis=0), list(np.repeat(groups, 10)))
    assert never.low == 0
    assert never.high == pytest.approx(binomtest(0, 40).proportion_ci(method="wilson").high)
    assert wilson(np.zeros((0, 2)), []) is None
    assert wilson(rows, ["a"] * 40).low is None
