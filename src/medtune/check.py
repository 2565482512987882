"""`medtune check`: what a recipe will do and cost, before anything is paid for.

Covered: the data as the run will see it, one rendered conversation with its labels, assertions on every training row,
truncated and dropped rows, the adapted modules, estimated memory and time; with `measure`, two real steps beside the
estimate. Not covered: weights (without `measure` only tokenizer and configuration are loaded) and mistakes inside the
recipe file itself (`recipe_file`). Nothing is kept: the data stage runs in a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medtune.errors import MedtuneError, TuningError
from medtune.recipe import Recipe
from medtune.run_dir import RunDir
from medtune.types import Conversation, Sample

if TYPE_CHECKING:
    from medtune.models.chat_template import ChatTemplate

SHOWN_TOKENS = 120
PREFIX_ROWS = 50
IGNORED = -100
FIRST_TOKEN = 40  # characters that the longest piece of a vocabulary may stand for

console = Console(highlight=False)


@dataclass(frozen=True)
class Subject:
    """What is checked: the training conversations, and how the model will see them."""

    recipe: Recipe
    conversations: Sequence[Conversation]
    tokenizer: Any
    config: Any
    template: ChatTemplate
    samples: Sequence[Sample]
    rows: dict[str, int]


def run(recipe: Recipe, *, measure: bool = False) -> None:
    """Print what the recipe will do. Raises what stops it, or a TuningError with all assertions that failed."""
    from medtune.data import stage as data_stage
    from medtune.pipeline import require_base

    require_base(recipe)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir(Path(folder))
        console.rule("data")
        data_stage.run(recipe, run_dir)
        subject = prepare(recipe, run_dir)
        console.rule("a conversation as the model sees it")
        console.print(rendered(subject))
        console.rule("assertions")
        problems = failed(subject)
        console.rule("cost")
        console.print(cost(subject, measured(subject, run_dir) if measure and not problems else {}))
    if problems:
        raise TuningError(summary(problems))
    console.print(f"Next: medtune rehearse RECIPE, then medtune run RECIPE ({recipe.name})", markup=False)


def summary(problems: Sequence[str]) -> str:
    return "This recipe would not train what it means to:\n" + "\n".join(f"  {line}" for line in problems)


def prepare(recipe: Recipe, run_dir: RunDir) -> Subject:
    """Load tokenizer and configuration, and tokenise the training rows of `run_dir`."""
    from medtune.data.stage import load_split
    from medtune.models import chat_template, loading, scratch, shapes
    from medtune.tuning.stage import samples_for

    conversations = load_split(run_dir, "train")
    if recipe.model.base == "scratch" and not run_dir.base.exists():
        texts = (message.content for conversation in conversations for message in conversation.messages)
        scratch.build(recipe.model.scratch, texts, run_dir.base, recipe.seed)
    config = shapes.config_of(recipe.model)
    loading.require_room(recipe, config)
    tokenizer = loading.load_tokenizer(loading.locate(recipe.model, run_dir), recipe.model.revision)
    template = chat_template.choose(recipe.model, tokenizer, loading.family(config), config)
    rows: dict[str, int] = {}
    samples = samples_for(recipe, template, tokenizer, conversations, rows)
    return Subject(recipe, conversations, tokenizer, config, template, samples, rows)


def failed(subject: Subject) -> list[str]:
    """Print every assertion with its outcome; returns those that do not hold."""
    problems = []
    for assertion in ASSERTIONS:
        try:
            claim, problem = assertion(subject)
        except MedtuneError as error:
            claim, problem = "the method fits the model", str(error)
        console.print(Text("  no   ", "bold red") if problem else Text("  ok   ", "green"), claim, sep="", markup=False)
        problems += [f"{claim}: {problem}"] if problem else []
    used, cut, dropped = (subject.rows[name] for name in ("used", "truncated", "dropped"))
    length = subject.recipe.data.max_length
    console.print(
        f"  {used:,} training rows; {cut:,} cut at {length} tokens, {dropped:,} dropped with nothing to learn"
    )
    return problems


def rendered(subject: Subject) -> Text:
    """A training row of about 120 tokens: what is learned in green, what is only read dim, special tokens reversed."""
    sample = min(subject.samples, key=lambda sample: abs(len(sample.input_ids) - SHOWN_TOKENS))
    text = Text()
    if subject.template.family == "seq2seq":
        _append(text, subject, sample.input_ids, [IGNORED] * len(sample.input_ids))
        text.append("\n")
        _append(text, subject, sample.labels, sample.labels)
    else:
        _append(text, subject, sample.input_ids, sample.labels)
    text.append(f"\n\n{sample.supervised} tokens are ")
    text.append("learned", "bold green")
    text.append(", the ")
    text.append("others", "dim")
    text.append(f" only read; template {subject.template.name}, hash {subject.template.hash}")
    return text


def _append(text: Text, subject: Subject, ids: Sequence[int], labels: Sequence[int]) -> None:
    special = set(subject.tokenizer.all_special_ids)
    for piece, token, label in zip(_pieces(subject.tokenizer, ids), ids, labels, strict=True):
        style = "dim" if label == IGNORED else "bold green"
        text.append(piece, f"{style} reverse" if token in special else style)


def _pieces(tokenizer: Any, ids: Sequence[int]) -> Iterator[str]:
    """The text that each token adds; a token that ends inside a character adds nothing yet."""
    ends = [""]
    for count in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:count], clean_up_tokenization_spaces=False)
        ends.append(ends[-1] if whole.endswith("\ufffd") and count < len(ids) else whole)
    return (after[len(before) :] for before, after in pairwise(ends))


def _ends_are_supervised(subject: Subject) -> tuple[str, str]:
    from medtune.models.chat_template import stop_ids

    stops = set(stop_ids(subject.template, subject.tokenizer))
    whole = [sample for sample in _joined(subject) if not sample.truncated]
    wrong = [sample.id for sample in whole if sample.labels[-1] not in stops]
    return f"the end token is supervised in all {len(whole):,} untruncated rows", _named(wrong)


def _labels_cover_answers(subject: Subject) -> tuple[str, str]:
    """Compared without white space, since a tokenizer may spell it differently at the start of an answer."""
    answers = {conversation.id: _answers(conversation) for conversation in subject.conversations}
    wrong = []
    plain = _plain_texts(subject)
    for sample in _joined(subject):
        learned = [label for label in sample.labels if label != IGNORED]
        text = "".join(subject.tokenizer.decode(learned, skip_special_tokens=True).split())
        answer = answers[sample.id]
        if sample.id in plain:  # its first token has nothing before it that could predict it
            is_part = answer.endswith(text) and len(text) > len(answer) - FIRST_TOKEN
        else:
            is_part = text in answer if subject.template.family == "seq2seq" else text == answer
        if not is_part and not sample.truncated and subject.tokenizer.unk_token_id not in learned:
            wrong.append(sample.id)
    return "labels cover the answers and nothing else", _named(wrong)


def _plain_texts(subject: Subject) -> set[str]:
    return {conversation.id for conversation in subject.conversations if conversation.messages[-1].role == "text"}


def _joined(subject: Subject) -> Iterator[Sample]:
    """The samples, with the windows of a plain text as the one row that they were cut from."""
    plain = _plain_texts(subject)
    for id, group in groupby(subject.samples, key=lambda sample: sample.id):
        parts = list(group)
        if id not in plain:
            yield from parts
            continue
        ids = [token for part in parts for token in part.input_ids]
        labels = [label for part in parts for label in part.labels]
        yield Sample(id, ids, labels, sum(part.truncated for part in parts))


def _answers(conversation: Conversation) -> str:
    text = "".join(m.content for m in conversation.messages if m.role in ("assistant", "text"))
    return "".join(text.split())


def _no_double_start(subject: Subject) -> tuple[str, str]:
    start = subject.tokenizer.bos_token_id
    wrong = [s.id for s in subject.samples if start is not None and s.input_ids[:2] == [start, start]]
    return "no row starts with two start tokens", _named(wrong)


def _generation_continues_training(subject: Subject) -> tuple[str, str]:
    from medtune.models.chat_template import prompt_ids

    if subject.template.family == "seq2seq":
        return "training and generation read the same input", ""
    asked = {c.id: c for c in subject.conversations[:PREFIX_ROWS] if c.question}
    wrong = []
    for sample in (sample for sample in subject.samples if sample.id in asked and not sample.truncated):
        prompt = prompt_ids(subject.template, subject.tokenizer, asked[sample.id].prompt)
        if sample.input_ids[: len(prompt)] != prompt:
            wrong.append(sample.id)
    return "generation is fed exactly the beginning of what training was fed", _named(wrong)


def _method_fits(subject: Subject) -> tuple[str, str]:
    """Looks at the architecture without weights, and for packing at a small random model of it."""
    from transformers import AutoModelForCausalLM

    from medtune.models import estimate, probe, shapes
    from medtune.tuning.methods import check_optimizer, check_targets
    from medtune.tuning.train import is_packed

    recipe = subject.recipe
    check_optimizer(recipe, probe.device(recipe.model))
    if recipe.tune.method == "lora":
        check_targets(recipe, estimate.skeleton(subject.config))
    is_causal = subject.template.family == "causal"
    small = shapes.shrink(subject.config, shapes.VOCABULARY)
    packs = is_causal and is_packed(recipe, AutoModelForCausalLM.from_config(small))
    rows = "packed, documents isolated" if packs else "padded, grouped by length"
    return f"method {recipe.tune.method} fits the model; rows are {rows}", ""


ASSERTIONS = (
    _ends_are_supervised, _labels_cover_answers, _no_double_start, _generation_continues_training, _method_fits,
)  # fmt: skip


def _named(ids: Sequence[str]) -> str:
    return f"{len(ids):,} rows differ, the first is {ids[0]}" if ids else ""


def cost(subject: Subject, measurement: dict[str, float]) -> Table:
    """Estimates for this device, beside what was measured."""
    from medtune.models import estimate, probe

    recipe, config, tune = subject.recipe, subject.config, subject.recipe.tune
    longest, mean = _steps(subject)
    counts, memory = estimate.parameters(recipe, config), estimate.memory(recipe, config, longest)
    updates = total_updates(subject)
    total = estimate.seconds(recipe, config, mean) * updates * tune.accumulation
    table = Table("", "estimated", *(["measured"] if measurement else []), title=f"on {probe.device(recipe.model)}")
    table.add_row("parameters", f"{counts.total:,}")
    table.add_row("trained", f"{counts.trained:,} ({counts.trained / counts.total:.2%})", end_section=True)
    for term, size in asdict(memory).items():
        table.add_row(term, _size(size))
    peak = _size(measurement["peak_bytes"]) if measurement else ""
    table.add_row("peak memory", _size(memory.total), *([peak] if peak else []), end_section=True)
    longest_seconds = estimate.seconds(recipe, config, longest) * tune.accumulation
    step = f"{measurement['seconds_per_update']:.2f} s" if measurement else ""
    shape = f"longest update ({tune.accumulation} x {longest.rows} x {longest.length} tokens)"
    table.add_row(shape, f"{longest_seconds:.2f} s", *([step] if step else []))
    table.add_row(f"whole tuning ({updates:,} updates)", f"{timedelta(seconds=round(total))}")
    return table


def total_updates(subject: Subject) -> int:
    from medtune.tuning.train import total_steps

    return total_steps(subject.recipe, len(subject.samples))


def _steps(subject: Subject) -> tuple[Any, Any]:
    """The longest batch, for memory, and the mean one, for time."""
    from medtune.models.estimate import Step

    rows, longest = subject.recipe.tune.batch_size, _longest(subject)
    batches = (longest[:rows], subject.samples)
    length = max(_length(sample) for sample in batches[0])
    mean = round(sum(map(_length, batches[1])) / len(batches[1]))
    learned = round(sum(sample.supervised for sample in batches[1]) / len(batches[1]) * rows)
    return Step(rows, length, sum(s.supervised for s in batches[0])), Step(rows, mean, learned)


def _length(sample: Sample) -> int:
    """Tokens that a forward pass sees: both sides of an encoder-decoder model."""
    is_pair = len(sample.labels) != len(sample.input_ids) or IGNORED not in sample.labels
    return len(sample.input_ids) + (len(sample.labels) if is_pair else 0)


def _longest(subject: Subject) -> list[Sample]:
    return sorted(subject.samples, key=_length, reverse=True)


def measured(subject: Subject, run_dir: RunDir) -> dict[str, float]:
    """Peak bytes and seconds per update of two real updates on the longest rows; on a CPU, by what the process grew."""
    import psutil
    import torch

    from medtune.evaluation.speed import peak_memory
    from medtune.models import loading, probe
    from medtune.tuning import methods
    from medtune.tuning.train import Job, Split, train

    short = {"max_steps": 2, "evaluations": 1, "sample_answers": 0, "report_to": (), "checkpoint_steps": None}
    recipe = subject.recipe.model_copy(update={"tune": subject.recipe.tune.model_copy(update=short)})
    rows = _longest(subject)[: recipe.tune.batch_size * recipe.tune.accumulation]
    dtype = torch.float32 if recipe.tune.method == "full" else None
    before = 0 if probe.device(recipe.model).type == "cuda" else psutil.Process().memory_info().rss
    with peak_memory() as peak:
        base = loading.load_model(recipe.model, loading.locate(recipe.model, run_dir), dtype=dtype)
        model = methods.prepare(recipe, base, subject.tokenizer, subject.samples)
        job = Job(run_dir.checkpoints, "measure", Console(quiet=True))
        trainer = train(recipe, model, subject.tokenizer, Split(rows * 2, ()), job)
    first, second = (entry["seconds"] for entry in trainer.state.log_history if "loss" in entry)
    return {"peak_bytes": peak["bytes"] - before, "seconds_per_update": second - first}


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
