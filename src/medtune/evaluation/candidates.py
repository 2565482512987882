"""The two language models of an evaluation, base and tuned, loaded and ready to be asked.

Covered: one loaded model for both where the tuned one is an adapter; the base's own best prompt format; refusing a
tuned model in another chat template than it was trained with. Not covered: loading itself (`models.loading`).

A base that is asked in the format of the tuned model looks worse than it is, and tuning looks better. So the base is
asked in the format that makes the reference answers of some validation questions most likely: the run's, its own, or
plain.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from medtune.data.stage import load_split
from medtune.errors import ModelError, RunDirError
from medtune.evaluation.systems import System, draw, few_shot, model_system
from medtune.models import chat_template, loading
from medtune.models.chat_template import ChatTemplate
from medtune.models.completer import TransformersCompleter
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, hash_file, hash_of
from medtune.types import Conversation

MODELS = {"base": {"base", "few_shot"}, "tuned": {"tuned"}}  # what must be loaded for which systems
FORMATS = ("own", "plain")
FORMAT_QUESTIONS = 32
Around = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Candidate:
    """A system, the files and folders that must be shipped to run it, and what is known of its model."""

    system: System
    ships: tuple[Path, ...]
    parameters: int | None = None
    prompt_format: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Bench:
    """What base and tuned have in common."""

    recipe: Recipe
    run_dir: RunDir
    location: str
    tokenizer: Any

    def load(self, *, tuned: bool) -> Any:
        section = self.recipe.model
        if tuned:
            return loading.load_tuned(section, self.location, self.run_dir.adapter)
        return loading.load_model(section, self.location)

    def template(self, model: Any, name: str) -> ChatTemplate:
        section = self.recipe.model.model_copy(update={"chat_template": name})
        return chat_template.choose(section, self.tokenizer, loading.family(model.config), model.config)

    def completer(self, model: Any, template: ChatTemplate, shots: int = 0) -> TransformersCompleter:
        """`shots` examples before each question take as much room again as a conversation has, each."""
        return TransformersCompleter(model, self.tokenizer, template, self.recipe.data.max_length * (1 + shots))

    def system(self, name: str, completer: TransformersCompleter, weights: Sequence[Path], around: Around) -> System:
        """The completer as a system, with all that its answers depend on in its fingerprint."""
        section, limits = self.recipe.model, (self.recipe.data.max_length, self.recipe.evaluate.max_new_tokens)
        numbers = (section.dtype, section.quantization, section.revision)
        content = [folder_hash(folder) for folder in weights]
        fingerprint = hash_of(self.location, content, numbers, limits, completer.template.hash)
        return model_system(name, completer, fingerprint, self.recipe.evaluate.max_new_tokens, around)


def candidates(recipe: Recipe, run_dir: RunDir, validation: Sequence[Conversation]) -> Iterator[Candidate]:
    """Those of base, few_shot and tuned that `evaluate.systems` names; each is good until the next one is asked for.

    Raises ModelError where the tuned model was trained with another chat template, RunDirError where nothing was tuned.
    """
    asked = set(recipe.evaluate.systems)
    wanted = [name for name, systems in MODELS.items() if systems & asked]
    if not wanted:
        return
    bench = _bench(recipe, run_dir)
    shared = len(wanted) == 2 and recipe.tune.method != "full"
    model = bench.load(tuned=True) if shared else None
    for name in wanted:
        if not shared:
            model = None  # two whole models need not fit into memory together
            gc.collect()
            model = bench.load(tuned=name == "tuned")
        if name == "tuned":
            yield _tuned(bench, model)
        else:
            yield from _bases(bench, model, validation, shared)


def tuned_completer(recipe: Recipe, run_dir: RunDir) -> TransformersCompleter:
    """The tuned model alone, in the chat template that it was trained with; raises as `candidates` does."""
    bench = _bench(recipe, run_dir)
    model = bench.load(tuned=True)
    return bench.completer(model, _trained_template(bench, model))


def _bench(recipe: Recipe, run_dir: RunDir) -> _Bench:
    recipe = recipe.model_copy(update={"model": loading.pinned(recipe.model, run_dir)})
    location = loading.locate(recipe.model, run_dir)
    return _Bench(recipe, run_dir, location, loading.load_tokenizer(location, recipe.model.revision))


def _bases(bench: _Bench, model: Any, validation: Sequence[Conversation], shared: bool) -> Iterator[Candidate]:
    """The base as it is, and with examples from the training split before each question."""
    around: Around = model.disable_adapter if shared else contextlib.nullcontext
    if shared:  # disable_adapter silences LoRA; a soft prompt stays behind with the adapter's wrapper
        model = model.get_base_model()
    template, facts = best_format(bench, model, validation, around)
    ships = model_folder(bench.location, bench.recipe.model.revision)
    section, parameters = bench.recipe.evaluate, base_parameters(model)
    if "base" in section.systems:
        system = bench.system("base", bench.completer(model, template), ships, around)
        yield Candidate(system, ships, parameters, facts)
    if "few_shot" in section.systems:
        examples = draw(load_split(bench.run_dir, "train"), section.shots)
        system = bench.system("few_shot", bench.completer(model, template, section.shots), ships, around)
        yield Candidate(few_shot(system, examples), ships, parameters, facts)


def _trained_template(bench: _Bench, model: Any) -> ChatTemplate:
    stored = bench.run_dir.manifest().get("chat_template")
    if stored is None:
        raise RunDirError(
            f"{bench.run_dir.manifest_path}: no chat_template, so nothing was tuned here. Run the tuning first: "
            f"medtune tune RECIPE --out {bench.run_dir.path}"
        )
    template = bench.template(model, bench.recipe.model.chat_template)
    chat_template.require_same(template, stored)
    return template


def _tuned(bench: _Bench, model: Any) -> Candidate:
    template = _trained_template(bench, model)
    adapter = bench.run_dir.adapter
    base = () if bench.recipe.tune.method == "full" else model_folder(bench.location, bench.recipe.model.revision)
    ships = (*base, adapter)
    system = bench.system("tuned", bench.completer(model, template), ships, contextlib.nullcontext)
    return Candidate(system, ships, None, {"name": template.name, "hash": template.hash})


def best_format(
    bench: _Bench, model: Any, validation: Sequence[Conversation], around: Around
) -> tuple[ChatTemplate, dict[str, Any]]:
    """The template in which the base finds the reference answers most likely, and what each one gave.

    Without a validation question nothing is measured and the run's own template is taken.
    """
    templates = {"run": bench.template(model, bench.recipe.model.chat_template)}
    for name in FORMATS:
        with contextlib.suppress(ModelError):  # the tokenizer has no template, or the family cannot have this one
            template = bench.template(model, name)
            if template.hash not in {known.hash for known in templates.values()}:
                templates[name] = template
    questions = draw(validation, FORMAT_QUESTIONS)
    figures = {}
    for name, template in templates.items():
        with around():
            figures[name] = _bits_per_byte(
                bench.completer(model, template), questions, bench.recipe.evaluate.batch_size
            )
    chosen = min(templates, key=lambda name: _or_infinity(figures[name]))
    measured = [
        {"format": name, "template": template.name, "hash": template.hash, "bits_per_byte": figures[name]}
        for name, template in templates.items()
    ]
    facts = {"name": templates[chosen].name, "hash": templates[chosen].hash, "chosen": chosen, "candidates": measured}
    return templates[chosen], {**facts, "validation_questions": len(questions)}


def _bits_per_byte(
    completer: TransformersCompleter, questions: Sequence[Conversation], batch_size: int
) -> float | None:
    measured = [likelihood for _, likelihood in completer.likelihood(questions, batch_size=batch_size)]
    nll, size = sum(likelihood.nll for likelihood in measured), sum(likelihood.bytes for likelihood in measured)
    return nll / size / math.log(2) if size and math.isfinite(nll) else None


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value


def base_parameters(model: Any) -> int:
    """Parameters of a base, without the adapter that may sit in it."""
    adapter = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    return int(model.num_parameters() - adapter)


def model_folder(location: str, revision: str | None) -> tuple[Path, ...]:
    """The folder with the files of a model, where it lies on this machine: a local folder or the Hub's cache."""
    if Path(location).is_dir():
        return (Path(location),)
    config = try_to_load_from_cache(location, "config.json", revision=revision)
    return (Path(config).parent,) if isinstance(config, str) else ()


def folder_hash(folder: Path) -> str:
    """A hash over the names and contents of a folder's files (a second for 2 GB)."""
    return hash_of([(path.name, hash_file(path)) for path in sorted(folder.iterdir()) if path.is_file()])
