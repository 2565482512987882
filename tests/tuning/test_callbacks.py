"""What stops a run, what is kept of it, and which checkpoints are trusted."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from medtune.errors import TuningError
from medtune.tuning import callbacks, checkpoints, methods, train


@pytest.fixture
def lora_run(make_recipe, tiny_model, make_samples, tiny_tokenizer, run_trainer):
    def run(*, validation=0, mark="m", seed=0, **tune):
        recipe = make_recipe(**{"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2, **tune})
        samples = make_samples(24, seed=seed)
        torch.manual_seed(0)
        model = methods.prepare(recipe, tiny_model("llama"), tiny_tokenizer, samples)
        return run_trainer(recipe, model, samples, make_samples(validation, seed=9), mark=mark)

    return run


def test_run_in_which_no_weight_moves_is_stopped(lora_run):
    with pytest.raises(TuningError, match=r"No trained weight has changed after 3 updates.*tune.learning_rate"):
        lora_run(learning_rate=1e-45)


def test_run_that_trains_nothing_is_stopped(make_recipe, tiny_model, make_samples, run_trainer):
    model = tiny_model("llama").requires_grad_(False)
    with pytest.raises(TuningError, match="No weight is trained"):
        run_trainer(make_recipe(), model, make_samples(8))


def state_after(*losses):
    history = [{"step": 2 * i, "eval_loss": loss} for i, loss in enumerate(losses)]
    return TrainerState(log_history=history, is_world_process_zero=True)


def test_best_weights_are_kept_and_patience_ends_the_run(tiny_model, tmp_path):
    keep = callbacks.KeepBest(tmp_path / "best", patience=2)
    model, kept, stopped = tiny_model("llama"), [], []
    one = SimpleNamespace(unwrap_model=lambda model: model)
    keep.attach(SimpleNamespace(model=model, accelerator=one, is_sharded=False, is_world_process_zero=lambda: True))
    losses = [9.0, 3.0, 2.0, 2.5, 2.0, 1.0]  # the first is the base's; an equal loss is no better one
    for i in range(1, len(losses) + 1):
        with torch.no_grad():
            model.lm_head.weight.fill_(i)
        control = TrainerControl()
        keep.on_evaluate(TrainingArguments(tmp_path), state_after(*losses[:i]), control)
        best = tmp_path / "best" / "model.safetensors"
        kept.append(int(load_file(best)["lm_head.weight"][0, 0]) if best.exists() else None)
        stopped.append(control.should_training_stop)
    assert kept == [None, 2, 3, 3, 3, 6]
    assert stopped == [False, False, False, False, True, False]
    assert [path.name for path in tmp_path.iterdir()] == ["best"], "nothing half written is left"


def test_run_stops_early_and_keeps_the_weights_from_before(lora_run):
    # a learning rate that soon makes it worse
    trainer = lora_run(validation=6, learning_rate=3.0, max_steps=12, evaluations=12, patience=2)
    losses = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if e.get("eval_loss") and e["step"]}
    best = min(losses, key=losses.get)
    assert trainer.state.global_step == best + 2 < 12
    model, found = trainer.model, load_file(f"{trainer.args.output_dir}/best/adapter_model.safetensors")
    assert any((model.state_dict()[n.replace(".weight", ".default.weight")] != w).any() for n, w in found.items())
    model.load_adapter(f"{trainer.args.output_dir}/best", "best")
    model.set_adapter("best")
    with train.fast_paths(trainer.feed.collate, model):
        assert trainer.validation_loss() == pytest.approx(losses[best], abs=1e-6)


def checkpoint(folder, step, mark=None):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_text("w")
    if mark:
        checkpoints.mark_complete(path, mark)
    return path


def test_newest_whole_checkpoint_of_this_fingerprint_is_taken(tmp_path):
    checkpoint(tmp_path, 5, "mine")
    whole = checkpoint(tmp_path, 10, "mine")
    torn = checkpoint(tmp_path, 100)
    foreign = checkpoint(tmp_path, 20, "another's")
    (tmp_path / "best").mkdir()
    assert checkpoints.last_complete(tmp_path, "mine") == whole
    assert not torn.exists()
    assert not foreign.exists()
    assert (tmp_path / "best").exists()


def test_without_a_checkpoint_of_ones_own_the_best_weights_are_a_strangers(tmp_path):
    checkpoint(tmp_path, 20, "another's")
    (tmp_path / "best").mkdir()
    assert checkpoints.last_complete(tmp_path, "mine") is None
    assert list(tmp_path.iterdir()) == []


def test_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / content).touch()
        checkpoints.replace_folder(tmp_path / "new", tmp_path / "target")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["target", "target/second"]


def test_every_checkpoint_is_marked_and_carries_its_counts(lora_run, make_samples):
    trainer = lora_run(checkpoint_steps=2, mark="mine")
    folder = checkpoints.last_complete(Path(trainer.args.output_dir), "mine")
    assert folder.name == "checkpoint-6"
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert log[-1]["step"] == 6
    assert log[-1]["supervised_tokens"] == sum(sample.supervised for sample in make_samples(24))


def test_finished_run_that_is_taken_up_again_does_no_further_update(lora_run):
    first = lora_run(max_steps=4, validation=4)  # in the middle of an epoch of six
    again = lora_run(max_steps=4, validation=4)
    assert again.state.global_step == 4
    assert again.tokens == first.tokens
    evaluated = [[e["step"] for e in t.state.log_history if "eval_loss" in e] for t in (first, again)]
    assert evaluated[0] == evaluated[1] == [0, 2, 4], "the base is measured once"


def test_changed_recipe_begins_anew(lora_run, losses):
    first = lora_run(mark="one")
    again = lora_run(mark="two")
    assert losses(again) == pytest.approx(losses(first), abs=1e-6)
    assert again.state.global_step == 6
    assert again.tokens == first.tokens
