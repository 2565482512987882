"""Every method reaches a clearly lower held-out loss than its base on a task one can learn, in the real trainer."""

import random

import pytest
import torch

from medtune.tuning import methods
from medtune.tuning.batches import collate_padded, collate_seq2seq
from medtune.tuning.head import plain_nll
from medtune.types import Sample

END, FIRST_LETTER, KINDS = 2, 3, 5


def rows(count, seed, *, seq2seq, tells):
    """Prompts of any letters. With `tells` the first token says of which two letters the answer is, else 6 6 6."""
    draw, made = random.Random(seed), []
    for i in range(count):
        kind = draw.randrange(KINDS)
        prompt = [draw.randrange(40, 60) for _ in range(3)]
        letters = [FIRST_LETTER + 2 * kind + draw.randrange(2) for _ in range(3)]
        answer = [*(letters if tells else [6, 6, 6]), END]
        prompt = [20 + kind, *prompt] if tells else prompt
        ids, labels = (prompt, answer) if seq2seq else (prompt + answer, [-100] * len(prompt) + answer)
        made.append(Sample(str(i), ids, labels))
    return made


def pretrain(model):
    """A base that knows letters, and that what comes first decides which."""
    seq2seq = model.config.is_encoder_decoder
    samples = rows(320, 5, seq2seq=seq2seq, tells=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(120):
        part = samples[step % 10 * 32 :][:32]
        batch = collate_seq2seq(part, 0, 0) if seq2seq else collate_padded(part, 0)
        targets = batch.pop("targets")
        loss = plain_nll(model(**batch).logits, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9, "the base has not learnt its letters"
    return model


METHODS = {
    "lora": {"learning_rate": 1e-2},
    "prompt": {"learning_rate": 0.1, "prompt": {"tokens": 4}},
    "full": {"learning_rate": 2e-3},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method"),
    [("llama", "lora"), ("llama", "prompt"), ("llama", "full"), ("t5", "lora"), ("t5", "prompt"), ("gpt2", "lora")],
)
def test_held_out_loss_falls_below_the_bases(make_recipe, tiny_model, tiny_tokenizer, run_trainer, family, method):
    seq2seq = family == "t5"
    recipe = make_recipe(**{"method": method, "batch_size": 16, "max_steps": 30, "evaluations": 2, **METHODS[method]})
    samples, held_out = (rows(count, count, seq2seq=seq2seq, tells=False) for count in (128, 32))
    base = pretrain(tiny_model(family)).eval()
    torch.manual_seed(0)
    model = methods.prepare(recipe, base, tiny_tokenizer, samples)
    trainer = run_trainer(recipe, model, samples, held_out)
    measured = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert measured[0] > 0.6, "there is nothing to learn"
    assert measured[-1] < 0.6 * measured[0], measured
