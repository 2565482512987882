"""The recipes in the repository: each loads, says what it costs, and is what the published system was."""

import re
from pathlib import Path

import pytest

from medtune import recipe_file

FOLDER = Path(__file__).parents[1] / "recipes"
NAMES = {
    "starter",
    "starter-prompt",
    "starter-answers",
    "starter-base",
    "dialogpt-large-lora-medquad",
    "dialogpt-large-prompt-medquad",
    "tinyllama-lora-flashcards",
    "tinyllama-lora-flashcards-small",
    "flan-t5-base-full",
    "flan-t5-base-qlora",
    "llama3-8b-qlora-dialogues",
}
RECIPES = sorted(FOLDER.glob("*"))


def test_all_recipes_are_found():
    assert {path.name for path in RECIPES} == {f"{name}.yaml" for name in NAMES}
    assert len(RECIPES) == len(NAMES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_under_its_own_name(path):
    assert recipe_file.load(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_header_says_cost_command_and_expectation(path):
    header = path.read_text().split("\nname:")[0]
    for word in ("Data", "Cost", "Command", "Expected"):
        assert re.search(rf"^# {word} +\S", header, re.MULTILINE), f"{path.name} does not say {word}"
    assert f"medtune run recipes/{path.name}" in header
    assert "@" not in header


def test_published_settings_of_the_flashcards_recipe_are_a_sweep():
    recipe = recipe_file.load(FOLDER / "tinyllama-lora-flashcards.yaml")
    options = [{k: v for k, v in experiment.items() if k != "name"} for experiment in recipe.sweep.experiments]
    tunes = [recipe_file.with_options(recipe, each, "test").tune for each in options]
    assert [(t.learning_rate, t.batch_size, t.accumulation) for t in tunes] == [
        (1e-4, 2, 4),
        (5e-5, 1, 3),
        (2e-5, 2, 2),
    ]


def test_what_is_to_be_compared_names_recipes_that_are_there():
    commands = {path.stem: re.findall(r"^# Compare +medtune compare (.+)$", path.read_text(), re.M) for path in RECIPES}
    named = {name: command[0].split() for name, command in commands.items() if command}
    assert len(named) == 4
    for name, runs in named.items():
        assert f"runs/{name}" in runs
        assert {run.removeprefix("runs/") for run in runs} <= NAMES


def test_published_shapes():
    recipes = {path.stem: recipe_file.load(path) for path in RECIPES}
    assert recipes["dialogpt-large-prompt-medquad"].tune.method == "prompt"
    assert recipes["dialogpt-large-lora-medquad"].data == recipes["dialogpt-large-prompt-medquad"].data
    assert recipes["starter"].data == recipes["starter-prompt"].data, "one test, two methods"
    assert recipes["tinyllama-lora-flashcards"].tune.lora.targets == ("q_proj", "v_proj")
    assert recipes["flan-t5-base-full"].data == recipes["flan-t5-base-qlora"].data
    assert recipes["llama3-8b-qlora-dialogues"].model.quantization == "nf4"
    assert len(recipes["llama3-8b-qlora-dialogues"].tune.lora.targets) == 7
