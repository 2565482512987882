"""The schema alone: frozen, strict, one default per option, every option documented."""

import typing

import pydantic
import pytest

from medtune.recipe import LEARNING_RATES, Recipe, Section, TuneSection, known_bad_pairs

SMALLEST = {"name": "x", "model": {"base": "b"}, "data": {"sources": [{"layout": "text", "path": "p"}]}}


def sections(section=Recipe):
    yield section
    for field in section.model_fields.values():
        for inner in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from sections(inner)


def test_every_option_is_documented_in_one_line():
    undocumented = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not field.description or "\n" in field.description
    ]
    assert undocumented == []
    assert len(set(sections())) == 19


def test_recipe_is_frozen():
    recipe = Recipe.model_validate(SMALLEST)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.tune.epochs = 7


def test_resolved_recipe_reads_back_as_itself():
    recipe = Recipe.model_validate(SMALLEST)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("method", LEARNING_RATES)
def test_learning_rate_is_the_methods_own_unless_given(method):
    assert TuneSection(method=method).peak_learning_rate == LEARNING_RATES[method]
    assert TuneSection(method=method, learning_rate=7e-5).peak_learning_rate == 7e-5


def test_no_known_bad_pair_holds_by_default():
    assert not any(holds for holds, _ in known_bad_pairs(Recipe.model_validate(SMALLEST)))
