"""From a finished run's folder to the assistant that it serves.

Covered: guards, index, encoder and the tuned model, each refused where it is not the one that the run was made with.
Not covered: making them (the stages), which model a remote engine serves. Used by terminal, API, page and evaluation
alike, so that all of them answer from one object.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from medtune.assistant import guards as guarding
from medtune.assistant.assistant import Assistant
from medtune.assistant.grounding import Grounding, Rarity, alike
from medtune.assistant.query import find
from medtune.assistant.words import stem
from medtune.errors import RunDirError
from medtune.knowledge import stage as knowledge
from medtune.knowledge.search import search
from medtune.models.encoder import load_encoder
from medtune.models.engine import Engine
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, hash_of
from medtune.types import Completion, Conversation

if TYPE_CHECKING:
    from medtune.knowledge.index import Index

Answers = Callable[[Sequence[Conversation], int], Iterator[tuple[int, Completion]]]


def open_assistant(recipe: Recipe, run_dir: RunDir, engine: Engine | None = None) -> Assistant:
    """The assistant of a run; `engine` (a remote one) speaks in place of the tuned model, which is then not loaded.

    Raises RunDirError where a stage is missing, or where template, guards or index are not those of the run.
    """
    if not run_dir.manifest_path.exists():
        raise RunDirError(f"{run_dir.path}: no run here. Make one: medtune run RECIPE --out {run_dir.path}")
    manifest = run_dir.manifest()
    index = knowledge.open_run(recipe, run_dir)
    if index is not None:
        _require_same("knowledge index", index.manifest["hash"], (manifest.get("knowledge") or {}).get("hash"), run_dir)
    encoder = load_encoder(recipe.assistant.knowledge.encoder)
    guards = guarding.load_guards(recipe.assistant.guards, encoder)
    _require_same("guards", guards.hash, manifest.get("guards"), run_dir)
    return Assistant(
        section=recipe.assistant,
        check=lambda messages: guarding.check(guards, messages),
        search=lambda text, k: search(index, text, k) if index else [],
        neighbours=lambda passage: index.related(passage) if index else [],
        grounding=Grounding(rarity(index) if index else alike, encoder),
        engine=engine or open_engine(recipe, run_dir),
        emergency_threshold=guards.thresholds["emergency"],
        hashes={"guards": guards.hash, "knowledge": index.manifest["hash"] if index else ""},
    )


def open_engine(recipe: Recipe, run_dir: RunDir) -> Engine:
    """The run's tuned model. Raises RunDirError where nothing was tuned, or in another chat template."""
    from medtune.models import chat_template, loading
    from medtune.models.completer import TransformersCompleter
    from medtune.models.streaming import TransformersEngine

    manifest = run_dir.manifest()
    stored, tuned = manifest.get("chat_template"), manifest["stages"].get("tune")
    if stored is None or tuned is None:
        raise RunDirError(
            f"{run_dir.path}: nothing was tuned here, so there is no model to ask. Run: medtune run RECIPE "
            f"--out {run_dir.path}, or name another model with --engine URL."
        )
    section = loading.pinned(recipe.model, run_dir)
    location = loading.locate(section, run_dir)
    tokenizer = loading.load_tokenizer(location, section.revision)
    model = loading.load_tuned(section, location, run_dir.adapter)
    template = chat_template.choose(section, tokenizer, loading.family(model.config), model.config)
    _require_same("chat template", template.hash, stored.get("hash"), run_dir)
    completer = TransformersCompleter(model, tokenizer, template, recipe.data.max_length)
    return TransformersEngine(completer, recipe.name, hash_of(tuned["fingerprint"], template.hash))


def measured(recipe: Recipe, run_dir: RunDir, names: Sequence[str]) -> Iterator[tuple[str, str, Answers]]:
    """`retrieval` (the best passage's text) and `assistant` as the evaluation asks its systems: name, fingerprint and a
    function of conversations and batch size that yields (index, completion)."""
    if "retrieval" in names:
        index = knowledge.open_run(recipe, run_dir)
        yield "retrieval", hash_of(index.manifest["hash"] if index else ""), lambda asked, _: _retrieved(index, asked)
    if "assistant" in names:
        assistant = open_assistant(recipe, run_dir)
        yield "assistant", assistant.hash, lambda asked, _: _replied(assistant, asked)


def _retrieved(index: Index | None, asked: Sequence[Conversation]) -> Iterator[tuple[int, Completion]]:
    for number, conversation in enumerate(asked):
        hits = find(partial(search, index), conversation.prompt, 1) if index else []
        yield number, Completion(hits[0].passage.text if hits else "")


def _replied(assistant: Assistant, asked: Sequence[Conversation]) -> Iterator[tuple[int, Completion]]:
    """The sections of each reply, without disclosure and disclaimer; "no source found" is no answer."""
    for number, conversation in enumerate(asked):
        reply = assistant.reply(conversation.prompt)
        said = [section.text for section in reply.sections if section.name != "notice"]
        counts = (reply.prompt_tokens, reply.completion_tokens, reply.seconds["total"])
        error = "the assistant could not answer" if reply.is_error else ""
        yield number, Completion("\n\n".join(said), "error" if error else reply.finish_reason, *counts, error)


def rarity(index: Index) -> Rarity:
    """How much a stemmed word says in this library: 1 for one that stands in a single passage, near 0 for a common one.

    A word that the library does not know counts in full.
    """
    bm25 = index.bm25
    starts = bm25.scores["indptr"]
    found: Counter[str] = Counter()
    for word, column in bm25.vocab_dict.items():
        found[stem(word)] += int(starts[column + 1] - starts[column]) if word and column + 1 < len(starts) else 0
    most = math.log(1 + len(index))
    weights = {word: min(1.0, math.log(1 + len(index) / max(1, n)) / most) for word, n in found.items()}
    return lambda word: weights.get(word, 1.0)


def _require_same(what: str, found: str, stored: str | None, run_dir: RunDir) -> None:
    if found != stored:
        raise RunDirError(
            f"{run_dir.path}: the hash of the {what} is {found}, but the run was made with {stored or 'none'}, and its "
            f"measurements would not hold. Bring the run up to date: medtune run {run_dir.path}"
        )
