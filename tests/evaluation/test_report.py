"""One file, nothing fetched, nothing executed but our own script, everything escaped, every number from the summary."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from medtune.evaluation import charts, overlap, report, summary
from medtune.evaluation import page as pages
from medtune.evaluation.statistics import Bootstrap
from medtune.evaluation.verdict import verdict, warnings
from medtune.recipe_file import validate
from medtune.run_dir import environment
from medtune.types import Completion

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
RECIPE = validate(
    {"name": "r", "model": {"base": "scratch"}, "data": {"sources": [{"layout": "chat", "path": "a"}]}}, "r"
)
CARD = {
    "sources": [{
        "path": EVIL, "layout": "medquad_csv", "revision": None, "commit": "", "licences": {"CC BY 4.0": 9}, "files": 1,
        "rows": 16407, "bad_rows": 1, "conversations": 16000,
    }],
    "bad_rows": {"count": 1, "examples": [{"file": "a.csv", "row": 17, "text": "column Answer is null"}]},
    "dropped": [{"reason": "exact duplicate", "count": 48, "example": {"file": "a.csv", "row": 3, "text": EVIL}}],
    "splits": {"test": {"conversations": 820, "groups": 333, "share": 0.05}},
    "leakage": {"before": {"questions": 0.201, "answers": 0.187, "topics": None}, "after": None},
    "answer_histogram": {"edges": [0, 10, 50], "counts": [3, 9]},
    "question_types": {"symptoms": 9}, "topics": {"count": 2, "largest": [{"topic": EVIL, "conversations": 5}]},
}  # fmt: skip
TUNING = {
    "method": "lora", "seconds": 61.5, "rows": {"used": 10, "truncated": 1, "dropped": 0}, "is_packed": True,
    "history": [{"step": s, "loss": 4 - s / 100, "validation_loss": 4.1 - s / 100} for s in range(0, 300, 50)],
}  # fmt: skip


class Page(HTMLParser):
    """Tags with attributes, and text, of one page; refuses a tag that is closed in the wrong place."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] not in (["style"], ["script"]) else ""


def page(record, *, names=("random", "base", "tuned"), tuning=TUNING, card=CARD, shown=20):
    completion = Completion(EVIL, "length", 5, 9, 0.5)
    records = {
        name: [
            record(
                i, 0.2 + 0.01 * i, f"g{i}", question=f"{EVIL} {i}", reference=EVIL, completion=completion, system=name
            )
            for i in range(8)
        ]
        for name in names
    }
    bootstrap = Bootstrap(100, 0)
    cost = dict.fromkeys(
        ("latency_p50_seconds", "latency_p95_seconds", "tokens_per_second", "disk_bytes", "parameters_total",
         "parameters_trainable", "peak_memory_bytes", "training_seconds", "training_peak_memory_bytes"), 1234.5,
    )  # fmt: skip
    systems = {
        name: {"counts": summary.counts(rows), "metrics": summary.system_metrics(name, rows, bootstrap), "cost": cost}
        for name, rows in records.items()
    }
    paired = summary.paired(records["base"], records["tuned"], bootstrap) if {"base", "tuned"} <= set(names) else {}
    test = {"questions": 8, "available": 9, "groups": 8, "max_new_tokens": 64, "batch_size": 4, "latency_questions": 3}
    facts = {"systems": systems, "paired": paired, "floors": {}, "test": test, "prompt_format": {}, "tuning": tuning}
    whole = {
        **facts, "verdict": verdict(paired), "warnings": warnings(facts, "scratch"), "signatures": overlap.signatures(),
        "recipe": RECIPE.model_dump(mode="json"),
        "environment": environment(), "chat_template": {"source": EVIL, "hash": "00ff"}, "data": card,
    }  # fmt: skip
    json.dumps(whole, allow_nan=False)
    return whole, report.render(whole, records, shown, {"c0": 0.9, "c1": 0.1})


def test_the_page_is_whole_and_fetches_nothing(record):
    _, html = page(record)
    tags = Page(html).tags
    assert {"link", "iframe", "img", "object"}.isdisjoint(tag for tag, _ in tags)
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "answer-data"}, {}]
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]
    assert all(attributes["href"].startswith("#") for tag, attributes in tags if tag == "a")
    assert not re.search(r"url\(|@import|https?://", html)


def test_the_first_sentence_is_the_verdict(record):
    whole, html = page(record)
    text = " ".join(Page(html).text.replace("\u00a0", " ").split())
    start = text.index(whole["verdict"]["sentence"])
    assert "r · medtune report" in text[:start]
    assert len(text[:start]) < 80


def test_text_of_models_and_data_is_data(record):
    _, html = page(record)
    assert EVIL not in html
    assert Page(html).text.count(EVIL) >= 8 * 3 + 3


