"""Exports of real little runs: merged weights that plain transformers loads, and the folder and upload for the Hub."""

import json
import random
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from medtune import pipeline as stages
from medtune.errors import ModelError, PrerequisiteError, RecipeError, RunDirError
from medtune.export import hub, merge
from medtune.models import chat_template
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json
from medtune.types import Message

pytestmark = pytest.mark.slow
WORDS = ("asthma", "cough", "lung", "spray", "rest", "water", "heart", "doctor", "tablet", "fever", "salt", "bone")
ASKED = [{"role": "user", "content": "What helps against cough?"}]


def recipe_for(folder, **tune):
    return Recipe.model_validate({
        "name": "tiny",
        "model": {"base": "scratch", "device": "cpu", "scratch": {"layers": 2, "width": 32, "heads": 2,
                                                                  "vocabulary": 400}},
        "data": {"sources": [{"layout": "chat", "path": str(folder / "chat.jsonl"), "licence": "CC0"}],
                 "split": {"validation": 0.1, "test": 0.2}, "max_length": 96},
        "tune": {"method": "lora", "lora": {"rank": 4}, "epochs": 2, "batch_size": 4, "learning_rate": 5e-2,
                 "evaluations": 1, "sample_answers": 0, **tune},
        "evaluate": {"systems": ["random", "base", "tuned"], "max_new_tokens": 12, "latency_questions": 1,
                     "resamples": 100},
        "assistant": {"knowledge": {"sources": [], "encoder": "none"}},
    })  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The recipe and folder of a finished LoRA run."""
    folder, draw = tmp_path_factory.mktemp("export"), random.Random(0)
    with open(folder / "chat.jsonl", "w") as file:
        for i in range(60):
            question, answer = (" ".join(draw.choices(WORDS, k=k)) for k in (6, draw.randint(6, 20)))
            turns = [{"role": "user", "content": f"{question} {i}?"}, {"role": "assistant", "content": f"{answer}."}]
            file.write(json.dumps({"messages": turns}) + "\n")
    recipe = recipe_for(folder)
    run_dir = RunDir(folder / "run")
    stages.run(recipe, run_dir)
    return recipe, run_dir


def test_merged_model_is_the_tuned_one_for_plain_transformers(tuned, tmp_path):
    recipe, run_dir = tuned
    facts = merge.merge(recipe, run_dir, tmp_path / "merged")
    assert facts["largest_change_after_storing"] <= merge.MERGED
    folder = str(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template, own = merge.opened(recipe, run_dir)
    ids = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True)["input_ids"]
    assert ids == chat_template.prompt_ids(template, own, [Message(**ASKED[0])])
    base = AutoModelForCausalLM.from_pretrained(run_dir.base)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        before, after = (model(torch.tensor([ids])).logits for model in (base, plain))
    assert merge.difference([before], [after]) > 10 * merge.MERGED  # merging is not leaving the adapter out
    said = pipeline("text-generation", model=folder)(ASKED, max_new_tokens=5)
    assert said[0]["generated_text"][-1]["role"] == "assistant"


def test_a_merge_that_changes_answers_is_refused(tuned, tmp_path, monkeypatch):
    recipe, run_dir = tuned
    monkeypatch.setattr("peft.LoraModel.merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(ModelError, match="is not the tuned one"):
        merge.merge(recipe, run_dir, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said_before_anything_is_loaded(tuned, tmp_path):
    recipe, run_dir = tuned
    prompt = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"method": "prompt"})})
    with pytest.raises(RecipeError, match="cannot be merged"):
        merge.merge(prompt, run_dir, tmp_path / "merged")
    with pytest.raises(RunDirError, match="nothing was tuned"):
        merge.merge(recipe, RunDir(tmp_path / "none"), tmp_path / "merged")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunDirError, match="no export of medtune's"):
        merge.merge(recipe, run_dir, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_another_chat_template_is_refused(tuned, tmp_path):
    recipe, run_dir = tuned
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"system_prompt": "Be brief."})})
    with pytest.raises(ModelError, match="has not"):
        merge.merge(other, run_dir, tmp_path / "merged")


def test_hub_folder_holds_weights_and_a_card_with_the_runs_numbers(tuned, tmp_path):
    recipe, run_dir = tuned
    hub.prepare(recipe, run_dir, tmp_path / "hub", "merged")
    card = (tmp_path / "hub" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    summary = read_json(run_dir.evaluation / "summary.json")
    assert summary["verdict"]["sentence"] in body
    value = summary["systems"]["tuned"]["metrics"]["rouge_l"]
    assert f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" in body
    assert "Not for patients" in body
    assert "| chat.jsonl | CC0 |" in body
    assert "answers nearly repeated 0.0%" in body
    assert str(run_dir.path.parent) not in card
    assert (tmp_path / "hub" / "model.safetensors").exists()
    assert AutoTokenizer.from_pretrained(str(tmp_path / "hub")).chat_template


def test_an_adapter_is_published_for_a_base_that_others_have(tuned, tmp_path, monkeypatch):
    recipe, run_dir = tuned
    with pytest.raises(RecipeError, match="is not on the Hub"):
        hub.prepare(recipe, run_dir, tmp_path / "hub", "adapter")
    monkeypatch.setattr(hub, "is_published", lambda _: True)
    for _ in range(2):  # a second export replaces the first
        hub.prepare(recipe, run_dir, tmp_path / "hub", "adapter")
    assert read_json(tmp_path / "hub" / "adapter_config.json")["base_model_name_or_path"] == recipe.model.base
    assert (tmp_path / "hub" / "adapter_model.safetensors").exists()
    assert str(run_dir.path.parent) not in (tmp_path / "hub" / "README.md").read_text()


def test_logits_that_are_no_numbers_are_a_difference():
    good, bad = torch.ones(2, 3), torch.full((2, 3), float("nan"))
    assert not merge.difference([good, good], [good, bad]) <= merge.MERGED


def test_a_run_without_evaluation_says_so_in_its_card(tuned, tmp_path):
    recipe, run_dir = tuned
    copy = shutil.copytree(run_dir.path, tmp_path / "run")
    shutil.rmtree(copy / "evaluation")
    hub.prepare(recipe, RunDir(copy), tmp_path / "hub", "merged")
    assert "This run has not been evaluated" in (tmp_path / "hub" / "README.md").read_text()


class Refusing(BaseHTTPRequestHandler):
    """A Hub that knows nobody."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_hub_that_refuses_or_is_away_is_explained(tmp_path, monkeypatch):
    from huggingface_hub import HfApi

    (tmp_path / "README.md").write_text("x")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint=address, token="hf_x"))
        with pytest.raises(PrerequisiteError, match="the Hub refuses"):
            hub.push(tmp_path, "me/tiny")
        server.shutdown()
    with pytest.raises(PrerequisiteError, match="cannot be reached"):
        hub.push(tmp_path, "me/tiny")
