"""What the records add up to, and what the report says about it first."""

import numpy as np
import pytest

from medtune.evaluation import summary
from medtune.evaluation.metrics import METRICS
from medtune.evaluation.statistics import Bootstrap
from medtune.evaluation.verdict import gap, verdict, warnings
from medtune.types import Completion, Likelihood

BOOTSTRAP = Bootstrap(300, 0)


def system(record, score, nll, count=60):
    noise = np.random.default_rng(0).normal(0, 0.05, count)
    return [record(i, score + noise[i], f"g{i}", likelihood=Likelihood(nll * 18, 4, 18)) for i in range(count)]


def sentence(before, after):
    return verdict(summary.paired(before, after, BOOTSTRAP))


def test_every_outcome_is_counted_apart(record):
    records = [
        record(1), record(2, likelihood=None),
        record(3, 0.0, completion=Completion(""), status="unanswered"),
        record(4, completion=Completion("", "error"), status="failed", scores={}, likelihood=None),
    ]  # fmt: skip
    counts = {"asked": 4, "scored": 2, "unanswered": 1, "unparsed": 0, "failed": 1, "likelihood": 2}
    assert summary.counts(records) == counts
    values = summary.system_metrics("base", records, BOOTSTRAP)
    assert values["rouge_l"]["value"] == pytest.approx(1 / 3), "the empty answer counts as 0, the failed one not at all"


def test_no_measurement_is_none(record):
    assert all(value is None for value in summary.system_metrics("base", [], BOOTSTRAP).values())
    failed = [record(1, status="failed", scores={}, likelihood=None)]
    assert all(value is None for value in summary.system_metrics("base", failed, BOOTSTRAP).values())


def test_a_floor_has_no_stop_rate_and_no_perplexity(record):
    values = summary.system_metrics("nearest", [record(1), record(2)], BOOTSTRAP)
    assert {name for name, metric in METRICS.items() if metric.models_only and values[name] is None} == {
        "perplexity", "bits_per_byte", "stop_rate", "truncation_rate",
    }  # fmt: skip
    assert values["words"]["value"] == 2


def test_a_difference_is_taken_on_the_questions_measured_in_both(record):
    before = [record(1, 0.2), record(2, 0.2), record(3, status="failed", scores={})]
    after = [record(1, 0.5), record(2, status="failed", scores={}), record(3, 0.9)]
    difference = summary.paired(before, after, BOOTSTRAP)["rouge_l"]
    assert (difference["questions"], difference["before"], difference["after"]) == (1, 0.2, 0.5)
    assert difference["value"] == pytest.approx(0.3)


def test_the_order_of_the_records_does_not_pair_the_wrong_questions(record):
    before = [record(i, i / 10, f"g{i}") for i in range(10)]
    after = [record(i, i / 10, f"g{i}") for i in reversed(range(10))]
    difference = summary.paired(before, after, BOOTSTRAP)["rouge_l"]
    assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0)


def test_tuning_that_helped(record):
    found = sentence(system(record, 0.3, 1.0), system(record, 0.4, 0.8))
    assert found["direction"] == "helped"
    assert found["sentence"].startswith("Tuning helped: ROUGE-L of free answers went from 0.304 to 0.404, ")
    assert "a difference of +0.100 (95 % interval +0.100 to +0.100, p = .003)" in found["sentence"]
    assert "and the reference answers became more likely" in found["sentence"]
    assert (found["metric"], found["difference"]) == ("rouge_l", pytest.approx(0.1))


def test_tuning_that_made_no_difference(record):
    after = [record(i, r.scores["rouge_l"] + (-1) ** i * 0.1, f"g{i}") for i, r in enumerate(system(record, 0.3, 1.0))]
    found = sentence(system(record, 0.3, 1.0), after)
    assert found["direction"] == "none"
    assert found["sentence"].startswith("No measurable difference: ")
    assert f"This test finds a difference of {found['resolvable']:.3f} in 8 of 10 cases" in found["sentence"]


def test_the_floors_stand_in_the_verdict(record):
    base, tuned = system(record, 0.3, 1.0), system(record, 0.4, 0.8)
    lower, higher = system(record, 0.1, 1.0), system(record, 0.6, 1.0)
    floors = {"random": summary.paired(lower, tuned, BOOTSTRAP), "nearest": summary.paired(higher, tuned, BOOTSTRAP)}
    text = verdict(summary.paired(base, tuned, BOOTSTRAP), floors)["sentence"]
    assert "above a random training answer (0.104)" in text
    assert "below the nearest training question's answer (0.604)" in text


def test_an_interval_without_a_p_value_to_match_is_no_difference(record):
    before, after = [record(i, 0.2, f"g{i}") for i in range(4)], [record(i, 0.4 + i / 100, f"g{i}") for i in range(4)]
    found = summary.paired(before, after, BOOTSTRAP)["rouge_l"]
    assert found["low"] > 0
    assert found["p"] > 0.05, "4 clusters have 16 swaps, and 2 of them look as good"
    assert found["direction"] == "none"


