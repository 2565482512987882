"""The figures, worked out by hand, and the files they come from."""

import json
import math

import pytest

from medtune.errors import DataError, EvaluationError
from medtune.knowledge.evaluate import evaluate, read_judgments, read_queries, write_hits
from medtune.types import Hit, Passage


def test_figures_are_those_worked_out_by_hand():
    grades = {"q1": {"a": 3, "b": 1, "c": 3}, "q2": {"d": 2}}
    figures = evaluate({"q1": ["b", "a", "x"], "q2": ["d"], "q3": ["a"]}, grades, k=2)
    assert figures["avg@1"].mean == pytest.approx((1 + 2) / 2)
    assert figures["MRR"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert figures["recall@2"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert figures["judged@2"].mean == 1
    ideal = 3 + 3 / math.log2(3) + 1 / 2
    assert figures["nDCG@10"].mean == pytest.approx(((1 + 3 / math.log2(3)) / ideal + 1) / 2)
    assert figures["avg@1"].queries == 2


def test_what_was_not_judged_counts_as_wrong():
    figures = evaluate({"q": ["x", "y"]}, {"q": {"a": 1.0}})
    assert figures["avg@1"].mean == figures["recall@10"].mean == figures["judged@10"].mean == 0


def test_a_query_without_relevant_passages_has_no_recall_but_an_average():
    figures = evaluate({"q": ["a"], "r": ["b"]}, {"q": {"a": 2}, "r": {"b": 0}})
    assert figures["recall@10"].queries == 1
    assert figures["avg@1"].queries == 2


def test_the_interval_holds_the_mean_and_narrows_with_queries():
    def width(n):
        found = {str(i): ["a" if i % 2 else "b"] for i in range(n)}
        figure = evaluate(found, {str(i): {"a": 1, "b": 0} for i in range(n)})["avg@1"]
        assert figure.low <= figure.mean <= figure.high
        return figure.high - figure.low

    assert width(400) < width(20) / 3


def test_ids_that_do_not_meet_are_explained():
    with pytest.raises(EvaluationError, match=r"None of the 1 queries has a judgment.*q1.*other"):
        evaluate({"q1": ["a"]}, {"other": {"a": 1}})
    with pytest.raises(EvaluationError, match="nothing is relevant"):
        evaluate({"q1": ["a"]}, {"q1": {"a": 0}})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 3, "text": "x"}', "`id` is 3, expected text"),
        ('{"id": "a"}', "`text` is null"),
        ("nonsense", "not valid JSON"),
        ("[1]", "list, expected an object"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "stands there twice"),
    ],
)
def test_broken_queries_name_their_line(tmp_path, line, message):
    path = tmp_path / "queries.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message) as error:
        read_queries(path)
    assert f"{path}:" in str(error.value)


def test_judgments_are_grades_by_query(tmp_path):
    path = tmp_path / "judgments.jsonl"
    path.write_text('{"query": "q", "passage": "a", "grade": 2}\n\n{"query": "q", "passage": "b", "grade": 0.5}\n')
    assert read_judgments(path) == {"q": {"a": 2.0, "b": 0.5}}
    path.write_text('{"query": "q", "passage": "a", "grade": true}\n')
    with pytest.raises(DataError, match="expected a number"):
        read_judgments(path)


def test_hits_are_written_a_line_per_query(tmp_path):
    hit = Hit(Passage("id", "text", "Title", "Section", url="https://example.org"), 0.25)
    write_hits(tmp_path / "hits.jsonl", {"q": [hit], "r": []})
    lines = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    row = {"passage": "id", "score": 0.25, "title": "Title", "section": "Section", "url": "https://example.org"}
    assert lines == [{"query": "q", "hits": [row]}, {"query": "r", "hits": []}]
