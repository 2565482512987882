"""The real trainer: however rows are laid out or accumulated, the updates are the same."""

import dataclasses
import math

import pytest
import torch

from medtune.errors import DataError, TuningError
from medtune.models.chat_template import choose
from medtune.tuning import methods, stage, train
from medtune.types import Conversation, Message

pytestmark = pytest.mark.slow


def prepared(recipe, model, samples, tokenizer):
    torch.manual_seed(0)
    return methods.prepare(recipe, model, tokenizer, samples)


def tuned_weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


@pytest.fixture
def lora_run(make_recipe, tiny_model, make_samples, tiny_tokenizer, run_trainer):
    """`lora_run(name, rows="packed")`: six updates of LoRA on a tiny Llama; the trainer and the weights it found."""

    def run(name, *, validation=0, count=24, wrap=lambda feed: feed, monkeypatch=None, **tune):
        recipe = make_recipe(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, **tune})
        samples = make_samples(count)
        model = prepared(recipe, tiny_model("llama"), samples, tiny_tokenizer)
        if monkeypatch:
            feed_for = train.feed_for
            monkeypatch.setattr(train, "feed_for", lambda *args: wrap(feed_for(*args)))
        trainer = run_trainer(recipe, model, samples, make_samples(validation, seed=9), name=name)
        return trainer, tuned_weights(model)

    return run


def test_packed_padded_and_plain_loss_curves_are_the_same(lora_run, losses, monkeypatch):
    packed, _ = lora_run("packed", rows="packed")
    assert packed.feed.lengths is None
    assert len(losses(packed)) == 6
    assert losses(packed)[-1] < losses(packed)[0]

    # packed rows are not grouped by length: for the same rows in each update neither are the others
    def in_any_order(feed):
        return dataclasses.replace(feed, lengths=None)

    def plain(feed):
        return dataclasses.replace(feed, lengths=None, head=None)

    for name, wrap, is_fast in (("padded", in_any_order, True), ("plain", plain, False)):
        with monkeypatch.context() as patch:
            other, _ = lora_run(name, rows="padded", wrap=wrap, monkeypatch=patch)
        assert (other.feed.head is not None) == is_fast
        assert losses(other) == pytest.approx(losses(packed), abs=1e-4)


def test_padded_rows_are_grouped_by_length(lora_run):
    trainer, _ = lora_run("grouped", rows="padded", max_steps=1)
    assert trainer.order.lengths == [len(sample.input_ids) for sample in trainer.train_dataset.samples]


@pytest.mark.parametrize("rows", ["packed", "padded"])
def test_eight_times_one_is_two_times_four(lora_run, losses, rows):
    whole, expected = lora_run("8x1", rows=rows, count=20)  # the last update of each epoch is short
    parts, found = lora_run("2x4", rows=rows, count=20, batch_size=2, accumulation=4)
    assert (found - expected).abs().max() < 1e-5
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-4)
    assert parts.tokens == whole.tokens
    assert parts.supervised_tokens == whole.supervised_tokens


def test_activation_checkpointing_changes_no_update(lora_run):
    _, expected = lora_run("plain")
    _, found = lora_run("checkpointed", activation_checkpointing=True)
    assert (found - expected).abs().max() < 1e-5


def test_tokens_are_counted_without_padding(lora_run, make_samples):
    samples = make_samples(24)
    for rows in ("packed", "padded"):
        trainer, _ = lora_run(rows, rows=rows)
        assert trainer.tokens == 2 * sum(len(s.input_ids) for s in samples)
        assert trainer.supervised_tokens == 2 * sum(s.supervised for s in samples)


@torch.no_grad()
def answer_nll(model, sample):
    """By hand: what each token of the answer costs."""
    logits = model(torch.tensor([sample.input_ids])).logits[0, :-1]
    nll = -torch.log_softmax(logits, -1)[range(len(logits)), sample.input_ids[1:]]
    return nll[torch.tensor(sample.labels[1:]) != -100]


