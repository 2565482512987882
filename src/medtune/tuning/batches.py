"""What goes into the loss: from samples to batches, in an order that can be resumed.

`packed` batches lay their documents end to end in one row, without padding and exactly isolated (`models.attention`).
`padded` batches are for models and methods that cannot be packed; rows of like length are put together. Either way a
batch carries `targets`: the token to be predicted *at* each position, -100 where nothing is, shifted here and nowhere
else, so that the number of targets is the number of terms in the loss.

Covered: order, packing, padding. Not covered: tokens and labels (`models.chat_template`), the loss itself (`head`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from medtune.models.attention import pack
from medtune.models.chat_template import IGNORED
from medtune.types import Sample

GROUP_BATCHES = 50


class EpochOrder(Sampler[int]):
    """A permutation of the rows for each epoch, from the seed and the epoch's number alone.

    With `lengths`, rows of like length stand together: inside every stretch of 50 updates the rows are sorted by length
    and the updates are shuffled. One stretch is a multiple of `update_rows`, so that `batch_size` 8 x 1 and 2 x 4 see
    the same rows in each update.

    Several processes must have equally many batches. accelerate would deal out the first rows a second time; instead
    the order is filled up to a multiple of `fill_to` with the numbers of no rows, from `rows` on (`trainer.Samples`).
    """

    def __init__(
        self, rows: int, seed: int, update_rows: int = 1, lengths: Sequence[int] | None = None, fill_to: int = 1
    ) -> None:
        self.rows, self.seed, self.update_rows, self.lengths = rows, seed, update_rows, lengths
        self.length = rows + -rows % fill_to
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter([*self._order(), *range(self.rows, self.length)])

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(self.rows, generator=generator).tolist()
        if self.lengths is None:
            return order
        lengths, size = self.lengths, self.update_rows
        stretch = GROUP_BATCHES * size
        updates: list[list[int]] = []
        for start in range(0, self.rows, stretch):
            ranked = sorted(order[start : start + stretch], key=lambda row: -lengths[row])
            updates += [ranked[i : i + size] for i in range(0, len(ranked), size)]
        # A short last update stays last: were it shuffled forward, every later update would straddle two groups.
        last = [updates.pop()] if len(updates[-1]) < size else []
        shuffled = [updates[i] for i in torch.randperm(len(updates), generator=generator).tolist()]
        return [row for update in shuffled + last for row in update]


def collate_packed(samples: Sequence[Sample]) -> dict[str, Any]:
    """One row without padding: `input_ids`, `position_ids`, `targets` of shape (1, tokens) and `document_lengths`."""
    targets = [token for sample in samples for token in (*sample.labels[1:], IGNORED)]
    return {**pack([sample.input_ids for sample in samples]), "targets": torch.tensor([targets])}


def collate_padded(samples: Sequence[Sample], pad_id: int) -> dict[str, Any]:
    """Right-padded rows of a causal model: `input_ids`, `attention_mask`, `targets` of shape (rows, longest)."""
    ids = _pad([sample.input_ids for sample in samples], pad_id)
    return {
        "input_ids": ids,
        "attention_mask": _mask([sample.input_ids for sample in samples]),
        "targets": _pad([[*sample.labels[1:], IGNORED] for sample in samples], IGNORED),
        "use_cache": False,
    }


def collate_seq2seq(samples: Sequence[Sample], pad_id: int, start_id: int) -> dict[str, Any]:
    """Right-padded rows of an encoder-decoder model; the decoder reads `start_id` and the target but its last token."""
    answers = [[pad_id if token == IGNORED else token for token in sample.labels] for sample in samples]
    decoder = [[start_id, *answer[:-1]] for answer in answers]
    return {
        "input_ids": _pad([sample.input_ids for sample in samples], pad_id),
        "attention_mask": _mask([sample.input_ids for sample in samples]),
        "decoder_input_ids": _pad(decoder, pad_id),
        "decoder_attention_mask": _mask(decoder),
        "targets": _pad([sample.labels for sample in samples], IGNORED),
        "use_cache": False,
    }


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _mask(rows: Sequence[Sequence[int]]) -> Tensor:
    return _pad([[1] * len(row) for row in rows], 0)
