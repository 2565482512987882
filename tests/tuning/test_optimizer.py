"""Muon gets the hidden matrices and nothing else, one learning rate serves both, and the state survives saving."""

import io

import pytest
import torch

from medtune.tuning.batches import collate_padded
from medtune.tuning.head import plain_nll
from medtune.tuning.optimizer import MuonAdamW


def update(model, optimizer, batch):
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    loss = plain_nll(model(**inputs).logits, batch["targets"]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_hidden_matrices_are_muons_and_the_rest_adamws(tiny_model, family):
    model = tiny_model(family)
    optimizer = MuonAdamW(model, 1e-3, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    muon, *rest = ([names[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert len(muon) == {"llama": 2 * 7, "gpt2": 2 * 4}[family], "attention and MLP matrices of two layers"
    assert not any("emb" in name or "wte" in name or "wpe" in name or "lm_head" in name for name in muon)
    assert sorted(name for part in (muon, *rest) for name in part) == sorted(names.values())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.0]


def test_updates_after_saving_and_loading_are_the_same_bits(tiny_model, make_samples):
    batch = collate_padded(make_samples(8), 0)
    whole, begun = tiny_model("llama"), tiny_model("llama")
    whole_optimizer, begun_optimizer = MuonAdamW(whole, 1e-2, 0.1), MuonAdamW(begun, 1e-2, 0.1)
    for _ in range(4):
        update(whole, whole_optimizer, batch)
    for _ in range(2):
        update(begun, begun_optimizer, batch)
    buffer = io.BytesIO()
    torch.save(begun_optimizer.state_dict(), buffer)
    buffer.seek(0)
    resumed = MuonAdamW(begun, 1e-2, 0.1)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(2):
        update(begun, resumed, batch)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), begun.parameters(), strict=True))


def test_one_learning_rate_serves_both_parts(tiny_model, make_samples):
    batch = collate_padded(make_samples(8), 0)
    model = tiny_model("llama")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    update(model, MuonAdamW(model, 1e-2, 0.0), batch)
    moved = {name: (p - before[name]).pow(2).mean().sqrt().item() for name, p in model.named_parameters()}
    assert all(5e-4 < size < 2e-2 for size in moved.values()), "the root mean square of every first update is alike"
