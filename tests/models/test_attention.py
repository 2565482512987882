"""Packed documents under the kernel `documents` are what they are alone: logits and gradients, in every family."""

import pytest
import torch

from medtune.models import attention

DECODERS = ["llama", "gpt2", "gpt_neox", "qwen2", "mistral", "gemma2", "gemma3_text"]


def random_documents(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 280, (length,), generator=generator).tolist() for length in lengths]


def summed_gradients(model, rows, kernel=None):
    """Gradients of a weighted sum of the logits over all tokens of `rows` (model inputs)."""
    model.zero_grad()
    with attention.kernel(model, kernel or model.config._attn_implementation):
        logits = torch.cat([model(**row).logits[0] for row in rows])
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weights).sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def alone(documents):
    return [{"input_ids": torch.tensor([document]), "use_cache": False} for document in documents]


def assert_same(found, expected):
    scale = expected.abs().max().clamp(min=1e-3)
    assert (found - expected).abs().max() <= 1e-4 * scale


@pytest.mark.parametrize("family", DECODERS)
def test_families_keep_packed_documents_apart(tiny_model, family):
    assert attention.isolates(tiny_model(family))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_leaking_kernel_is_found_out(tiny_model, family, monkeypatch):
    def leaking(*args, document_lengths, **options):
        return attention._attend(*args, document_lengths=(sum(document_lengths),), **options)

    attention.AttentionInterface.register("leaking", leaking)
    monkeypatch.setattr(attention, "NAME", "leaking")
    assert not attention.isolates(tiny_model(family))


def test_encoder_decoder_models_are_not_packed(tiny_model):
    assert not attention.isolates(tiny_model("t5"))


@pytest.mark.parametrize("family", DECODERS)
def test_packed_logits_and_gradients_equal_those_alone(tiny_model, family):
    # 33 tokens: longer than the sliding windows of mistral and the gemmas, which are 24
    model, documents = tiny_model(family), random_documents(9, 33, 1, 14)
    expected, gradients = summed_gradients(model, alone(documents))
    found, packed_gradients = summed_gradients(model, [attention.pack(documents)], attention.NAME)
    assert_same(found, expected)
    assert gradients.keys() == packed_gradients.keys()
    for name, gradient in gradients.items():
        assert_same(packed_gradients[name], gradient)


def test_documents_longer_than_a_block(tiny_model, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 8)
    test_packed_logits_and_gradients_equal_those_alone(tiny_model, "llama")


def test_dropout_path_drops_in_training_only(tiny_model):
    model, documents = tiny_model("gpt2"), random_documents(9, 12)
    model.config.attn_pdrop = 0.0
    plain, _ = summed_gradients(model, alone(documents))
    for block in model.transformer.h:
        block.attn.attn_dropout.p = 0.5
        block.attn.resid_dropout.p = block.mlp.dropout.p = 0.0
    model.transformer.drop.p = 0.0
    row = [attention.pack(documents)]
    assert_same(summed_gradients(model.eval(), row, attention.NAME)[0], plain)
    torch.manual_seed(0)
    first, _ = summed_gradients(model.train(), row, attention.NAME)
    torch.manual_seed(1)
    second, _ = summed_gradients(model, row, attention.NAME)
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, second)


def test_kernel_is_put_back_after_an_error(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(TypeError), attention.kernel(model, attention.NAME):
        model(**attention.pack([[3]]), nonsense=1, input_embeds=2, input_ids=3)
    assert model.config._attn_implementation == "eager"
