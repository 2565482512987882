"""Every published recipe, rehearsed from data to report on the real file in its layout, with its real tokenizer."""

import json
from pathlib import Path

import pytest

from medtune import recipe_file, rehearse
from medtune.errors import RecipeError, TuningError
from medtune.run_dir import RunDir, read_json

ROOT = Path(__file__).parents[1]
PUBLISHED = {  # recipe: real file in its layout, real tokenizer of its base
    "dialogpt-large-lora-medquad": ("medquad.csv.gz", "gpt2"),
    "dialogpt-large-prompt-medquad": ("medquad.csv.gz", "gpt2"),
    "tinyllama-lora-flashcards": ("flashcards_openstax.json.gz", "llama2"),
    "tinyllama-lora-flashcards-small": ("flashcards_openstax.json.gz", "llama2"),
    "flan-t5-base-full": ("labelled_answers.csv.gz", "t5-small"),
    "flan-t5-base-qlora": ("labelled_answers.csv.gz", "t5-small"),
    "llama3-8b-qlora-dialogues": ("patient_doctor_mts.csv.gz", None),
}
STARTERS = {"starter", "starter-prompt", "starter-base", "starter-answers"}  # what they need is here: they just run


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def load(name, *overrides):
    return recipe_file.load(ROOT / "recipes" / f"{name}.yaml", overrides)


def test_every_published_recipe_is_rehearsed():
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} == {*PUBLISHED, *STARTERS}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_rehearsal(name, shared_data, shared_tokenizers, tmp_path, capsys):
    file, tokenizer = PUBLISHED[name]
    recipe, run_dir = load(name), RunDir(tmp_path / "run")
    folder = shared_tokenizers / tokenizer if tokenizer else None
    rehearse.run(recipe, run_dir, tokenizer=folder, data=shared_data / file)
    printed = capsys.readouterr().out
    assert "  no   " not in printed
    assert printed.count("  ok   ") == 10
    assert (run_dir.path / "report.html").exists()
    tuning, manifest = read_json(run_dir.path / "tuning.json"), run_dir.manifest()
    assert tuning["method"] == recipe.tune.method
    assert tuning["steps"] == 6
    assert 0 < tuning["parameters_trainable"] <= tuning["parameters_total"]
    assert manifest["chat_template"]["name"] in ("own", "dialogpt", "instruction")
    systems = read_json(run_dir.evaluation / "summary.json")["systems"]
    assert {name: system["counts"]["asked"] for name, system in systems.items()} == dict.fromkeys(systems, 12)


def test_what_chooses_a_code_path_stays():
    recipe = load("llama3-8b-qlora-dialogues")
    small = rehearse.shrunken(recipe, None, has_real_tokenizer=True)
    assert small.model.quantization == "nf4"
    assert small.tune.lora == recipe.tune.lora
    assert small.tune.accumulation == recipe.tune.accumulation
    assert small.tune.activation_checkpointing
    assert small.data.max_length == recipe.data.max_length
    assert small.data.max_truncated == recipe.data.max_truncated
    assert small.data.sources[0].limit == 240


def test_stand_in_for_several_sources_is_refused(tmp_path):
    both = json.dumps([{"layout": "text", "path": "a"}, {"layout": "text", "path": "b"}])
    with pytest.raises(RecipeError, match=r"this one has 2.*data.sources.0.path"):
        rehearse.shrunken(load("starter", f"data.sources={both}"), tmp_path, has_real_tokenizer=False)


@pytest.mark.slow
def test_wrong_target_shows_in_the_rehearsal(shared_data, shared_tokenizers, tmp_path):
    recipe = load("tinyllama-lora-flashcards", "tune.lora.targets=[q_proj, c_attn]")
    with pytest.raises(TuningError, match=r"c_attn match no linear module.*Its linear modules are down_proj"):
        rehearse.run(
            recipe,
            RunDir(tmp_path / "run"),
            tokenizer=shared_tokenizers / "llama2",
            data=shared_data / "flashcards_openstax.json.gz",
        )
