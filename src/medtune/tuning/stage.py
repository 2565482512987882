"""The tuning stage: training and validation conversations in, tuned weights and their story out.

Reads run/data/{train,validation}.jsonl and the base; writes run/adapter/, run/tuning.json and the manifest's
`chat_template` and `machine`. Not covered: how the loop is set up (`train`), what is adapted (`methods`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from medtune.data.stage import load_split
from medtune.errors import DataError
from medtune.models import attention, chat_template, loading, probe, scratch
from medtune.models.completer import TransformersCompleter
from medtune.recipe import ModelSection, Recipe
from medtune.run_dir import RunDir, hash_file, hash_of, write_json
from medtune.tuning import methods
from medtune.tuning.callbacks import Watch, save_weights
from medtune.tuning.checkpoints import replace_folder
from medtune.tuning.train import Job, Split, train
from medtune.tuning.trainer import SupervisedTrainer
from medtune.types import Conversation, Sample

VERSION = 1
"""Raised whenever the same recipe and data would give other weights."""
SAMPLE_TOKENS = 96
MAX_USELESS_ROWS = 0.01


def fingerprint(recipe: Recipe, run_dir: RunDir) -> str:
    """Changes when the base, the tuning options, the seed or the data stage's files do."""
    data = [hash_file(run_dir.split(name)) for name in ("train", "validation")]
    base = Path(loading.published(recipe.model))
    files = (
        sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in base.iterdir() if f.is_file())
        if base.is_dir()
        else []
    )
    parts = recipe.model_dump(include={"seed", "model", "tune"}, exclude={"tune": {"report_to"}})
    limits = recipe.data.max_length, recipe.data.max_truncated
    return hash_of(VERSION, parts, limits, data, files)


def run(recipe: Recipe, run_dir: RunDir, watch: Watch | None = None) -> None:
    """Tune the base on run/data and write run/adapter and run/tuning.json.

    `watch(step, validation_loss)` is told of every evaluation; what it raises ends the tuning, resumable.
    """
    console = Console(stderr=False)
    mark = fingerprint(recipe, run_dir)
    transformers.set_seed(recipe.seed)
    section = _same_machine_choices(loading.pinned(recipe.model, run_dir), run_dir, mark)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": section.dtype})})
    train_conversations, validation_conversations = load_split(run_dir, "train"), load_split(run_dir, "validation")
    location = loading.locate(section, run_dir)
    if section.base == "scratch":
        texts = (message.content for c in train_conversations for message in c.messages)
        _once(run_dir, lambda: scratch.build(section.scratch, texts, run_dir.base, recipe.seed))
    tokenizer = loading.load_tokenizer(location, section.revision)
    # Trained weights need float32 under them: updates of 1e-5 vanish in bfloat16. A frozen base does not.
    base = loading.load_model(
        section, location, device=_device(section), dtype=torch.float32 if recipe.tune.method == "full" else None
    )
    loading.require_room(recipe, base.config)
    if int(os.environ.get("RANK", "0")) == 0:
        run_dir.update_manifest(base={"id": section.base, "commit": getattr(base.config, "_commit_hash", None)})
    template = chat_template.choose(section, tokenizer, loading.family(base.config), base.config)
    rows: dict[str, int] = {}
    samples = samples_for(recipe, template, tokenizer, train_conversations, rows)
    chosen = _spread(validation_conversations, recipe.tune.validation_rows)
    validation = samples_for(recipe, template, tokenizer, chosen, {})
    model = methods.prepare(recipe, base, tokenizer, samples)
    completer = TransformersCompleter(model, tokenizer, template, recipe.data.max_length)
    own_kernel = base.config._attn_implementation

    def answers(conversations: Sequence[Conversation]) -> list[str]:
        prompts = [conversation.prompt for conversation in conversations]
        with attention.kernel(model, own_kernel):  # training may use the one for packed rows, which cannot generate
            found = dict(completer.complete(prompts, max_new_tokens=SAMPLE_TOKENS, batch_size=8))
        return [found[i].text for i in range(len(conversations))]

    shown = _spread(validation_conversations, recipe.tune.sample_answers)
    job = Job(run_dir.checkpoints, mark, console, answers, watch)
    started = time.monotonic()
    with _curves_in(run_dir):
        trainer = train(recipe, model, tokenizer, Split(samples, validation, shown), job)
    best = run_dir.checkpoints / "best"
    if not validation:  # the last weights are all there is
        save_weights(trainer, best)
    if trainer.is_world_process_zero():
        if recipe.tune.method == "full":
            tokenizer.save_pretrained(best)
        # Copied, not moved: a process killed before this stage is recorded finds the best weights again.
        copy = run_dir.path / ".adapter.new"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(best, copy)
        replace_folder(copy, run_dir.adapter)
        facts = {**story(trainer, model), "wall_seconds": round(time.monotonic() - started, 1), "rows": rows}
        write_json(run_dir.path / "tuning.json", {"method": recipe.tune.method, **facts})
        run_dir.update_manifest(chat_template=chat_template.to_json(template))


def tidy(run_dir: RunDir) -> None:
    """Remove the checkpoints of a tuning that the manifest calls finished; before that a kill still needs them."""
    # Out of sight at once: one that lost half of its files to a kill would be taken for whole by its marker.
    done = run_dir.path / ".checkpoints.done"
    shutil.rmtree(done, ignore_errors=True)
    if run_dir.checkpoints.exists():
        run_dir.checkpoints.rename(done)
        shutil.rmtree(done)


