"""`medtune rehearse`: the whole recipe, data to report, on a shrunken random model and a few rows.

Covered: every code path of the real run, with the recipe's layout, template, method and systems, at toy size: mistakes
show on a CPU in minutes, before a GPU is rented. Not covered: quality, speed and memory at full size (`check` estimates
them), and whatever the real base or data have that their stand-ins lack; what stood in is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from medtune import check, pipeline
from medtune.errors import RecipeError, TuningError
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json, read_lines

ROWS = 240
console = Console(highlight=False)


def run(recipe: Recipe, run_dir: RunDir, *, tokenizer: Path | None = None, data: Path | None = None) -> None:
    """Rehearse `recipe` in `run_dir` and say what that proves. Raises the first error that stops it, and a TuningError
    for assertions that fail although the stages run through."""
    from medtune.data.stage import load_split
    from medtune.models import shapes

    small = shrunken(recipe, data, has_real_tokenizer=tokenizer is not None)
    if small.model.base != "scratch":
        small = _with_model(small, {"base": str(run_dir.base), "revision": None})
    pipeline.run(small, run_dir, only="data")
    texts = (message.content for conversation in load_split(run_dir, "train") for message in conversation.messages)
    section = shapes.rehearsal_base(recipe, run_dir.base, texts, tokenizer)
    changed = ("base", "revision", "chat_template", "scratch")
    small = _with_model(small, {name: getattr(section, name) for name in changed})
    console.rule("assertions")
    problems = check.failed(check.prepare(small, run_dir))
    pipeline.run(small, run_dir)
    _show_outcome(run_dir, tokenizer, data)
    if problems:
        raise TuningError(check.summary(problems))


def _with_model(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})


def _show_outcome(run_dir: RunDir, tokenizer: Path | None, data: Path | None) -> None:
    tuning, summary = read_json(run_dir.path / "tuning.json"), read_json(run_dir.evaluation / "summary.json")
    template = run_dir.manifest()["chat_template"]
    answers = {name: system["counts"]["asked"] for name, system in summary["systems"].items()}
    proven = (
        f"data: read, cleaned and split into {len(list(read_lines(run_dir.split('train'))))} training conversations",
        f"chat template {template['name']}: rendered, stored with hash {template['hash']}, the same at evaluation",
        f"{tuning['method']}: {tuning['parameters_trainable']:,} weights trained for {tuning['steps']} updates, "
        "saved and loaded again",
        f"evaluation: {', '.join(f'{name} {count}' for name, count in answers.items())} questions answered and scored",
        f"report: {run_dir.path / 'report.html'}",
    )
    open_questions = (
        "quality, speed and memory at full size (medtune check --measure)",
        "the real weights: a shrunken random model stood in",
        *(["the real tokenizer, unless it could be read from the Hub (--tokenizer DIR)"] if tokenizer is None else []),
        *([f"the real data: {data} stood in"] if data is not None else []),
    )
    console.rule("rehearsed")
    for line in proven:
        console.print(Text("  ok   ", "green"), line, sep="", markup=False, soft_wrap=True)
    for line in open_questions:
        console.print(Text("  open ", "yellow"), line, sep="", markup=False, soft_wrap=True)


def shrunken(recipe: Recipe, data: Path | None, *, has_real_tokenizer: bool) -> Recipe:
    """The same recipe with a few rows, updates and questions; whatever chooses a code path is left as it is.

    Without a GPU, what only a GPU can do gives way. A stand-in tokenizer cuts words into more pieces than the real one,
    so that the share of cut rows says nothing.
    """
    import torch

    if data is not None and len(recipe.data.sources) > 1:
        raise RecipeError(
            f"--data stands in for the one source of a recipe; this one has {len(recipe.data.sources)}. "
            "Name each instead: data.sources.0.path=PATH data.sources.1.path=PATH"
        )
    tree: dict[str, Any] = recipe.model_dump(mode="json")
    for source in tree["data"]["sources"]:
        source["limit"] = min(source["limit"] or ROWS, ROWS)
        if data is not None:
            source |= {"path": str(data), "revision": None}
    tree["name"] += "-rehearsal"
    tree["data"]["split"] |= {"validation": 0.15, "test": 0.15}
    tree["data"]["max_truncated"] = tree["data"]["max_truncated"] if has_real_tokenizer else 1.0
    tune = {"max_steps": 6, "evaluations": 2, "validation_rows": 16, "sample_answers": 1, "report_to": ()}
    tree["tune"] |= {**tune, "batch_size": min(recipe.tune.batch_size, 4), "checkpoint_steps": None}
    tree["sweep"]["questions"] = 12
    tree["evaluate"] |= {"questions": 12, "max_new_tokens": 24, "latency_questions": 2, "resamples": 200}
    tree["assistant"]["knowledge"]["encoder"] = "none"
    if not torch.cuda.is_available():
        tree["model"]["device"] = "auto"
        tree["tune"]["optimizer"] = "adamw"
        if recipe.model.attention == "flash_attention_2":
            tree["model"]["attention"] = "auto"
    return Recipe.model_validate(tree)
