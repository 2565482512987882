"""`medtune audit`: the figures that notebooks compute, beside the honest ones, on the same model and questions.

Covered: the prompt scored with the answer, teacher-forced words scored as answers, prompt and padding in the loss,
texts cut at 128 tokens, a random split; each with one line on why it differs. With it a reader can place a published
figure. Not covered: training anything again.

The tuned model reads each reference once the notebook's way: `labels = input_ids`, padded to data.max_length. All
else comes from the records of the evaluation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from medtune.data.stage import load_split
from medtune.errors import RunDirError
from medtune.evaluation import overlap, page
from medtune.evaluation.candidates import tuned_completer
from medtune.evaluation.runner import progress, record_of
from medtune.evaluation.systems import nearest_answer
from medtune.models import chat_template, decoding
from medtune.models.completer import TransformersCompleter
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json, read_lines, write_json, write_text
from medtune.types import Conversation, Record, Sample

QUESTIONS = 200  # read the notebook's way; the honest figures are then of the same questions
CUT = 128
NOTEBOOK_BATCH = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, computed both ways; `metric` (or `share`) says how it is written, `why` why the two differ."""

    title: str
    metric: str
    notebook: float | None
    honest: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Forced:
    """What the model predicts at each position of a given text: the whole text's prediction, and the loss."""

    answer: str
    everything: str
    hits: int
    positions: int
    nll: float


def run(recipe: Recipe, run_dir: RunDir) -> list[Row]:
    """Write audit.json and audit.html and print the table. Raises RunDirError where nothing was evaluated."""
    conversations = {c.id: c for c in load_split(run_dir, "test")}
    path = run_dir.evaluation / "records.jsonl"
    lines = read_lines(path) if path.exists() else ()
    records = [record_of(line) for line in lines if line["system"] == "tuned" and line["id"] in conversations]
    records = [record for record in records if record.status in ("scored", "unanswered")][:QUESTIONS]
    if not records:
        raise RunDirError(f"{path}: no answers of the tuned model. Evaluate it first: medtune eval {run_dir.path}")
    questions = [conversations[record.id] for record in records]
    completer = tuned_completer(recipe, run_dir)
    forced = list(_forced(completer, questions))
    rows = [
        *_from_answers(completer, questions, records),
        *_from_forced(questions, records, forced),
        *_from_split(recipe, run_dir),
    ]
    facts = {"questions": len(records), "name": recipe.name, "base": recipe.model.base, "cut": CUT}
    write_json(run_dir.path / "audit.json", {**facts, "rows": [asdict(row) for row in rows]})
    write_text(run_dir.path / "audit.html", page.render("audit.html.j2", rows=rows, **facts))
    _show(rows, run_dir, len(records))
    return rows


def _show(rows: Sequence[Row], run_dir: RunDir, questions: int) -> None:
    table = Table("figure", "as notebooks do", "honest", "why they differ", title=f"{questions} questions, tuned model")
    table.columns[1].justify = table.columns[2].justify = "right"
    for row in rows:
        table.add_row(row.title, page.number(row.notebook, row.metric), page.number(row.honest, row.metric), row.why)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Page: {run_dir.path / 'audit.html'}", markup=False, soft_wrap=True)


def _from_answers(
    completer: TransformersCompleter, questions: Sequence[Conversation], records: Sequence[Record]
) -> Iterator[Row]:
    """What the records' free answers give when they are scored the notebook's way."""
    tokenizer, template = completer.tokenizer, completer.template
    answers = [record.completion.text for record in records]
    references = [question.answer for question in questions]
    prompts = [chat_template.prompt_text(template, tokenizer, question.prompt) for question in questions]
    honest = _rouge(references, answers)
    whole = [f"{prompt} {reference}" for prompt, reference in zip(prompts, references, strict=True)]
    yield Row(
        "ROUGE-L of answers", "rouge_l",
        _rouge(whole, [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)]), honest,
        "The prompt stands in both texts and is scored as if the model had written it.",
    )  # fmt: skip
    yield Row(
        "ROUGE-L of no answer at all", "rouge_l", _rouge(whole, prompts), _rouge(references, [""] * len(references)),
        "A model that says nothing earns this when the prompt is scored with the answer.",
    )  # fmt: skip
    cut = [[_cut(tokenizer, text) for text in texts] for texts in (references, answers)]
    yield Row(
        f"ROUGE-L at {CUT} tokens", "rouge_l", _rouge(*cut), honest,
        f"Reference and answer cut at {CUT} tokens: the end of a long reference is never asked for.",
    )  # fmt: skip


