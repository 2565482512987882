"""The order of the rows and the shift of the targets."""

import random

import torch

from medtune.models.chat_template import IGNORED
from medtune.tuning.batches import GROUP_BATCHES, EpochOrder, collate_packed, collate_padded, collate_seq2seq
from medtune.types import Sample

DRAW = random.Random(1)
LENGTHS = [DRAW.randint(5, 500) for _ in range(1003)]


def order(epoch=0, rows=1003, seed=0, update_rows=8, lengths=LENGTHS):
    sampler = EpochOrder(rows, seed, update_rows, lengths)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_is_a_permutation_that_seed_and_epoch_fix():
    for lengths in (None, LENGTHS):
        assert sorted(order(lengths=lengths)) == list(range(1003))
        assert order(lengths=lengths) == order(lengths=lengths)
        assert order(epoch=1, lengths=lengths) != order(lengths=lengths)
        assert order(seed=1, lengths=lengths) != order(lengths=lengths)


def test_order_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order()
    assert torch.equal(before, torch.get_rng_state())


def padding(rows):
    batches = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    return sum(max(LENGTHS[i] for i in b) * len(b) for b in batches) / sum(LENGTHS) - 1


def test_rows_of_like_length_stand_together():
    assert padding(order(lengths=None)) > 0.5
    assert padding(order()) < 0.06


def test_updates_are_shuffled_and_the_short_one_is_last():
    rows = order()
    longest = [max(LENGTHS[i] for i in rows[k : k + 8]) for k in range(0, 1000, 8)]
    assert longest != sorted(longest, reverse=True)
    assert len(rows[1000:]) == 3
    # were a short update in the middle, a later one would mix long and short rows
    assert max(max(LENGTHS[i] for i in rows[k : k + 8]) - min(LENGTHS[i] for i in rows[k : k + 8])
               for k in range(0, GROUP_BATCHES * 8, 8)) < 60  # fmt: skip


def test_accumulated_updates_see_the_same_rows():
    # the order depends on the rows of an update alone, 8 x 1 or 2 x 4
    assert order(update_rows=8 * 1) == order(update_rows=2 * 4)


def test_filled_order_is_a_whole_number_of_steps_of_all_processes():
    filled = EpochOrder(1003, 0, 8, LENGTHS, fill_to=4)
    rows = list(filled)
    assert len(rows) == len(filled) == 1004
    assert rows[:1003] == order()
    assert rows[1003:] == [1003], "no row stands twice: the filler's number is that of no row"


SAMPLES = [
    Sample("a", [1, 10, 11, 12, 2], [-100, -100, -100, 12, 2]),
    Sample("b", [1, 20, 2], [-100, 20, 2]),
]


def test_packed_targets_are_shifted_within_each_document():
    batch = collate_packed(SAMPLES)
    assert batch["input_ids"].tolist() == [[1, 10, 11, 12, 2, 1, 20, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch["targets"].tolist() == [[-100, -100, 12, 2, -100, 20, 2, -100]]
    assert batch["document_lengths"] == (5, 3)


def test_padded_targets_are_shifted_and_end_is_supervised_though_it_pads():
    batch = collate_padded(SAMPLES, pad_id=2)  # pad == end, as in GPT-2
    assert batch["input_ids"].tolist() == [[1, 10, 11, 12, 2], [1, 20, 2, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["targets"].tolist() == [[-100, -100, 12, 2, -100], [20, 2, -100, -100, -100]]


def test_encoder_decoder_targets_are_the_answer_and_its_end():
    samples = [Sample("a", [5, 6, 2], [7, 8, 2]), Sample("b", [5, 2], [9, 2])]
    batch = collate_seq2seq(samples, pad_id=0, start_id=0)
    assert batch["decoder_input_ids"].tolist() == [[0, 7, 8], [0, 9, 0]]
    assert batch["decoder_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["targets"].tolist() == [[7, 8, 2], [9, 2, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_every_collator_has_one_target_for_each_supervised_token():
    for batch in (collate_packed(SAMPLES), collate_padded(SAMPLES, 0)):
        assert (batch["targets"] != IGNORED).sum() == sum(sample.supervised for sample in SAMPLES) == 4
