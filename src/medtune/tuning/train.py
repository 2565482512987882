"""From a model and samples to tuned weights: sets up the Trainer as the recipe says and runs it.

Covered: rows (packed or padded), the fast loss, steps and schedules, resuming, the order of callbacks.
Not covered: reading data and writing artifacts (`stage`), the loop (transformers), the loss (`trainer`, `head`).
Launched by torchrun or accelerate, every process runs this and transformers shards the rows: DDP, FSDP 2 (weights
sharded too), DeepSpeed ZeRO 1 and 2. FSDP 1, ZeRO-3 and FSDP on 4-bit weights are refused: not proven here.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerState, TrainingArguments

from medtune.errors import PrerequisiteError, TuningError
from medtune.models import attention, probe
from medtune.recipe import Recipe
from medtune.tuning import kernels, methods
from medtune.tuning.batches import collate_packed, collate_padded, collate_seq2seq
from medtune.tuning.callbacks import (
    Answers,
    KeepBest,
    MarkComplete,
    MustMove,
    ProgressBar,
    SampleAnswers,
    Watch,
    Watched,
    evaluations_since_best,
)
from medtune.tuning.checkpoints import last_complete
from medtune.tuning.head import fits
from medtune.tuning.optimizer import MuonAdamW
from medtune.tuning.trainer import Feed, Samples, SupervisedTrainer
from medtune.types import Conversation, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """What tuning sees: training and validation samples, and a few validation conversations to answer on the way."""

    train: Sequence[Sample]
    validation: Sequence[Sample]
    shown: Sequence[Conversation] = ()


@dataclass(frozen=True)
class Job:
    """Where a tuning works, and which it is: checkpoints go below `folder`, another fingerprint's are removed.

    `watch(step, validation_loss)` is called at every evaluation; what it raises ends the tuning.
    """

    folder: Path
    fingerprint: str
    console: Console
    answers: Answers | None = None
    watch: Watch | None = None


def is_packed(recipe: Recipe, model: nn.Module) -> bool:
    """Whether rows are packed: as `tune.rows` says, with `auto` wherever documents are proven to stay apart.

    Raises TuningError when the recipe asks for packing and the model cannot keep documents apart.
    """
    if (
        recipe.tune.rows == "padded"
        or recipe.tune.method == "prompt"
        or recipe.model.attention not in ("auto", "documents")
    ):
        return False
    can: bool = attention.isolates(model)
    asked = "tune.rows: packed" if recipe.tune.rows == "packed" else "model.attention: documents"
    if not can and (recipe.tune.rows == "packed" or recipe.model.attention == attention.NAME):
        raise TuningError(
            f"{asked}, but {recipe.model.base} does not keep packed documents apart under medtune's kernel: each would "
            "see its neighbours. Set tune.rows: padded and model.attention: auto."
        )
    return can


def feed_for(recipe: Recipe, model: Any, tokenizer: PreTrainedTokenizerBase, split: Split) -> Feed:
    """How samples reach this model: packed or padded, with the fast loss where it equals the plain one."""
    lengths: list[int] | None = None
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        collate: Any = partial(collate_seq2seq, pad_id=tokenizer.pad_token_id, start_id=start)
        lengths = [len(sample.input_ids) + len(sample.labels) for sample in split.train]
    elif is_packed(recipe, model):
        collate = collate_packed
    else:
        collate = partial(collate_padded, pad_id=tokenizer.pad_token_id)
        lengths = [len(sample.input_ids) for sample in split.train]
    head = model.get_output_embeddings()
    inputs = {name: _to(value, model.device) for name, value in collate(split.train[:2]).items()}
    targets = inputs.pop("targets")
    with fast_paths(collate, model), _autocast(recipe, model):
        head_fits = fits(model, head, inputs, targets)
    return Feed(collate, lengths, head if head_fits else None)


@contextmanager
def fast_paths(collate: Any, model: nn.Module) -> Iterator[None]:
    """The written-out layers, and for packed rows the attention kernel that keeps documents apart."""
    with kernels.fast(model), attention.kernel(model, attention.NAME) if collate is collate_packed else nullcontext():
        yield


def train(recipe: Recipe, model: Any, tokenizer: PreTrainedTokenizerBase, split: Split, job: Job) -> SupervisedTrainer:
    """Tune `model` in place and keep its best weights in `job.folder`/best. Goes on from the last whole checkpoint.

    Returns the trainer, whose state holds the log.
    """
    feed = feed_for(recipe, model, tokenizer, split)
    bar = ProgressBar(job.console)
    callbacks = [MarkComplete(job.fingerprint), MustMove(), bar]
    if job.answers and split.shown:
        callbacks.insert(0, SampleAnswers(split.shown, job.answers, job.console))
    if split.validation:
        callbacks.insert(0, KeepBest(job.folder / "best", recipe.tune.patience))
    if job.watch:
        callbacks.append(Watched(job.watch))
    trainer = SupervisedTrainer(
        feed,
        model=model,
        args=arguments(recipe, model, len(split.train), job.folder, validates=bool(split.validation)),
        train_dataset=Samples(split.train),
        eval_dataset=Samples(split.validation),
        callbacks=callbacks,
        optimizers=(_own_optimizer(recipe, model), None),
    )
    trainer.remove_callback(PrinterCallback)
    _check_sharding(trainer, recipe)
    for callback in callbacks:
        if hasattr(callback, "attach"):
            callback.attach(trainer)
    if trainer.is_sharded and trainer.pop_callback(SampleAnswers):
        log.warning("No sample answers during tuning: generating needs whole weights, and FSDP shards them.")
    checkpoint = last_complete(job.folder, job.fingerprint)
    trainer.args.eval_on_start = checkpoint is None and bool(split.validation)  # the base's own loss, to compare with
    if checkpoint:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        trainer.take_up(state.log_history)
        since_best = evaluations_since_best(state.log_history)
        is_stopped = recipe.tune.patience is not None and (since_best or 0) >= recipe.tune.patience
        trainer.is_over = is_stopped or state.global_step >= state.max_steps
        job.console.print(f"  going on from step {checkpoint.name.rpartition('-')[2]}")
    try:
        with fast_paths(feed.collate, model):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        bar.close()
    return trainer


def _own_optimizer(recipe: Recipe, model: nn.Module) -> MuonAdamW | None:
    """What the Trainer cannot make by itself from its arguments."""
    tune = recipe.tune
    if tune.optimizer != "muon":
        return None
    if {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):
        raise PrerequisiteError("tune.optimizer: muon needs whole weights. Launch with torchrun alone, or set adamw.")
    return MuonAdamW(model, tune.peak_learning_rate, tune.weight_decay)


def _check_sharding(trainer: SupervisedTrainer, recipe: Recipe) -> None:
    """Refuse the ways to shard weights that are not proven here."""
    state = trainer.accelerator.state
    if trainer.is_deepspeed_enabled and state.deepspeed_plugin.zero_stage == 3:
        raise PrerequisiteError(
            "DeepSpeed's ZeRO-3 is not supported. To shard the weights too, launch with FSDP "
            "(accelerate launch --use_fsdp --fsdp_version 2); else use ZeRO-2."
        )
    if trainer.is_fsdp_enabled and state.fsdp_plugin.fsdp_version != 2:
        raise PrerequisiteError("FSDP 1 is not supported. Launch with --fsdp_version 2.")
    if trainer.is_fsdp_enabled and recipe.model.quantization == "nf4":
        raise PrerequisiteError(
            "FSDP on a 4-bit base is not supported. Set model.quantization: none, or launch with torchrun alone (DDP)."
        )


def arguments(recipe: Recipe, model: Any, rows: int, folder: Path, *, validates: bool = True) -> TrainingArguments:
    """The Trainer's arguments for this recipe."""
    tune = recipe.tune
    steps = total_steps(recipe, rows)
    every = max(1, math.ceil(steps / tune.evaluations))
    on_cuda = model.device.type == "cuda"
    methods.check_optimizer(recipe, model.device)
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=tune.batch_size,
        per_device_eval_batch_size=tune.batch_size,
        gradient_accumulation_steps=tune.accumulation,
        num_train_epochs=tune.epochs,
        max_steps=steps,
        learning_rate=tune.peak_learning_rate,
        lr_scheduler_type=tune.scheduler,
        warmup_steps=math.ceil(tune.warmup * steps),
        weight_decay=tune.weight_decay,
        max_grad_norm=tune.max_grad_norm,
        optim="adamw_bnb_8bit" if tune.optimizer == "adamw_8bit" else "adamw_torch_fused",
        bf16=_wants_autocast(recipe, model),
        fp16=recipe.model.dtype == "float16" and on_cuda,
        use_cpu=model.device.type == "cpu",
        activation_checkpointing=tune.activation_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        eval_strategy="steps" if validates else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=tune.checkpoint_steps or every,
        save_total_limit=2,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        report_to=list(tune.report_to) or "none",
        run_name=recipe.name,
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=on_cuda,
        label_names=["targets"],
        average_tokens_across_devices=False,
    )


def total_steps(recipe: Recipe, rows: int) -> int:
    """Updates in the whole tuning, a short last one of each epoch included."""
    tune = recipe.tune
    world = int(os.environ.get("WORLD_SIZE", "1"))
    per_epoch = math.ceil(rows / (tune.batch_size * tune.accumulation * world))
    steps = max(1, math.ceil(per_epoch * tune.epochs))
    return min(steps, tune.max_steps) if tune.max_steps else steps


def _wants_autocast(recipe: Recipe, model: Any) -> bool:
    """Whether float32 weights that are trained should be computed with in bfloat16."""
    dtype = probe.dtype_choice(model.device).name if recipe.model.dtype == "auto" else recipe.model.dtype
    return dtype == "bfloat16" and next(model.parameters()).dtype == torch.float32


def _autocast(recipe: Recipe, model: Any) -> AbstractContextManager[Any]:
    return torch.autocast(model.device.type, torch.bfloat16) if _wants_autocast(recipe, model) else nullcontext()


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