@pytest.mark.parametrize("rows", ["packed", "padded"])
def test_validation_loss_is_sum_over_sum_at_any_batch_size(lora_run, make_samples, rows):
    found = []
    for size in (4, 13):
        trainer, _ = lora_run(f"batch{size}", rows=rows, validation=13, max_steps=1, batch_size=size)
        nll = [answer_nll(trainer.model.eval(), sample) for sample in make_samples(13, seed=9)]
        expected = float(torch.cat(nll).mean())
        assert trainer.state.log_history[0]["step"] == 0, "the base is measured before the first update"
        with train.fast_paths(trainer.feed.collate, trainer.model):
            found.append(trainer.validation_loss())
        assert found[-1] == pytest.approx(expected, abs=1e-5)
        assert not math.isclose(expected, sum(float(n.mean()) for n in nll) / 13, abs_tol=1e-3), "a mean of means"


def test_loss_that_is_no_number_stops_the_run(make_recipe, tiny_model, make_samples, tiny_tokenizer, run_trainer):
    recipe, samples = make_recipe(), make_samples(8)
    model = prepared(recipe, tiny_model("llama"), samples, tiny_tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.nan)
    with pytest.raises(TuningError, match=r"became nan after 0 updates.*tune.learning_rate"):
        run_trainer(recipe, model, samples)


def test_packing_is_refused_where_documents_would_see_each_other(make_recipe, tiny_model, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(train.attention, "isolates", lambda _: False)
    assert not train.is_packed(make_recipe(), model)
    with pytest.raises(TuningError, match="does not keep packed documents apart"):
        train.is_packed(make_recipe(rows="packed"), model)


def test_rows_follow_the_recipe(make_recipe, tiny_model):
    model = tiny_model("llama")
    assert train.is_packed(make_recipe(), model)
    assert not train.is_packed(make_recipe(rows="padded"), model)
    assert not train.is_packed(make_recipe(method="prompt"), model)
    assert not train.is_packed(make_recipe(model={"attention": "eager"}), model)


def conversations(*answers):
    return [
        Conversation(f"row-{i}", (Message("user", "What is asthma?"), Message("assistant", answer)))
        for i, answer in enumerate(answers)
    ]


def samples_of(make_recipe, tokenizer, rows, *, max_length=64, max_truncated=0.3):
    recipe = make_recipe(model={"chat_template": "plain"})
    data = recipe.data.model_copy(update={"max_length": max_length, "max_truncated": max_truncated})
    recipe = recipe.model_copy(update={"data": data})
    counts = {}
    template = choose(recipe.model, tokenizer, "causal")
    return stage.samples_for(recipe, template, tokenizer, rows, counts), counts


def test_rows_are_counted(make_recipe, tiny_tokenizer):
    rows = conversations("A lung disease.", "A lung disease. " * 50, "It is treated.", "With a spray.")
    samples, counts = samples_of(make_recipe, tiny_tokenizer, rows)
    assert counts == {"used": 4, "truncated": 1, "dropped": 0}
    assert [sample.id for sample in samples] == [f"row-{i}" for i in range(4)]


def test_rows_without_a_token_to_learn_from_are_refused_by_name(make_recipe, tiny_tokenizer):
    rows = [*conversations("A lung disease.", "Wheezing."), Conversation("empty-text", (Message("text", ""),))]
    with pytest.raises(DataError, match=r"1 of 3 rows have no token to learn from, the first is empty-text"):
        samples_of(make_recipe, tiny_tokenizer, rows)


def test_too_many_cut_rows_stop_the_run(make_recipe, tiny_tokenizer):
    rows = conversations("A lung disease.", "A lung disease. " * 50)
    with pytest.raises(DataError, match=r"1 of 2 rows are longer than data.max_length \(64 tokens\).*more than .*30%"):
        samples_of(make_recipe, tiny_tokenizer, rows)
    assert samples_of(make_recipe, tiny_tokenizer, rows, max_truncated=0.5)[1]["truncated"] == 1
