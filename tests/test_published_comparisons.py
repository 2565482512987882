"""What published projects compare, with shrunken models: LoRA with prompt tuning, learning rates, full with QLoRA."""

from pathlib import Path

import pytest

from medtune import recipe_file, rehearse, sweep
from medtune.evaluation import compare
from medtune.run_dir import RunDir, read_json

RECIPES = Path(__file__).parents[1] / "recipes"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def rehearsed(shared_data, shared_tokenizers, tmp_path):
    """Rehearses a recipe on a real file with its real tokenizer: rehearsed(name, file, tokenizer)."""

    def run(name, file, tokenizer):
        run_dir = RunDir(tmp_path / name)
        recipe = recipe_file.load(RECIPES / f"{name}.yaml", ["evaluate.encoder=none"])
        rehearse.run(recipe, run_dir, tokenizer=shared_tokenizers / tokenizer, data=shared_data / file)
        return recipe_file.load(run_dir.path / "recipe.json"), run_dir

    return run


@pytest.mark.parametrize(
    ("first", "second", "file", "tokenizer"),
    [
        ("dialogpt-large-lora-medquad", "dialogpt-large-prompt-medquad", "medquad.csv.gz", "gpt2"),
        ("flan-t5-base-full", "flan-t5-base-qlora", "labelled_answers.csv.gz", "t5-small"),
    ],
)
def test_two_ways_to_tune_are_paired_on_the_same_questions(rehearsed, tmp_path, first, second, file, tokenizer):
    runs = [rehearsed(name, file, tokenizer) for name in (first, second)]
    result = compare.run(runs, tmp_path)
    assert [row["name"] for row in result["rows"]] == ["untuned base", first, second]
    assert result["questions"] == 12
    (pair,) = result["pairs"]
    assert pair["bits_per_byte"]["questions"] == 12
    assert all(row["improvement"]["questions"] == 12 for row in result["rows"][1:])


def test_three_learning_rates_with_the_untuned_base_as_first_row(rehearsed, tmp_path):
    recipe, _ = rehearsed("tinyllama-lora-flashcards", "flashcards_openstax.json.gz", "llama2")
    sweep.run(recipe, tmp_path / "sweep")
    result = read_json(tmp_path / "sweep" / "experiments.json")
    assert [(row["name"], row["learning_rate"], row["effective_batch"]) for row in result["rows"]] == [
        ("untuned base", None, None), ("rate-1e-4", 1e-4, 8), ("rate-5e-5", 5e-5, 3), ("rate-2e-5", 2e-5, 4),
    ]  # fmt: skip
    best = min(result["rows"][1:], key=lambda row: row["validation_loss"])
    assert result["chosen"] == best["name"]


def test_base_and_tuned_stand_side_by_side(rehearsed):
    _, run_dir = rehearsed("tinyllama-lora-flashcards-small", "flashcards_openstax.json.gz", "llama2")
    assert set(read_json(run_dir.evaluation / "summary.json")["paired"]) >= {"rouge_l", "bleu", "bits_per_byte"}
    assert (run_dir.path / "report.html").read_text().count('<section class="answer tuned">') == 12