def test_every_figure_of_the_page_is_shown_from_the_summary(record):
    whole, html = page(record)
    text = Page(html).text
    for name, system in whole["systems"].items():
        assert f"{system['metrics']['rouge_l']['value']:.3f}" in text, name
    for part in (
        "48",
        "exact duplicate",
        "20.1%",
        "not measured",
        "column Answer is null",
        "CC BY 4.0",
        "00ff",
        "61.5 s",
        "documents packed without padding",
    ):
        assert part in text
    assert whole["signatures"]["bleu"] in text
    assert [tag for tag, _ in Page(html).tags].count("svg") == 6 + 1 + 1


def test_all_answers_stand_in_the_page_as_data(record):
    _, html = page(record, shown=3)
    block = re.findall(r'<script type="application/json" id="answer-data">(.*?)</script>', html)[0]
    assert "<" not in block
    data = json.loads(block)
    assert data["systems"] == ["random", "base", "tuned"]
    assert data["shown"] == ["base", "tuned"]
    assert [item["question"] for item in data["items"]] == [f"{EVIL} {i}" for i in range(8)]
    assert [item["near"] for item in data["items"]][:3] == [True, False, None]
    answer = data["items"][2]["answers"]["tuned"]
    assert answer == {"text": EVIL, "score": 0.22, "status": "scored", "finish": "length"}
    assert "answer-data" not in page(record, shown=0)[1]


@pytest.mark.slow
def test_the_script_shows_answers_as_text_and_filters_them(record, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    (tmp_path / "report.html").write_text(page(record, shown=1)[1])
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    found = subprocess.run(
        [browser, *options, f"file://{tmp_path}/report.html"], capture_output=True, text=True, timeout=120
    )
    dom = found.stdout
    assert "8 of 8 questions" in dom
    assert dom.count("<article") == 8, "all of them, not only the one that is printed"
    assert "&lt;img src=x" in dom
    assert "<img" not in dom


def test_a_value_of_few_questions_says_of_how_many():
    value = {"value": 0.5, "low": 0.1, "high": 0.9, "questions": 3}
    assert "(of 3)" in pages.figure(value, "numbers", asked=10)
    assert "(of" not in pages.figure(value, "numbers", asked=3)


def test_a_difference_shows_its_corrected_p_value():
    value = {"value": 0.1, "low": 0.05, "high": 0.2, "p_holm": 0.0004, "direction": "helped"}
    assert "p &lt; .001" in pages.figure(value, "rouge_1", True)


def test_shown_answers_are_the_first_ones(record):
    text = Page(page(record, shown=3)[1]).text
    assert "The first 3 test questions" in text
    assert f"{EVIL} 2" in text
    assert f"{EVIL} 3" not in text


@pytest.mark.parametrize("names", [("random",), ("base",), ("random", "tuned")])
def test_a_part_of_a_run_makes_a_page_too(record, names):
    _, html = page(record, names=names, tuning=None, card=None, shown=0)
    text = Page(html).text
    for part in ("Whether tuning helped was not measured", "Nothing was tuned", "no data card", "None: no model"):
        assert part in text


def test_a_bar_without_a_measurement_says_so():
    svg = charts.bars("ROUGE-L", {"base": None, "tuned": {"value": 0.5, "low": 0.4, "high": 0.6}}, str)
    assert svg.count("<rect") == 1
    assert svg.count("not measured") == 1
    assert svg.count("whisker") == 1


def test_whiskers_stay_inside_the_picture():
    svg = charts.bars(
        "x", {"a": {"value": 1.0, "low": 0.2, "high": 9.0}, "b": {"value": 0.0, "low": 0.0, "high": 0.0}}, str
    )
    ends = [float(x) for x in re.findall(r"[MH]([\d.]+)", svg)]
    assert max(ends) <= charts.WIDTH - charts.VALUE


@pytest.mark.parametrize(
    "points", [[(0, 1.0)], [(0, 2.0), (1, 2.0)], [(0, 1e-9), (100000, 3e4)], [(5, -1.0), (6, 1.0)]]
)
def test_curves_of_any_range(points):
    svg = charts.curves("Loss", "updates", {"training": points})
    assert "nan" not in svg
    assert svg.count("<circle") == len(points)


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (999, "999 B"), (1234567, "1.23 MB"), (3.5e9, "3.50 GB")])
def test_bytes_in_the_unit_that_fits(value, text):
    assert pages.in_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0123, "12.3 ms"), (61.5, "61.5 s"), (600, "10.0 min"), (9000, "2.5 h")]
)
def test_seconds_in_the_unit_that_fits(value, text):
    assert pages.in_seconds(value) == text
