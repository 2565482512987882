"""Reading a recipe: overrides, and messages that say what is wrong, what is right, and say it all at once."""

from pathlib import Path

import pytest

from medtune import recipe_file
from medtune.errors import RecipeError

GOOD = """
name: x
model: {base: b}
data: {sources: [{layout: text, path: p}]}
tune: {learning_rate: 5e-5}
"""


def load(folder: Path, text: str, *overrides: str):
    (folder / "r.yaml").write_text(text)
    return recipe_file.load(folder / "r.yaml", overrides)


def mistakes(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_overrides_reach_sections_and_list_items(tmp_path):
    recipe = load(
        tmp_path,
        GOOD,
        "tune.lora.rank=32",
        "data.sources.0.path=a=b.csv",
        "evaluate.systems=[base]",
        "tune.max_steps=3",
    )
    assert recipe.tune.lora.rank == 32
    assert recipe.data.sources[0].path == "a=b.csv"
    assert recipe.evaluate.systems == ("base",)
    assert recipe.tune.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rank", "dotted.key=value"),
        ("tune.lora.rnk=3", "tune.lora.rnk: unknown key. Did you mean rank?"),
        ("tune.epochs.x=3", "tune.epochs: input should be a valid number"),
        ("name.x=3", "name is a value"),
        ("data.sources.4.path=p", "it has the items 0 to 0"),
        ("data.sources.0.layout.x=p", "layout is a value"),
    ],
)
def test_wrong_override_says_why(tmp_path, override, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, GOOD, override)


def test_all_mistakes_come_at_once_with_conflicts(tmp_path):
    text = mistakes(
        tmp_path,
        """
name: "no good!"
model: {base: scratch, quantization: nf4, quantisation: x, scratch: {width: 100}}
data:
  sources: [{layout: flashcrds, pth: x}]
  split: {validation: 0.5, test: 0.5}
tune: {method: full, lora: {rnk: 3}, epochs: -1}
evaluate: {systems: [random, foo]}
""",
    )
    lines = text.splitlines()
    assert lines[0].endswith("12 mistakes")
    assert len(lines) == 13
    for part in (
        "name: not allowed (got 'no good!')",
        "model.quantisation: unknown key. Did you mean quantization?",
        "model.scratch: width (100)",
        "Did you mean flashcards?",
        "data.sources.0.path: missing",
        "data.split: validation (0.5) + test (0.5)",
        "tune.epochs: must be > 0.0 (got -1)",
        "evaluate.systems.1: must be",
        "tune.method: full and model.quantization: nf4",
        "model.base: scratch and model.quantization: nf4",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe is a mapping"),
        ("[1]", "a recipe is a mapping"),
        ("a: [", "not valid YAML"),
        ("name: x\nname: y", "'name' stands twice"),
        ("yes: 3", "a key must be a word"),
        ("{[1]: 2}", "a key must be a word"),
        ("name: x\nmodel: foo\ndata:", "model: must be a section with the keys base, revision"),
        ("name: x\nmodel: {base: b}\ndata: {sources: [foo]}", "data.sources.0: must be a section"),
        ("name: x\nmodel: {base: b}\ndata: {sources: []}", "data.sources: tuple should have at least 1 item"),
        (GOOD.replace("{learning_rate: 5e-5}", "{lora: {targets: 3}}"), "tune.lora.targets: must be 'all-linear'"),
        (GOOD.replace("5e-5", ".inf"), "tune.learning_rate: input should be a finite number"),
    ],
)
def test_malformed_recipe_is_explained(tmp_path, text, message):
    assert message in mistakes(tmp_path, text)


def test_wrong_item_does_not_make_its_list_too_short(tmp_path):
    assert "too short" not in (text := mistakes(tmp_path, GOOD, "data.sources.0.layout=x"))
    assert "at least 1 item" not in text
    assert text.splitlines()[0].endswith("1 mistake")


def test_missing_recipe_lists_those_beside_it(tmp_path):
    load(tmp_path, GOOD)
    with pytest.raises(RecipeError, match=r"there is no such recipe. Recipes there: r.yaml"):
        recipe_file.load(tmp_path / "q.yaml")


def test_a_folder_is_not_a_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"a folder without recipe.json"):
        recipe_file.load(tmp_path)


def test_resolved_recipe_loads_again(tmp_path):
    recipe = load(tmp_path, GOOD)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(indent=2))
    assert recipe_file.load(tmp_path / "recipe.json") == recipe


CONFLICTS = [
    (["tune.method=prompt", "tune.rows=packed"], "tune.method: prompt and tune.rows: packed"),
    (["tune.method=full", "model.quantization=nf4"], "4-bit weights have no gradient"),
    (["tune.optimizer=muon", "tune.method=lora"], "tune.optimizer: muon and tune.method: lora exclude each other"),
    (["tune.lora.dora=true", "model.quantization=nf4", "model.device=cpu"], "Set tune.lora.dora: false"),
    (["model.base=scratch", "model.quantization=nf4"], "random weights must be trained"),
    (["tune.rows=packed", "model.attention=sdpa"], "only medtune's own kernel keeps packed documents apart"),
    (["data.split.test=0"], "data.split.test: 0 leaves nothing to measure"),
]


def test_a_pattern_that_is_no_regular_expression_is_named(tmp_path):
    assert "data.clean.exclude: not a regular expression" in mistakes(tmp_path, GOOD, "data.clean.exclude=(")


@pytest.mark.parametrize(("overrides", "message"), CONFLICTS)
def test_known_bad_pair_is_refused_with_its_reason(tmp_path, overrides, message):
    assert message in mistakes(tmp_path, GOOD, *overrides)
