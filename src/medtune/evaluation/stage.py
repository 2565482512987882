"""The evaluation stage: the held-out questions to every system, then records, summary and report.

Writes evaluation/records.jsonl as the answers come (records_seen.jsonl for the second test), evaluation/summary.json
and report.html. Cut off at any moment, the same call asks only what is not answered yet. `summary.json`, flat and
complete, is all that the report shows:

  verdict        {sentence, metric, difference, low, high, p, resolvable, direction: helped | none | worse | null}
  warnings       [sentence]
  systems        {name: {counts: {asked, scored, unanswered, unparsed, failed, likelihood},
                         metrics: {metric: {value, low, high, questions} | null}, cost: {...}}}
  paired         {metric: {value, low, high, p, p_holm, resolvable, before, after, questions, direction} | null},
                 tuned - base; {} without both
  floors, others {system: the same for tuned - system}; others are those handed in and behind a URL
  seen           {sentence, systems, paired, floors, test}: the same for the second test, other phrasings of topics that
                 training has, costs apart; null without data.split.phrasings. All else is about unseen topics
  choices        {layout: {questions, chance, systems: {name: accuracy}, paired}}: multiple-choice tests
  neighbours     {similarity, near | far: {questions, systems: {name: ROUGE-L}, paired}}: questions that resemble a
                 training question, and those that do not
  test           {questions, available, groups, max_new_tokens, batch_size, latency_questions, reference_words}
  prompt_format  {base | tuned: {name, hash, ...}}; the base's names its candidates and their bits per byte
  signatures     {rouge, bleu, chrf, bootstrap}
  self_test      [{check, metric, found, passed}], all passed
  recipe, environment, chat_template, tuning (tuning.json), data (data_card.json); the last three may be null
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from medtune.data.stage import load_split
from medtune.evaluation import neighbours, overlap, report, speed, summary, systems
from medtune.evaluation.candidates import Candidate, candidates, folder_hash
from medtune.evaluation.choices import Choices
from medtune.evaluation.endpoints import endpoints
from medtune.evaluation.metrics import PRIMARY
from medtune.evaluation.runner import SCORING, RecordFile, ask
from medtune.evaluation.selftest import self_test
from medtune.evaluation.similarity import Similarity
from medtune.evaluation.statistics import Bootstrap
from medtune.evaluation.verdict import gap, verdict, warnings
from medtune.models.encoder import load_encoder
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, environment, hash_file, hash_of, read_json, write_json, write_text
from medtune.types import Conversation, Record

Answerer = tuple[str, str, systems.Answers]
"""Name, fingerprint and `System.answers` of a system that is handed in."""
console = Console(highlight=False)
VERSION = 3  # raise it when the same records give another summary


@dataclass(frozen=True)
class Test:
    """One set of questions, the file of their records, and what each system answered."""

    questions: Sequence[Conversation]
    file: RecordFile
    answered: dict[str, list[Record]] = field(default_factory=dict)

    def ordered(self, recipe: Recipe) -> dict[str, list[Record]]:
        """The answers in the recipe's order of systems."""
        named = (*recipe.evaluate.systems, *(endpoint.name for endpoint in recipe.evaluate.endpoints))
        return {name: self.answered[name] for name in named}


def fingerprint(recipe: Recipe, run_dir: RunDir) -> str:
    """Changes with what is measured: the evaluation's options, the model, the data and the tuned weights."""
    used = {"assistant"} & set(recipe.evaluate.systems)  # a floor that looks passages up knows the index by its stage
    parts = recipe.model_dump(mode="json", include={"seed", "model", "evaluate", *used})
    names = ("train", "validation", "test", *(("test_seen",) if recipe.data.split.phrasings else ()))
    data = [hash_file(run_dir.split(name)) for name in names]
    tuned = folder_hash(run_dir.adapter) if run_dir.adapter.is_dir() else ""
    return hash_of(VERSION, SCORING, parts, recipe.data.max_length, data, tuned)


