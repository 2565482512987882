"""transformers' Trainer with our loss, our order of rows and our evaluation; the loop itself stays theirs.

Covered: the loss as a sum over supervised tokens divided by their number in the whole update (so that accumulation and
several processes change nothing), validation loss as sum over sum, counting of tokens and seconds across resumes.
Not covered: batches (`batches`), the fast head (`head`), what is shown and kept on the way (`callbacks`).
Seq2SeqTrainer adds generation to `evaluate`, which is replaced here, so that one class serves both families.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer

from medtune.errors import TuningError
from medtune.models.chat_template import IGNORED
from medtune.tuning.batches import EpochOrder
from medtune.tuning.head import plain_nll, supervised
from medtune.types import Sample


@dataclass(frozen=True)
class Feed:
    """How samples reach the model: collator, lengths by which padded rows are grouped, head (None: the plain loss)."""

    collate: Callable[[Sequence[Sample]], dict[str, Any]]
    lengths: Sequence[int] | None
    head: nn.Module | None


class Samples(Dataset[Sample]):
    """A list of samples as torch wants it. Past its end stand the first ones again, with nothing to learn from."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if index < len(self.samples):
            return self.samples[index]
        sample = self.samples[index % len(self.samples)]
        return replace(sample, labels=[IGNORED] * len(sample.labels))


class SupervisedTrainer(Trainer):
    """A Trainer whose loss is the mean negative log-likelihood of the supervised tokens of the whole update."""

    loss_is_scaled_for_ga = True

    def __init__(self, feed: Feed, **options: Any) -> None:
        self.feed = feed
        super().__init__(data_collator=feed.collate, **options)
        self.model_accepts_loss_kwargs = True  # else the Trainer does not count the targets of an update
        self.tokens = self.supervised_tokens = 0
        self.seconds_before = 0.0
        self.is_over = False
        self.started = time.monotonic()

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor:
        counts = [[token_count(batch), int((batch["targets"] != IGNORED).sum())] for batch in batch_samples]
        total = self.accelerator.reduce(torch.tensor(counts, device=device).view(-1, 2).sum(0), "sum")
        self.tokens += int(total[0])
        self.supervised_tokens += int(total[1])
        return total[1]

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """The batches of one update; none where a resumed run has reached its end, for the loop would train on."""
        if self.is_over:
            return [], None
        # With several processes a resumed loader is wrapped too deep for transformers to tell the order its epoch.
        self.order.set_epoch(int(self.state.epoch or 0))
        batches: tuple[list[dict[str, Any]], Tensor] = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 - the Trainer's signature
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Summed negative log-likelihood of the batch over the number of targets in the whole update."""
        nll = self.nll(model, inputs)
        total = nll.sum()
        if not math.isfinite(total.detach().item()):
            raise TuningError(
                f"The loss became {total.item()} after {self.state.global_step} updates. "
                "Lower tune.learning_rate, or set model.dtype: float32."
            )
        # DDP averages gradients over the processes, while this loss is already a share of the whole update.
        return total * self.args.world_size / (len(nll) if num_items_in_batch is None else num_items_in_batch)

    def nll(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Negative log-likelihood of each supervised token of a batch, in nats."""
        targets = inputs["targets"]
        arguments = {name: value for name, value in inputs.items() if name != "targets"}
        head = self.feed.head
        only_supervised: AbstractContextManager[None] = (
            nullcontext() if head is None else supervised(model, head, targets)
        )
        with only_supervised:
            logits = model(**arguments).logits
        return plain_nll(logits, targets) if head is None else logits

    def _get_train_sampler(self, train_dataset: Dataset[Sample] | None = None) -> Sampler[int]:
        rows = len(train_dataset or self.train_dataset)
        pass_rows = self.args.train_batch_size * self.args.world_size
        update_rows = pass_rows * self.args.gradient_accumulation_steps
        fill_to = pass_rows if self.args.world_size > 1 else 1
        self.order = EpochOrder(rows, self.args.seed, update_rows, self.feed.lengths, fill_to)
        return self.order

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Sum of NLL over sum of supervised tokens of the validation samples, in nats per token."""
        samples = sorted(self.eval_dataset.samples, key=lambda sample: -len(sample.input_ids))
        size = self.args.per_device_eval_batch_size
        was_training = self.model.training
        self.model.eval()
        # On the device only where processes exchange it: MPS has no float64.
        device = self.args.device if self.args.world_size > 1 else torch.device("cpu")
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for start in range(0, len(samples), size * self.args.world_size):
            mine = samples[start + self.args.process_index * size :][:size]
            if not mine and not self.is_sharded:
                break
            # Sharded weights are gathered in every pass, so that no process may sit one out.
            inputs = self._prepare_inputs(self.feed.collate(mine or samples[:1]))
            with self.compute_loss_context_manager():
                nll = self.nll(self.model, inputs)
            if mine:
                sums += torch.tensor([nll.cpu().double().sum(), len(nll)], dtype=torch.float64, device=device)
        self.model.train(was_training)
        total = self.accelerator.reduce(sums, "sum")
        return float(total[0] / total[1])

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation loss, logged and told to the callbacks, as the loop expects it."""
        paused = time.monotonic()
        metrics = {"eval_loss": self.validation_loss()}
        self.started += time.monotonic() - paused  # before the log, from which a resumed run goes on counting
        self.log(dict(metrics))
        paused = time.monotonic()
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.started += time.monotonic() - paused
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's log, with tokens and seconds so far: the counts that a resumed run goes on from."""
        logs |= {"tokens": self.tokens, "supervised_tokens": self.supervised_tokens, "seconds": round(self.seconds, 3)}
        super().log(logs, start_time)

    @property
    def is_sharded(self) -> bool:
        """Whether a process holds only its part of each weight (FSDP)."""
        return bool(self.is_fsdp_enabled)

    @property
    def seconds(self) -> float:
        """Seconds spent on updates (not on evaluation), those before an interruption included."""
        return self.seconds_before + time.monotonic() - self.started

    def take_up(self, history: Sequence[dict[str, Any]]) -> None:
        """Go on counting where the log of an interrupted run ends."""
        last = next((entry for entry in reversed(history) if "tokens" in entry), None)
        if last:
            self.tokens, self.supervised_tokens = last["tokens"], last["supervised_tokens"]
            self.seconds_before = last["seconds"]
        self.started = time.monotonic()


def token_count(inputs: dict[str, Any]) -> int:
    """Real tokens of a batch, padding not counted; for encoder-decoder models those of both sides."""
    mask = inputs.get("attention_mask")
    count = inputs["input_ids"].numel() if mask is None else int(mask.sum())
    return count + int((inputs["targets"] != IGNORED).sum()) * ("decoder_input_ids" in inputs)
