"""Every method reaches a clearly lower held-out loss than its base, through the real trainer, on a task one can learn."""

import random

import pytest
import torch

from medtune.tuning import methods
from medtune.types import Sample

END = 2


def copies(count, seed, *, seq2seq):
    """A prompt of letters, answered by its first letter three times: what must be learnt stands in the prompt."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        prompt = [draw.randrange(3, 13) for _ in range(3)]
        answer = [prompt[0]] * 3 + [END]
        ids, labels = (prompt, answer) if seq2seq else (prompt + answer, [-100] * 3 + answer)
        made.append(Sample(str(i), ids, labels))
    return made


METHODS = {
    "lora": {"learning_rate": 2e-2, "lora": {"rank": 8, "targets": "all-linear"}},
    "prompt": {"learning_rate": 0.1, "prompt": {"tokens": 8}},
    "full": {"learning_rate": 5e-3},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method"),
    [("llama", "lora"), ("llama", "prompt"), ("llama", "full"), ("t5", "lora"), ("t5", "prompt"), ("gpt2", "lora")],
)
def test_held_out_loss_falls_below_the_bases(make_recipe, tiny_model, tiny_tokenizer, run_trainer, family, method):
    seq2seq = family == "t5"
    options = {"batch_size": 16, "max_steps": 60, "evaluations": 3, **METHODS[method]}
    recipe = make_recipe(method=method, **options)
    samples, held_out = copies(256, 0, seq2seq=seq2seq), copies(40, 1, seq2seq=seq2seq)
    torch.manual_seed(0)
    model = methods.prepare(recipe, tiny_model(family), tiny_tokenizer, samples)
    trainer = run_trainer(recipe, model, samples, held_out)
    measured = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    print(family, method, measured)
    assert min(measured[1:]) < 0.6 * measured[0]