def run(recipe: Recipe, run_dir: RunDir, others: Callable[[], Iterable[Answerer]] = tuple) -> None:
    """Measure every system of `evaluate.systems`. Raises EvaluationError where a measurement would be untrue.

    `others` opens those that this package may not know (the assistant), when their turn comes.
    """
    test = load_split(run_dir, "test")
    questions = systems.draw(test, recipe.evaluate.questions)
    test_seen = load_split(run_dir, "test_seen") if recipe.data.split.phrasings else []
    seen = systems.draw(test_seen, recipe.evaluate.questions)
    checks = self_test([question.answer for question in (*questions, *seen)])
    similarity = Similarity(load_encoder(recipe.evaluate.encoder))
    sets = {"records.jsonl": questions} | ({"records_seen.jsonl": seen} if seen else {})
    tests = [Test(part, RecordFile(run_dir.evaluation / name, similarity.fingerprint)) for name, part in sets.items()]
    choices = Choices(recipe.evaluate.choices, recipe.seed, run_dir.evaluation / "choices.jsonl")
    tuning = _tuning(run_dir)
    costs: dict[str, dict[str, Any]] = {}
    formats: dict[str, dict[str, Any]] = {}
    for candidate in chain(_everyone(recipe, run_dir), map(_handed_in, _each(others)), endpoints(recipe)):
        name, start = candidate.system.name, time.monotonic()
        with speed.peak_memory() as peak:
            for part in tests:
                ask(candidate.system, part.questions, part.file, recipe.evaluate.batch_size)
        choices.ask(candidate.system, recipe.evaluate.batch_size)
        for part in tests:
            part.answered[name] = similarity.measure(candidate.system, part.questions, part.file)
        costs[name] = {
            **speed.latency(candidate.system, questions[: recipe.evaluate.latency_questions]),
            "tokens_per_second": speed.tokens_per_second(tests[0].answered[name]),
            "disk_bytes": speed.disk_bytes(candidate.ships),
            "peak_memory_bytes": peak["bytes"],
            **_parameters(candidate, tuning),
        }
        _tell(name, [record for part in tests for record in part.answered[name]], time.monotonic() - start)
        if candidate.prompt_format:
            formats[name] = candidate.prompt_format
    for part in tests:
        part.file.rewrite()
    first, *second = (part.ordered(recipe) for part in tests)
    facts = {"test": _test(recipe, test, questions), "prompt_format": formats, "tuning": tuning, "self_test": checks}
    likeness = neighbours.similarity([c for c in load_split(run_dir, "train") if c.question], questions)
    near = dict(zip((question.id for question in questions), likeness.tolist(), strict=True))
    facts["neighbours"] = neighbours.apart(near, first, Bootstrap(recipe.evaluate.resamples, recipe.seed))
    facts["choices"] = choices.summary(Bootstrap(recipe.evaluate.resamples, recipe.seed))
    facts["seen"] = {**_compared(recipe, second[0]), "test": _test(recipe, test_seen, seen)} if second else None
    result = summarise(recipe, first, costs, facts, run_dir)
    write_json(run_dir.evaluation / "summary.json", result)
    write_text(run_dir.path / "report.html", report.render(result, first, recipe.evaluate.side_by_side, near))


def summarise(
    recipe: Recipe, answered: dict[str, list[Record]], costs: dict[str, Any], facts: dict[str, Any], run_dir: RunDir
) -> dict[str, Any]:
    """summary.json, as the module's docstring lays it out."""
    compared = _compared(recipe, answered)
    for name, system in compared["systems"].items():
        system["cost"] = costs[name]
    if facts["seen"]:
        facts = {**facts, "seen": {"sentence": gap(compared["systems"], facts["seen"]["systems"]), **facts["seen"]}}
    method = (
        f"{recipe.evaluate.resamples} resamples by group|95 % expanded percentile|sign flips, Holm|seed:{recipe.seed}"
    )
    result = {**compared, **facts}
    return {
        "verdict": verdict(compared["paired"], compared["floors"]),
        "warnings": warnings(result, recipe.model.base, [source.path for source in recipe.data.sources]),
        **result,
        "signatures": {**overlap.signatures(), "bootstrap": method},
        "recipe": recipe.model_dump(mode="json"),
        "environment": environment(),
        "chat_template": run_dir.manifest().get("chat_template"),
        "data": _read(run_dir.data / "data_card.json"),
    }