def test_metrics_beside_the_primary_one_are_corrected_for_their_number(record):
    rows = summary.paired(system(record, 0.3, 1.0), system(record, 0.4, 0.8), BOOTSTRAP)
    assert rows["rouge_l"]["p_holm"] == rows["rouge_l"]["p"]
    assert rows["rouge_1"]["p_holm"] > rows["rouge_1"]["p"]
    assert rows["words"]["p_holm"] is None, "more words are neither better nor worse"


def test_tuning_that_did_harm(record):
    found = sentence(system(record, 0.4, 0.8), system(record, 0.3, 1.0))
    assert found["direction"] == "worse"
    assert found["sentence"].startswith("Tuning made it worse: ")
    assert "and the reference answers became less likely" in found["sentence"]


def test_a_disagreement_of_the_two_metrics_is_said(record):
    found = sentence(system(record, 0.4, 1.0), system(record, 0.3, 0.8))
    assert found["direction"] == "worse"
    assert "but the reference answers became more likely" in found["sentence"]
    assert "the two disagree" in found["sentence"]


def test_nothing_measured_is_said_too(record):
    assert verdict({})["sentence"].startswith("Whether tuning helped was not measured")
    one_group = summary.paired(
        [record(1, 0.2, "g"), record(2, 0.2, "g")], [record(1, 0.9, "g"), record(2, 0.9, "g")], BOOTSTRAP
    )
    assert verdict(one_group)["direction"] is None, "two questions on one topic prove nothing"


def test_warnings_name_what_would_mislead(record):
    cut = [record(i, 0.3, f"g{i}", completion=Completion("one", "length", 3, 1)) for i in range(5)]
    silent = [record(5, 0.0, "g5", completion=Completion(""), status="unanswered", likelihood=None)]
    failed = [record(6, status="failed", scores={}, completion=Completion("", "error"))]
    tuned = [*cut, *silent, *failed]
    systems = {"tuned": {"counts": summary.counts(tuned), "metrics": summary.system_metrics("tuned", tuned, BOOTSTRAP)}}
    better = [record(i, 0.9, f"g{i}") for i in range(7)]
    facts = {
        "systems": systems,
        "floors": {"nearest": summary.paired(better, tuned, BOOTSTRAP)},
        "test": {"questions": 7, "groups": 7},
    }
    text = "\n".join(warnings(facts, "scratch"))
    for part in (
        "from scratch: this is a demonstration", "Only 7 test questions", "only 7 groups", "1 of 7 requests failed",
        "1 of 7 answers are empty", "83 % of the answers were cut off", "1 reference answers have no finite likelihood",
        "The tuned model is below the floor `nearest`",
    ):  # fmt: skip
        assert part in text


def test_a_good_run_has_no_warnings(record):
    records = system(record, 0.5, 1.0, 200)
    systems = {
        "tuned": {"counts": summary.counts(records), "metrics": summary.system_metrics("tuned", records, BOOTSTRAP)}
    }
    floors = {"random": summary.paired(system(record, 0.1, 1.0, 200), records, BOOTSTRAP)}
    assert warnings({"systems": systems, "floors": floors, "test": {"questions": 200, "groups": 200}}, "model") == []


def sides(record, **scores):
    return {
        name: {"metrics": summary.system_metrics(name, system(record, score, 3.0), BOOTSTRAP)}
        for name, score in scores.items()
    }


@pytest.mark.parametrize(
    ("unseen", "seen", "said"),
    [
        (0.2, 0.5, "does not carry over to others"),
        (0.5, 0.2, "look at the data"),
        (0.5, 0.505, "intervals overlap"),
    ],
)
def test_the_gap_between_seen_and_unseen_topics_is_told_with_both_figures(record, unseen, seen, said):
    sentence = gap(sides(record, base=0.1, tuned=unseen), sides(record, base=0.15, tuned=seen))
    assert said in sentence
    assert f"The gap is {seen - unseen:+.3f}" in sentence
    assert sentence.index("Seen topics") < sentence.index("base 0.15") < sentence.index("Unseen topics")
    assert sentence.count(" to ") >= 2, "both intervals"
    assert sentence.count("Bits per byte") == 1
    assert "has learned those topics" not in sentence, "the likelihoods are the same here"


def test_the_gap_shows_in_the_likelihood_where_the_answers_hide_it(record):
    def tuned(nll):
        return {"tuned": {"metrics": summary.system_metrics("tuned", system(record, 0.3, nll), BOOTSTRAP)}}

    sentence = gap(tuned(3.0), tuned(1.0))
    assert "not measurably better" in sentence
    assert sentence.endswith("so it has learned those topics beyond what carries over.")


def test_no_gap_is_told_where_none_was_measured(record):
    assert "were not compared" in gap(sides(record, nearest=0.2), sides(record, nearest=0.3))
    lone = {"tuned": {"metrics": summary.system_metrics("tuned", [record(1, group="g")], BOOTSTRAP)}}
    assert "too few topics" in gap(lone, lone)


def test_the_embedded_model_and_library_are_warned_of():
    nothing = {"systems": {}, "floors": {}, "test": {"questions": 200, "groups": 200}}
    assert warnings(nothing, "gpt2", ["rows.csv"]) == []
    model, library = warnings(nothing, "starter", ["starter"])
    assert "demonstration model" in model
    assert "Nobody clinical has reviewed" in library
