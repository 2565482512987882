"""From a YAML file and overrides to a `Recipe`, with every mistake reported at once.

Covered: YAML, dotted overrides, error messages with a suggestion for each wrong key, reading a run's own recipe.
Not covered: the schema (`recipe`); conflicts that need the model or the data (`check`).
"""

from __future__ import annotations

import copy
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from medtune.errors import RecipeError
from medtune.recipe import Recipe


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe in `path` and lay `overrides` (`dotted.key=value`, the value in YAML) over it.

    Raises RecipeError with one line per mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        listing = f" Recipes there: {', '.join(near)}." if near else ""
        raise RecipeError(f"{path}: there is no such recipe.{listing}") from None
    except IsADirectoryError:
        raise RecipeError(
            f"{path}: a folder without recipe.json, so not a run's. Expected a recipe (YAML) or the folder of a run."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    try:
        tree = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML.\n{error}") from None
    if not isinstance(tree, dict):
        keys = ", ".join(Recipe.model_fields)
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {keys} (found {type(tree).__name__}).")
    for override in overrides:
        _apply(tree, override)
    return validate(tree, str(path))


def validate(tree: Any, origin: str) -> Recipe:
    """The recipe that `tree` describes; `origin` opens the error message."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = _problems(error)
    problems += _conflicts(_mended(tree, problems))
    lines = [line for problem in problems for line in _explain(problem).splitlines()]
    many = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    raise RecipeError(f"{origin}: {many}\n" + "\n".join(f"  {line}" for line in lines))


def _problems(error: ValidationError) -> list[Any]:
    """pydantic's list, less what only pydantic would say: names of union members in a location, and "too short" for a
    list whose items are merely wrong (those have errors of their own)."""
    problems: list[Any] = [
        {**problem, "loc": tuple(part for part in problem["loc"] if "[" not in str(part))} for problem in error.errors()
    ]
    return [p for p in problems if p["type"] != "too_short" or len(p["input"]) < p["ctx"]["min_length"]]


def _conflicts(tree: Any) -> list[Any]:
    """The conflicts between options that pydantic looks for only once every single option is right."""
    try:
        Recipe.model_validate(tree)
    except ValidationError as error:
        problems = _problems(error)
        deeper = [] if any(not p["loc"] for p in problems) else _conflicts(_mended(tree, problems))
        return [p for p in problems if p["type"] == "value_error"] + deeper
    return []


def _mended(tree: Any, problems: list[Any]) -> Any:
    """`tree` with the default, or any right value, in place of each wrong one."""
    tree = copy.deepcopy(tree)
    for *parents, last in (_up_to_list(problem["loc"]) for problem in problems if problem["loc"]):
        node = tree
        for part in parents:
            node = node.get(part, {})
        if last in _STAND_INS:
            node[last] = _STAND_INS[last]
        else:
            node.pop(last, None)
    return tree


def _up_to_list(location: tuple[Any, ...]) -> list[Any]:
    return list(itertools.takewhile(lambda part: isinstance(part, str), location))


_SOURCES = [{"layout": "text", "path": "x"}]
_STAND_INS: dict[str, Any] = {
    "name": "x", "base": "x", "sources": _SOURCES, "model": {"base": "x"}, "data": {"sources": _SOURCES},
}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where it matters: 5e-5 is a number, and a key given twice is refused (plain YAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            word = key_node.tag == "tag:yaml.org,2002:str"
            if not word or key_node.value in seen:
                problem = f"the key {key_node.value!r} stands twice" if word else "a key must be a word"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_FLOAT = "tag:yaml.org,2002:float"
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def with_options(recipe: Recipe, options: Mapping[str, Any], origin: str) -> Recipe:
    """`recipe` with the dotted `options` set to their values; raises RecipeError as `load` does."""
    tree = recipe.model_dump(mode="json")
    for key, value in options.items():
        _set(tree, key, value)
    return validate(tree, origin)


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key. Split at the first `=`, so that values may hold one; list items are named by number."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override!r}: an override is written dotted.key=value, for example tune.lora.rank=32.")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        value = text
    _set(tree, key, value)


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = _child(node, part, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        child = node[_index(node, part, key)]
    else:
        child = node[part] = {} if node.get(part) is None else node[part]
    if not isinstance(child, dict | list):
        raise RecipeError(f"{key}: {part} is a value ({child!r}), not a section, so nothing below it can be set.")
    return child


def _index(node: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise RecipeError(f"{key}: {part!r} is not an item of that list; it has the items 0 to {len(node) - 1}.")
    return int(part)


def _explain(problem: Any) -> str:
    """One pydantic error as `dotted.key: what is wrong (got value)`."""
    location = problem["loc"]
    path = ".".join(str(part) for part in location)
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{path}: unknown key.{_suggest(location)}"
    if kind == "missing":
        return f"{path}: missing, and it has no default.{_help(location)}"
    if kind == "string_pattern_mismatch":
        return f"{path}: not allowed (got {problem['input']!r}).{_help(location)}"
    if kind == "model_type":
        section = _section_at(location)
        keys = ", ".join(section.model_fields) if section else ""
        return f"{path}: must be a section with the keys {keys} (got {problem['input']!r})."
    if kind == "value_error":
        text = str(context["error"])
        return text if not path else f"{path}: {text}"
    limits = {
        "greater_than_equal": ("must be >=", "ge"),
        "greater_than": ("must be >", "gt"),
        "less_than_equal": ("must be <=", "le"),
        "less_than": ("must be <", "lt"),
    }
    if kind in limits:
        words, name = limits[kind]
        return f"{path}: {words} {context[name]} (got {problem['input']!r})"
    if kind == "literal_error":
        near = difflib.get_close_matches(
            str(problem["input"]), context["expected"].replace("'", "").replace(" or ", ", ").split(", "), 1
        )
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{path}: must be {context['expected']} (got {problem['input']!r}).{hint}"
    return f"{path}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']!r})"


def _suggest(location: tuple[Any, ...]) -> str:
    section = _section_at(location[:-1])
    if section is None:
        return ""
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(location[-1]), names, 1)
    return f" Did you mean {near[0]}?" if near else f" Valid keys: {', '.join(names)}."


def _help(location: tuple[Any, ...]) -> str:
    section = _section_at(location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    return f" {field.description}" if field and field.description else ""


def _section_at(location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The schema class that a location in the tree belongs to; numbers are list items."""
    section: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(str(part))
        inner = next((c for c in _classes(field.annotation) if issubclass(c, BaseModel)), None) if field else None
        if inner is None:
            return None
        section = inner
    return section


def _classes(annotation: Any) -> list[type]:
    """Every class named in an annotation, however deep: `tuple[Source, ...] | None` gives Source."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [found for part in get_args(annotation) for found in _classes(part)]