def _from_forced(
    questions: Sequence[Conversation], records: Sequence[Record], forced: Sequence[Forced]
) -> Iterator[Row]:
    """What one reading of the references gives, with labels = input_ids as notebooks train."""
    references, answers = [c.answer for c in questions], [record.completion.text for record in records]
    wholes = [f"{c.question} {c.answer}" for c in questions]
    guessed = [f.answer for f in forced]
    told = "At each word the model sees all right words before it: a wrong one costs one word, never the rest."
    yield Row(
        "ROUGE-L, teacher-forced", "rouge_l", _rouge(references, guessed), _rouge(references, answers), told
    )  # fmt: skip
    yield Row("BLEU, teacher-forced", "bleu", _bleu(references, guessed), _bleu(references, answers), told)
    yield Row(
        "ROUGE-L, teacher-forced, prompt included", "rouge_l",
        _rouge(wholes, [f.everything for f in forced]), _rouge(references, answers),
        "As above, and the question counts too: the argmax over every position, as a Trainer's compute_metrics has it.",
    )  # fmt: skip
    yield Row(
        "Token accuracy", "share", sum(f.hits for f in forced) / sum(f.positions for f in forced), None,
        "Prompt, answer and padding counted alike; padding alone is most of the positions. There is no honest one.",
    )  # fmt: skip
    measured = [record.likelihood for record in records if record.likelihood]
    tokens = sum(likelihood.tokens for likelihood in measured)
    honest = math.exp(sum(likelihood.nll for likelihood in measured) / tokens) if tokens else None
    yield Row(
        "Perplexity", "perplexity", _exp(sum(f.nll for f in forced) / sum(f.positions for f in forced)), honest,
        "Prompt and padding are in the loss: it falls where padding was trained on, and explodes where it was not.",
    )  # fmt: skip


def _from_split(recipe: Recipe, run_dir: RunDir) -> Iterator[Row]:
    """What a random split would give away, to a model that only looks up the most similar training question."""
    sides = {name: load_split(run_dir, name) for name in ("train", "validation", "test")}
    pool = [c for rows in sides.values() for c in rows if c.question]
    random.Random(recipe.data.split.seed).shuffle(pool)
    size = min(sum(1 for c in sides["test"] if c.question), len(pool) // 2)
    yield Row(
        "ROUGE-L of the nearest training answer", "rouge_l", _nearest(pool[size:], pool[:size][:QUESTIONS]),
        _nearest(sides["train"], [c for c in sides["test"] if c.question][:QUESTIONS]),
        "A random split puts one topic, and often one answer, on both sides: looking up is then enough.",
    )  # fmt: skip
    card = run_dir.data / "data_card.json"
    leakage = read_json(card)["leakage"] if card.exists() else {}
    before, after = leakage.get("before") or {}, leakage.get("after") or {}
    for key, what in (("questions", "questions"), ("answers", "answers, nearly")):
        yield Row(
            f"Test {what} seen in training", "share", before.get(key), after.get(key),
            "Random split against this run's split by topic and near-duplicate answer.",
        )  # fmt: skip


def _nearest(train: Sequence[Conversation], test: Sequence[Conversation]) -> float | None:
    answers = dict(nearest_answer(train).answers(test, 1))
    return _rouge([c.answer for c in test], [answers[i].text for i in range(len(test))]) if test else None


@torch.no_grad()  # type: ignore[untyped-decorator]
def _forced(completer: TransformersCompleter, questions: Sequence[Conversation]) -> Iterator[Forced]:
    """One pass over prompt and reference, the notebook's way: padded to the maximum, every position a label."""
    tokenizer, template = completer.tokenizer, completer.template
    rows = list(chat_template.samples(template, tokenizer, questions, completer.max_length, turns="last"))
    completer.model.eval()
    with progress("tuned: references, teacher-forced", len(rows)) as advance:
        for start in range(0, len(rows), NOTEBOOK_BATCH):
            for found in _read(completer, rows[start : start + NOTEBOOK_BATCH]):
                yield found
                advance()


def _read(completer: TransformersCompleter, rows: Sequence[Sample]) -> Iterator[Forced]:
    is_pair = completer.template.family == "seq2seq"
    targets = [[i for i in row.labels if i != -100] if is_pair else row.input_ids for row in rows]
    ids, mask = _padded(completer, [row.input_ids for row in rows])
    labels, _ = _padded(completer, targets)
    logits = decoding.forward_logits(completer.model, ids, mask, labels if is_pair else None)
    ahead = 0 if is_pair else 1
    for row, target, scores, label in zip(rows, targets, logits, labels, strict=True):
        predicted, wanted = scores[: len(scores) - ahead].float(), label[ahead:]
        guesses = predicted.argmax(-1)
        nll = torch.nn.functional.cross_entropy(predicted, wanted, reduction="sum")
        supervised = [i - ahead for i in range(ahead, len(target)) if is_pair or row.labels[i] != -100]
        yield Forced(
            _decode(completer, guesses[supervised].tolist()),
            _decode(completer, guesses[: len(target) - ahead].tolist()),
            int((guesses == wanted).sum()),
            len(wanted),
            float(nll),
        )


def _padded(completer: TransformersCompleter, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on the right to the maximum length with the end token, as `padding="max_length"` does, and mask."""
    filler = completer.tokenizer.pad_token_id
    filler = completer.tokenizer.eos_token_id if filler is None else filler
    ids = torch.full((len(rows), completer.max_length), filler or 0)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    device = completer.model.device
    return ids.to(device), mask.to(device)


def _decode(completer: TransformersCompleter, ids: list[int]) -> str:
    return str(completer.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _cut(tokenizer: Any, text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:CUT]
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _rouge(references: Sequence[str], answers: Sequence[str]) -> float:
    pairs = zip(references, answers, strict=True)
    return float(np.mean([overlap.rouge([reference], answer)["rouge_l"] for reference, answer in pairs]))


def _bleu(references: Sequence[str], answers: Sequence[str]) -> float:
    counts = [overlap.bleu_counts((reference,), answer) for reference, answer in zip(references, answers, strict=True)]
    return float(overlap.bleu(np.array(counts).sum(0)))


def _exp(value: float) -> float | None:
    return math.exp(value) if value < 700 else None
