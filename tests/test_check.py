"""medtune check: what it shows, and that each of its assertions fails where it must."""

import dataclasses
from pathlib import Path

import pytest

from medtune import check, recipe_file
from medtune.data import stage as data_stage
from medtune.errors import TuningError
from medtune.models.chat_template import IGNORED
from medtune.run_dir import RunDir

ROOT = Path(__file__).parents[1]
SMALL = (
    "model.base=scratch",
    "tune.method=full",
    "model.scratch={layers: 2, width: 32, heads: 2, vocabulary: 600}",
    "data.sources.0.limit=40",
    "data.max_length=512",
    "data.max_truncated=1",
)


def load(*overrides):
    return recipe_file.load(ROOT / "recipes" / "starter.yaml", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    recipe, run_dir = load(), RunDir(tmp_path_factory.mktemp("run"))
    data_stage.run(recipe, run_dir)
    return check.prepare(recipe, run_dir)


def with_samples(subject, change):
    """The subject with `change` applied to its first sample."""
    first, *others = subject.samples
    return dataclasses.replace(subject, samples=[change(first), *others])


def test_every_assertion_holds_on_a_good_recipe(subject, capsys):
    assert check.failed(subject) == []
    printed = capsys.readouterr().out
    assert printed.count("  ok   ") == len(check.ASSERTIONS)
    assert f"{len(subject.samples)} training rows; " in printed


def mask_end(sample):
    return dataclasses.replace(sample, labels=[*sample.labels[:-1], IGNORED])


def learn_prompt(sample):
    first = sample.labels.index(next(label for label in sample.labels if label != IGNORED))
    return dataclasses.replace(sample, labels=[*sample.input_ids[: first - 1], IGNORED, *sample.labels[first:]])


def double_start(sample):
    start = sample.input_ids[0]
    return dataclasses.replace(sample, input_ids=[start, *sample.input_ids], labels=[IGNORED, *sample.labels])


def other_prompt(sample):
    return dataclasses.replace(sample, input_ids=[sample.input_ids[0], 0, *sample.input_ids[2:]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (mask_end, "the end token is supervised"),
        (learn_prompt, "labels cover the answers and nothing else"),
        (double_start, "no row starts with two start tokens"),
        (other_prompt, "generation is fed exactly the beginning"),
    ],
)
def test_assertion_fails_where_it_must(subject, change, words, capsys):
    problems = check.failed(with_samples(subject, change))
    assert any(words in problem and subject.samples[0].id in problem for problem in problems)
    assert "  no   " in capsys.readouterr().out


def test_rendered_conversation_is_the_row_itself(subject):
    text = check.rendered(subject)
    sample = min(subject.samples, key=lambda sample: abs(len(sample.input_ids) - check.SHOWN_TOKENS))
    row = subject.tokenizer.decode(sample.input_ids)
    assert text.plain.startswith(row)
    learned = "".join(text.plain[s.start : s.end] for s in text.spans if "green" in str(s.style) and s.end <= len(row))
    assert learned == subject.tokenizer.decode([label for label in sample.labels if label != IGNORED])


def test_check_shows_costs_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check.run(load())
    printed = capsys.readouterr().out
    for word in ("Leakage", "weights", "adapter", "optimizer", "activations", "logits", "peak memory", "whole tuning"):
        assert word in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_measurement_stands_beside_the_estimate(capsys):
    check.run(load("tune.batch_size=4"), measure=True)
    printed = capsys.readouterr().out
    assert "measured" in printed
    row = next(line for line in printed.splitlines() if "peak memory" in line)
    assert row.count("B") == 2


def test_wrong_lora_target_stops_the_check(capsys):
    with pytest.raises(TuningError, match=r"nope match no linear module.*Its linear modules are"):
        check.run(load("tune.method=lora", "tune.lora.targets=[nope]"))
    assert "cost" in capsys.readouterr().out


def test_a_long_plain_text_is_learned_in_windows(tmp_path):
    words = [f"word{i} of the chapter" for i in range(400)]
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(f"Chapter {number}. " + ", ".join(words[number:]))
    source = f"{{layout: text, path: '{tmp_path}'}}"
    recipe = load(
        f"data.sources=[{source}]", "data.max_length=64", "data.clean.near_duplicate=1", "data.split.phrasings=0"
    )
    run_dir = RunDir(tmp_path / "run")
    data_stage.run(recipe, run_dir)
    subject = check.prepare(recipe, run_dir)
    assert len(subject.samples) > 10 * len(subject.conversations)
    assert check.failed(subject) == []
    lost = dataclasses.replace(subject, samples=subject.samples[1:])
    assert [line.split(":")[0] for line in check.failed(lost)] == ["labels cover the answers and nothing else"]


def test_8_bit_adamw_is_refused_before_tuning(subject):
    recipe = subject.recipe.model_copy(
        update={"tune": subject.recipe.tune.model_copy(update={"optimizer": "adamw_8bit"})}
    )
    assert "needs a CUDA device" in check.failed(dataclasses.replace(subject, recipe=recipe))[0]