def _tell(name: str, records: Sequence[Record], seconds: float) -> None:
    """A line in the terminal, or in the log file where there is none: how one system's questions ended."""
    found = summary.counts(records)
    ends = ", ".join(f"{found[status]} {status}" for status in summary.STATUSES if found[status])
    score = summary.mean(PRIMARY, records)
    shown = "" if score is None else f", ROUGE-L {score:.3f}"
    console.print(f"  {name}: {found['asked']} questions, {ends or 'none answered'}{shown}, {seconds:.0f} s")


def _compared(recipe: Recipe, answered: dict[str, list[Record]]) -> dict[str, Any]:
    """The systems, `paired`, `floors` and `others` of one test, without costs."""
    bootstrap = Bootstrap(recipe.evaluate.resamples, recipe.seed)
    measured = {
        name: {"counts": summary.counts(records), "metrics": summary.system_metrics(name, records, bootstrap)}
        for name, records in answered.items()
    }
    tuned = answered.get("tuned")
    against = {
        name: summary.paired(records, tuned, bootstrap)
        for name, records in answered.items()
        if tuned is not None and name != "tuned"
    }
    paired, floors = against.pop("base", {}), {n: against.pop(n) for n in systems.FLOORS if n in against}
    return {"systems": measured, "paired": paired, "floors": floors, "others": against}


def _everyone(recipe: Recipe, run_dir: RunDir) -> Iterator[Candidate]:
    """The recipe's systems, floors first, so that no model stands in memory beside them."""
    train = load_split(run_dir, "train")
    floors = {
        "random": lambda: systems.random_answer(train, recipe.seed),
        "nearest": lambda: systems.nearest_answer(train),
    }
    chosen = (
        Candidate(floors[name](), (run_dir.split("train"),)) for name in floors if name in recipe.evaluate.systems
    )
    return chain(chosen, candidates(recipe, run_dir, load_split(run_dir, "validation")))


def _each(others: Callable[[], Iterable[Answerer]]) -> Iterator[Answerer]:
    yield from others()


def _handed_in(answerer: Answerer) -> Candidate:
    name, fingerprint, answers = answerer
    return Candidate(systems.System(name, fingerprint, answers), ())


def _parameters(candidate: Candidate, tuning: dict[str, Any] | None) -> dict[str, Any]:
    """Parameters and training cost; what was trained belongs to the tuned system alone."""
    trained = tuning if tuning and candidate.system.name == "tuned" else {}
    return {
        "parameters_total": trained.get("parameters_total", candidate.parameters),
        "parameters_trainable": trained.get("parameters_trainable"),
        "training_seconds": trained.get("seconds"),
        "training_peak_memory_bytes": trained.get("peak_memory_bytes"),
    }


def _test(recipe: Recipe, test: Sequence[Conversation], questions: Sequence[Conversation]) -> dict[str, Any]:
    evaluate = recipe.evaluate
    return {
        "questions": len(questions),
        "available": len(test),
        "groups": len({question.group or question.id for question in questions}),
        "max_new_tokens": evaluate.max_new_tokens,
        "batch_size": evaluate.batch_size,
        "latency_questions": min(evaluate.latency_questions, len(questions)),
        "reference_words": float(np.mean([len(question.answer.split()) for question in questions]))
        if questions
        else None,
    }


def _tuning(run_dir: RunDir) -> dict[str, Any] | None:
    """The figures of tuning.json; its sample answers stay there."""
    tuning = _read(run_dir.path / "tuning.json")
    return tuning and {key: value for key, value in tuning.items() if key != "samples"}


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None
