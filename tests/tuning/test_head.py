"""The loss on supervised positions alone is the plain one, in value and gradients; else it is not used."""

import pytest
import torch
from torch import nn

from medtune.tuning import head as heads
from medtune.tuning.batches import collate_padded, collate_seq2seq


def case(*, bias: bool, trains_head: bool, virtual: int = 0):
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=bias).requires_grad_(trains_head)
    hidden = torch.randn(3, 7 + virtual, 16, requires_grad=True)
    targets = torch.randint(0, 50, (3, 7))
    targets[:, :3] = heads.IGNORED
    return hidden, head, targets


def gradients(nll, tensors, last=2):
    # weights differ by token, so that a permuted result is found out
    (nll * torch.linspace(1, last, len(nll))).sum().backward()
    found = [tensor.grad.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    return found


@pytest.mark.parametrize("slice_elements", [2**23, 170])  # all rows at once, and three rows at a time
@pytest.mark.parametrize(("bias", "trains_head"), [(False, False), (True, False), (False, True), (True, True)])
def test_equals_cross_entropy_in_value_and_gradients(bias, trains_head, slice_elements, monkeypatch):
    monkeypatch.setattr(heads, "SLICE_ELEMENTS", slice_elements)
    hidden, head, targets = case(bias=bias, trains_head=trains_head)
    tensors = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    mean = [gradients(nll, tensors, last=1) for nll in (heads.token_nll(hidden, head, targets),
                                                        heads.plain_nll(head(hidden), targets))]  # fmt: skip
    assert all(torch.allclose(ours, plain, atol=1e-5) for ours, plain in zip(*mean, strict=True))
    expected = heads.plain_nll(head(hidden), targets)
    assert expected.tolist() == nn.functional.cross_entropy(head(hidden)[:, 3:].flatten(0, 1), targets[:, 3:].flatten(),
                                                            reduction="none").tolist()  # fmt: skip
    found = heads.token_nll(hidden, head, targets)
    assert torch.allclose(found, expected, atol=1e-5)
    for ours, plain in zip(gradients(found, tensors), gradients(expected, tensors), strict=True):
        assert torch.allclose(ours, plain, atol=1e-5)


def test_virtual_tokens_in_front_shift_the_positions():
    hidden, head, targets = case(bias=False, trains_head=False, virtual=4)
    expected = heads.plain_nll(head(hidden[:, 4:]), targets)
    assert torch.allclose(heads.token_nll(hidden, head, targets), expected, atol=1e-5)
    assert torch.allclose(heads.plain_nll(head(hidden), targets), expected, atol=1e-5)


def test_batch_without_any_target_gives_zero_gradients():
    hidden, head, targets = case(bias=False, trains_head=False)
    heads.token_nll(hidden, head, torch.full_like(targets, heads.IGNORED)).sum().backward()
    assert hidden.grad.abs().max() == 0


def test_head_is_itself_again_after_the_block(tiny_model):
    model = tiny_model("llama")
    ids, targets = torch.tensor([[3, 4, 5]]), torch.tensor([[4, 5, -100]])
    with heads.supervised(model, model.lm_head, targets):
        assert model(ids).logits.shape == (2,)
    assert model(ids).logits.shape == (1, 3, 300)
    assert "forward" not in vars(model.lm_head)


def first_batch(model, make_samples):
    if model.config.is_encoder_decoder:
        batch = collate_seq2seq(make_samples(3, seq2seq=True), 0, model.config.decoder_start_token_id)
    else:
        batch = collate_padded(make_samples(3), 0)
    return batch, batch.pop("targets")


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart"])
def test_fits_where_the_logits_are_the_heads(tiny_model, make_samples, family):
    model = tiny_model(family)
    assert heads.fits(model, model.get_output_embeddings(), *first_batch(model, make_samples))


def test_fits_not_where_logits_are_changed_after_the_head(tiny_model, make_samples):
    capped = tiny_model("gemma2", final_logit_softcapping=2.0)
    assert not heads.fits(capped, capped.lm_head, *first_batch(capped, make_samples))
    shifted = tiny_model("bart")
    shifted.final_logits_bias[0, ::2] = 3.0
    assert not heads.fits(shifted, shifted.lm_head, *first_batch(shifted, make_samples))
    assert shifted.final_logits_bias.shape == (1, 300)


def test_fits_not_for_a_wrapped_head(tiny_model, make_samples):
    model = tiny_model("llama")
    assert not heads.fits(model, nn.Sequential(model.lm_head), *first_batch(model, make_samples))
