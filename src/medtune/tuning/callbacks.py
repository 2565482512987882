"""What happens beside the loop: progress, sample answers, the best weights, early stopping, proof that it learns.

Covered: callbacks for `trainer.SupervisedTrainer`. Not covered: trackers (transformers' own, through `tune.report_to`).
State that must survive kill -9 stands in the trainer's log, which every checkpoint carries; none is kept here alone.
"""

# ruff: noqa: ARG002 - transformers calls each callback with all of its arguments

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medtune.errors import TuningError
from medtune.tuning.checkpoints import mark_complete, replace_folder
from medtune.tuning.trainer import SupervisedTrainer
from medtune.types import Conversation

STEPS_TO_MOVE = 3
ANSWER_SHOWN = 160

Answers = Callable[[Sequence[Conversation]], list[str]]
Watch = Callable[[int, float], None]


class ProgressBar(TrainerCallback):
    """A bar with loss, tokens per second and time left; silent where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None

    def attach(self, trainer: SupervisedTrainer) -> None:
        """Say whose tokens and seconds are shown."""
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_local_process_zero:
            return
        columns = (
            TextColumn("tuning"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("tuning", total=state.max_steps, completed=state.global_step, facts="")
        self.progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.progress:
            speed = self.trainer.tokens / max(self.trainer.seconds, 1e-9)
            loss = next((f"loss {entry['loss']:.3f}  " for entry in reversed(state.log_history) if "loss" in entry), "")
            self.progress.update(self.task, completed=state.global_step, facts=f"{loss}{speed:,.0f} tokens/s")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        if state.is_local_process_zero:
            self.console.print(
                f"  step {state.global_step} of {state.max_steps}: validation loss {metrics['eval_loss']:.4f}"
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        if self.progress:
            self.progress.stop()


class KeepBest(TrainerCallback):
    """Keep the weights of the lowest validation loss in `folder`; stop when `patience` evaluations bring no better."""

    def __init__(self, folder: Path, patience: int | None) -> None:
        self.folder, self.patience = folder, patience

    def attach(self, trainer: SupervisedTrainer) -> None:
        """Say whose weights are kept."""
        self.trainer = trainer

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        since_best = evaluations_since_best(state.log_history)
        if since_best is None:
            return  # the evaluation before the first update: that is the base
        # Saved again when a resumed run comes by the best step a second time; the weights are the same to the bit.
        if since_best == 0:
            save_weights(self.trainer, self.folder)
        if self.patience is not None and since_best >= self.patience:
            control.should_training_stop = True


def evaluations_since_best(history: Sequence[dict[str, Any]]) -> int | None:
    """How many evaluations ago the validation loss was lowest; None before the first, that of the base not counted."""
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry and entry["step"] > 0]
    return len(losses) - 1 - losses.index(min(losses)) if losses else None


class Watched(TrainerCallback):
    """Tell somebody outside of every validation loss; what he raises ends the tuning."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        if state.is_world_process_zero and state.global_step:
            self.watch(state.global_step, metrics["eval_loss"])


class MarkComplete(TrainerCallback):
    """Log before every checkpoint, so that it carries the counts up to its step, and mark it when it is whole."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def attach(self, trainer: SupervisedTrainer) -> None:
        """Say whose processes must all have written before a checkpoint is whole."""
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.save_steps and state.global_step % int(state.save_steps) == 0:
            control.should_log = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.fingerprint)


class MustMove(TrainerCallback):
    """Stop a run in which no trained weight has changed after three updates: it would cost and learn nothing."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        self.first_step = state.global_step
        self.before = {name: _corner(p) for name, p in model.named_parameters() if p.requires_grad}
        if not self.before:
            raise TuningError("No weight is trained. Check tune.method and tune.lora.targets.")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        if state.global_step != self.first_step + STEPS_TO_MOVE:
            return
        now = dict(model.named_parameters())
        # A process may hold no part of any trained weight (FSDP); then it has nothing to say.
        kept = {name: before for name, before in self.before.items() if before.numel()}
        if kept and all(torch.equal(before, _corner(now[name])) for name, before in kept.items()):
            raise TuningError(
                f"No trained weight has changed after {STEPS_TO_MOVE} updates: the run would learn nothing. "
                "Check tune.learning_rate, tune.warmup and tune.lora.targets."
            )
        self.before = {}


def _corner(parameter: nn.Parameter) -> torch.Tensor:
    """A part of a weight that is cheap to keep and large enough to show that the weight moves."""
    return local(parameter.detach()).flatten()[:1000].clone()


class SampleAnswers(TrainerCallback):
    """Answer a few validation questions at every evaluation, print the first, and log the ROUGE-L of all."""

    def __init__(self, conversations: Sequence[Conversation], answers: Answers, console: Console) -> None:
        self.conversations, self.answers, self.console = conversations, answers, console

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.conversations or not state.is_world_process_zero:
            return
        from rouge_score.rouge_scorer import RougeScorer

        texts = self.answers(self.conversations)
        scorer = RougeScorer(["rougeL"], use_stemmer=True)
        scores = [
            scorer.score(c.answer, text)["rougeL"].fmeasure for c, text in zip(self.conversations, texts, strict=True)
        ]
        samples = [
            {"id": c.id, "question": c.question, "reference": c.answer, "answer": text}
            for c, text in zip(self.conversations, texts, strict=True)
        ]
        state.log_history.append(
            {"step": state.global_step, "sample_rouge_l": sum(scores) / len(scores), "samples": samples}
        )
        shown = " ".join(texts[0].split())[:ANSWER_SHOWN]
        self.console.print(
            f"    [dim]{escape(self.conversations[0].question[:ANSWER_SHOWN])}[/] → {escape(shown) or '(nothing)'}",
            highlight=False,
        )


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a sharded tensor that this process holds; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def save_weights(trainer: SupervisedTrainer, folder: Path) -> None:
    """Write the adapter, or all weights of a full fine-tuning, so that `folder` is always whole.

    Every process must call this: where the weights are sharded, the first one gathers them from all.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    weights: dict[str, Any] = {}
    if trainer.is_sharded:
        trained_alone = hasattr(model, "peft_config")
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=trained_alone)
        weights = {"state_dict": get_model_state_dict(model, options=options)}
    if trainer.is_world_process_zero():
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        model.save_pretrained(new, **weights)
        replace_folder(new, folder)
