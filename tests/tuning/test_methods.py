"""What each method trains, where it starts, and what is refused."""

import pytest
import torch

from medtune.errors import TuningError
from medtune.tuning import methods


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def prepare(make_recipe, model, tokenizer, samples=(), **options):
    return methods.prepare(make_recipe(**options), model, tokenizer, samples)


def test_lora_trains_the_adapter_alone(make_recipe, tiny_model, tiny_tokenizer):
    model = prepare(make_recipe, tiny_model("llama"), tiny_tokenizer, lora={"targets": ["q_proj", "v_proj"]})
    assert all("lora_" in name for name in trained(model))
    total, count = methods.parameter_counts(model)
    # two layers; rank 4; q: 32 -> 32, v: 32 -> 16
    assert count == 2 * 4 * (32 + 32 + 32 + 16)
    assert total == count + sum(p.numel() for p in tiny_model("llama").parameters())


def test_lora_weights_are_float32_on_a_bfloat16_base(make_recipe, tiny_model, tiny_tokenizer):
    model = prepare(make_recipe, tiny_model("llama").bfloat16(), tiny_tokenizer)
    dtypes = {p.dtype for name, p in model.named_parameters() if p.requires_grad}
    assert dtypes == {torch.float32}
    assert model.get_base_model().lm_head.weight.dtype == torch.bfloat16


def test_all_linear_leaves_the_head_alone(make_recipe, tiny_model, tiny_tokenizer):
    for family in ("llama", "gpt2", "t5", "bart"):
        model = prepare(make_recipe, tiny_model(family), tiny_tokenizer, lora={"targets": "all-linear"})
        assert trained(model)
        assert not any("lm_head" in name for name in trained(model))


@pytest.mark.parametrize("targets", [["query"], ["q_proj", "query"]])
def test_target_that_matches_nothing_is_an_error_with_the_valid_names(make_recipe, tiny_model, tiny_tokenizer, targets):
    with pytest.raises(TuningError, match=r"tune.lora.targets: query match.*down_proj, gate_proj.*q_proj.*all-linear"):
        prepare(make_recipe, tiny_model("llama"), tiny_tokenizer, lora={"targets": targets})


def test_rslora_and_dora_are_switched_on(make_recipe, tiny_model, tiny_tokenizer):
    options = {"rank": 4, "alpha": 8, "targets": ["q_proj"]}
    scales = {}
    for name in ("plain", "rslora", "dora"):
        lora = options if name == "plain" else {**options, name: True}
        model = prepare(make_recipe, tiny_model("llama"), tiny_tokenizer, lora=lora)
        layer = model.get_base_model().model.layers[0].self_attn.q_proj
        scales[name] = layer.scaling["default"]
        assert any("magnitude" in parameter for parameter in trained(model)) == (name == "dora")
    assert scales == {"plain": 8 / 4, "rslora": 8 / 4**0.5, "dora": 8 / 4}


def test_full_trains_every_weight_in_float32(make_recipe, tiny_model, tiny_tokenizer):
    model = prepare(make_recipe, tiny_model("llama").bfloat16(), tiny_tokenizer, method="full")
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(True, torch.float32)}
    total, count = methods.parameter_counts(model)
    assert total == count == sum(p.numel() for p in model.parameters())


def prompt_rows(model):
    assert trained(model) == {"prompt_encoder.default.embedding.weight"}
    return model.prompt_encoder["default"].embedding.weight.detach()


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_prompt_starts_from_common_tokens_of_the_data(make_recipe, tiny_model, tiny_tokenizer, make_samples, family):
    base = tiny_model(family)
    table = base.get_input_embeddings().weight.detach().clone()
    samples = make_samples(20, seq2seq=family == "t5")
    options = {"method": "prompt", "prompt": {"tokens": 6}}
    tuned = prepare(make_recipe, base, tiny_tokenizer, samples, **options)
    rows = prompt_rows(tuned)
    assert rows.shape == (6, 32)
    assert tuned.prompt_encoder["default"].embedding.num_embeddings == 6, "one prompt, before the encoder"
    used = {token for sample in samples for token in sample.input_ids}
    found = [int((table == row).all(1).nonzero()[0]) for row in rows]
    assert set(found) <= used
    assert len(set(found)) == 6
    again = prepare(make_recipe, tiny_model(family), tiny_tokenizer, samples, **options)
    assert torch.equal(prompt_rows(again), rows)
    assert methods.parameter_counts(again)[1] == 6 * 32


def test_prompt_starts_from_a_text_that_is_repeated(make_recipe, tiny_model, tiny_tokenizer):
    base = tiny_model("llama")
    table = base.get_input_embeddings().weight.detach().clone()
    ids = tiny_tokenizer("asthma?", add_special_tokens=False).input_ids
    prompt = {"tokens": 2 * len(ids) + 1, "initial": "text", "text": "asthma?"}
    rows = prompt_rows(prepare(make_recipe, base, tiny_tokenizer, method="prompt", prompt=prompt))
    assert torch.equal(rows, table[[*ids, *ids, ids[0]]])
    empty = {**prompt, "text": ""}
    with pytest.raises(TuningError, match=r"tune\.prompt\.text: empty"):
        prepare(make_recipe, tiny_model("llama"), tiny_tokenizer, method="prompt", prompt=empty)


def test_quantised_base_learns_through_its_adapter(
    make_recipe, tiny_model, tiny_tokenizer, make_samples, run_trainer, losses, tmp_path
):
    pytest.importorskip("bitsandbytes", reason="the extra nf4 is not installed")
    from medtune.models import loading

    # 64 wide: bitsandbytes quantises in blocks of 64 numbers
    tiny_model("llama", hidden_size=64, head_dim=16).save_pretrained(tmp_path / "base")
    recipe = make_recipe(
        model={"quantization": "nf4"}, max_steps=12, learning_rate=2e-2, batch_size=8, lora={"targets": "all-linear"}
    )
    base = loading.load_model(recipe.model, str(tmp_path / "base"), device=torch.device("cpu"))
    samples = make_samples(24)
    torch.manual_seed(0)
    model = methods.prepare(recipe, base, tiny_tokenizer, samples)
    packed = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert any(p.dtype == torch.uint8 for p in packed.values()), "nothing is in four bits"
    trainer = run_trainer(recipe, model, samples)
    assert losses(trainer)[-1] < losses(trainer)[0] - 0.5
    assert all(torch.equal(p, packed[name]) for name, p in model.named_parameters() if name in packed)
    total, _ = methods.parameter_counts(model)
    assert total > sum(p.numel() for p in tiny_model("llama", hidden_size=64, head_dim=16).parameters())