def samples_for(
    recipe: Recipe,
    template: chat_template.ChatTemplate,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    rows: dict[str, int],
) -> list[Sample]:
    """Samples that have something to learn from; `rows` receives the counts of used, truncated and dropped ones.

    Raises DataError, naming a row, when over 1 % have no supervised token or more than `data.max_truncated` are cut.
    """
    samples = list(chat_template.samples(template, tokenizer, conversations, recipe.data.max_length))
    useful = [sample for sample in samples if sample.supervised]
    dropped = len(samples) - len(useful)
    truncated = sum(sample.truncated > 0 for sample in useful)
    rows |= {"used": len(useful), "truncated": truncated, "dropped": dropped}
    if dropped > MAX_USELESS_ROWS * len(samples) or (conversations and not useful):
        first = next((sample.id for sample in samples if not sample.supervised), "none")
        raise DataError(
            f"{dropped} of {len(samples)} rows have no token to learn from, the first is {first}: at least one of an "
            f"answer must fit into data.max_length ({recipe.data.max_length} tokens). Drop empty answers, or raise it."
        )
    if truncated > recipe.data.max_truncated * len(samples):
        raise DataError(
            f"{truncated} of {len(samples)} rows are longer than data.max_length ({recipe.data.max_length} tokens) and "
            f"would be cut, more than data.max_truncated ({recipe.data.max_truncated:.0%}) allows. Raise either, or "
            "set data.clean.max_answer_words."
        )
    return useful


def story(trainer: SupervisedTrainer, model: Any) -> dict[str, Any]:
    """What happened in the tuning, for tuning.json and the report."""
    total, trained = methods.parameter_counts(model)
    log = trainer.state.log_history
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry and entry["step"] > 0}
    best = min(losses, key=lambda step: losses[step]) if losses else None
    on_cuda = model.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_cuda else probe.peak_resident_bytes()
    parameter = next(p for p in model.parameters() if not p.requires_grad or total == trained)
    return {
        "parameters_total": total,
        "parameters_trainable": trained,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seconds": round(trainer.seconds, 2),
        "tokens": trainer.tokens,
        "supervised_tokens": trainer.supervised_tokens,
        "tokens_per_second": round(trainer.tokens / max(trainer.seconds, 1e-9), 1),
        "peak_memory_bytes": peak,
        "best_validation_loss": losses[best] if best is not None else None,
        "best_step": best,
        "base_validation_loss": next(
            (entry["eval_loss"] for entry in log if entry.get("eval_loss") and entry["step"] == 0), None
        ),
        "is_packed": trainer.feed.lengths is None,
        "is_fast_loss": trainer.feed.head is not None,
        "device": model.device.type,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "history": [
            _history(entry) for entry in log if "loss" in entry or "eval_loss" in entry or "sample_rouge_l" in entry
        ],
        "samples": [{"step": entry["step"], **sample} for entry in log for sample in entry.get("samples", [])],
    }


def _history(entry: dict[str, Any]) -> dict[str, Any]:
    names = {
        "loss": "loss",
        "eval_loss": "validation_loss",
        "learning_rate": "learning_rate",
        "sample_rouge_l": "sample_rouge_l",
        "step": "step",
        "epoch": "epoch",
        "tokens": "tokens",
        "seconds": "seconds",
    }
    return {name: entry[key] for key, name in names.items() if key in entry}


def _same_machine_choices(section: ModelSection, run_dir: RunDir, mark: str) -> ModelSection:
    """The section with what `auto` chose when this tuning began: timings vary, and neither a resumed run nor another
    process of the same one may choose anew."""
    stored = run_dir.manifest().get("machine", {})
    if stored.get("fingerprint") != mark and int(os.environ.get("RANK", "0")) == 0:
        stored = {"fingerprint": mark, **probe.facts(section)}
        run_dir.update_manifest(machine=stored)
    while stored.get("fingerprint") != mark:
        time.sleep(0.2)
        stored = run_dir.manifest().get("machine", {})
    choices = {name: stored[name]["name"] for name in ("dtype", "device")}
    if section.attention == "auto":
        choices["attention"] = stored["attention"]["name"]
    return section.model_copy(update=choices)


def _device(section: ModelSection) -> torch.device:
    """The device of this process: under torchrun each one has its own GPU."""
    device = probe.device(section)
    return (
        torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.type == "cuda" and "LOCAL_RANK" in os.environ
        else device
    )


def _once(run_dir: RunDir, make: Any) -> None:
    """Let the first process make what all of them read."""
    ready = run_dir.path / "base" / "config.json"
    if int(os.environ.get("RANK", "0")) == 0:
        make()
    while not ready.exists():
        time.sleep(0.2)


@contextmanager
def _curves_in(run_dir: RunDir) -> Iterator[None]:
    """Let TensorBoard's curves go into the run's folder; transformers would put them among the checkpoints, which go
    when tuning is done. A folder that the user's environment names stays in force."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(run_dir.path / "tensorboard")
    try:
        yield
    finally:
        del os.environ[name]


def _spread(conversations: Sequence[Conversation], count: int) -> list[Conversation]:
    """At most `count` conversations, evenly over the list."""
    if len(conversations) <= count:
        return list(conversations)
    return [conversations[i * len(conversations) // count] for i in range(count)]
