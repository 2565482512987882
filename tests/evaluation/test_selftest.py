"""An evaluation whose metrics are wrong does not start."""

import pytest

from medtune.errors import EvaluationError
from medtune.evaluation import facts, overlap, selftest


def test_the_self_test_passes_and_says_what_it_found():
    checks = selftest.self_test(["Asthma is a disease."])
    assert all(check["passed"] for check in checks)
    found = {(check["check"], check["metric"]): check["found"] for check in checks}
    assert found["the reference itself scores 1", "bleu"] == pytest.approx(1)
    assert found["the empty answer scores 0", "rouge_lsum"] == 0
    assert 0 < found["the question repeated stays near the floor", "rouge_l"] < 0.35
    assert found["a changed dose costs score", "factual"] == 0
    assert found["a flipped negation costs score", "factual"] < 1


def test_metrics_that_reward_an_empty_answer_are_stopped(monkeypatch):
    monkeypatch.setattr(overlap, "rouge", lambda *_: {"rouge_l": 1.0})
    with pytest.raises(EvaluationError, match=r"the empty answer scores 0: rouge_l gave 1\.0"):
        selftest.self_test([])


@pytest.mark.parametrize("blind", ["numbers", "negations"])
def test_factual_scores_that_see_no_contradiction_are_stopped(monkeypatch, blind):
    monkeypatch.setattr(facts, blind, lambda *_: 1.0)
    with pytest.raises(EvaluationError, match="costs score: factual gave 1"):
        selftest.self_test([])


def test_references_that_rouge_cannot_read_are_refused():
    with pytest.raises(EvaluationError, match="2 of 3 references have none, for example '哮喘是一种疾病'"):
        selftest.self_test(["Asthma.", "哮喘是一种疾病", "哮喘"])
