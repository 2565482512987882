"""The whole stage on tiny real models: data stage, a base from scratch, real PEFT adapters."""

import csv
import html
import json
import random
import re
import shutil

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from medtune.data import stage as data_stage
from medtune.errors import ModelError, RunDirError
from medtune.evaluation import audit, candidates, runner, stage
from medtune.models import chat_template, loading, scratch
from medtune.models.completer import TransformersCompleter
from medtune.recipe_file import validate, with_options
from medtune.run_dir import RunDir

# PEFT 0.21 asks transformers 5.23 by a name that the latter has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOPICS = [
    "asthma",
    "gout",
    "scurvy",
    "rickets",
    "measles",
    "mumps",
    "rabies",
    "anthrax",
    "cholera",
    "tetanus",
    "polio",
    "lupus",
]
ADAPTERS = {
    "lora": lambda: LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    ),
    "prompt": lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}


def recipe_for(folder, method="lora", **evaluate):
    return validate(
        {
            "name": "tiny",
            "model": {
                "base": "scratch", "device": "cpu", "dtype": "float32", "attention": "sdpa",
                "scratch": {"layers": 1, "width": 16, "heads": 2, "vocabulary": 320},
            },
            "data": {
                "sources": [{"layout": "question_answer", "path": str(folder / "rows.csv"), "licence": "CC0"}],
                "split": {"validation": 0.2, "test": 0.3},
                "max_length": 64,
            },
            "tune": {"method": method},
            "evaluate": {
                "max_new_tokens": 6, "latency_questions": 1, "resamples": 100, "questions": 10, "encoder": "none",
                **evaluate,
            },
        },
        "test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run's folder with data and a base, before tuning."""
    folder = tmp_path_factory.mktemp("run")
    generator = random.Random(0)
    with open(folder / "rows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "topic"])
        for topic in TOPICS * 4:
            words = " ".join(generator.choices(TOPICS, k=9))
            writer.writerow([f"What about {words} ?", f"Of {topic} one knows {generator.random()} {words}.", topic])
    run_dir = RunDir(folder / "run")
    data_stage.run(recipe_for(folder), run_dir)
    texts = [m.content for c in data_stage.load_split(run_dir, "train") for m in c.messages]
    scratch.build(recipe_for(folder).model.scratch, texts, run_dir.base, 0)
    model = loading.load_model(recipe_for(folder).model, str(run_dir.base))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)  # as small as they begin, attention would change nothing, and no adapter could be seen
    model.save_pretrained(run_dir.base)
    return folder


def tuned(prepared, tmp_path, method="lora"):
    """A copy of the prepared run with an adapter of random weights, as the tuning stage would leave it."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    recipe, run_dir = recipe_for(tmp_path, method), RunDir(tmp_path / "run")
    base = loading.load_model(recipe.model, str(run_dir.base))
    tokenizer = loading.load_tokenizer(str(run_dir.base))
    template = chat_template.choose(recipe.model, tokenizer, "causal", base.config)
    run_dir.update_manifest(chat_template=chat_template.to_json(template))
    torch.manual_seed(0)
    model = get_peft_model(base, ADAPTERS[method]())
    for name, weight in model.named_parameters():
        if "lora_" in name or "prompt" in name:
            torch.nn.init.normal_(weight, std=1.0)
    model.save_pretrained(run_dir.adapter)
    (run_dir.path / "tuning.json").write_text(
        json.dumps(
            {
                "method": method,
                "seconds": 1.5,
                "parameters_total": 9,
                "parameters_trainable": 3,
                "history": [],
                "samples": [],
            }
        )
    )
    return recipe, run_dir


def result(run_dir):
    return json.loads((run_dir.evaluation / "summary.json").read_text())


def test_four_systems_from_data_to_report(prepared, tmp_path, capsys):
    recipe, run_dir = tuned(prepared, tmp_path)
    rows = [{"question": f"{i}?", "options": {"A": "x", "B": "y"}, "answer_idx": "AB"[i % 2]} for i in range(6)]
    (tmp_path / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = {"layout": "medqa", "path": str(tmp_path / "medqa.jsonl")}
    recipe = with_options(recipe, {"evaluate.choices": [test]}, "test")
    stage.run(recipe, run_dir)
    found = result(run_dir)
    assert found["choices"]["medqa"]["questions"] == 6
    assert set(found["choices"]["medqa"]["systems"]) == {"base", "tuned"}
    assert "Multiple choice" in (run_dir.path / "report.html").read_text()
    assert list(found["systems"]) == ["random", "nearest", "base", "tuned"]
    printed = capsys.readouterr().out
    assert all(re.search(rf"  {name}: 10 questions, .*, ROUGE-L 0\.\d+, \d+ s", printed) for name in found["systems"])
    assert found["neighbours"]["near"]["questions"] + found["neighbours"]["far"]["questions"] == 10
    for name, system in found["systems"].items():
        assert system["counts"]["asked"] == found["test"]["questions"] == 10, name
        assert sum(system["counts"][status] for status in ("scored", "unanswered", "unparsed", "failed")) == 10
        assert system["cost"]["latency_mean_seconds"] > 0
        assert system["cost"]["disk_bytes"] > 0
    assert found["systems"]["base"]["metrics"]["perplexity"]["value"] > 100, "a random model over 320 pieces"
    costs = {name: system["cost"] for name, system in found["systems"].items()}
    assert costs["tuned"]["disk_bytes"] > costs["base"]["disk_bytes"], "the adapter is shipped with its base"
    assert (costs["tuned"]["parameters_trainable"], costs["base"]["parameters_trainable"]) == (3, None)
    assert costs["base"]["parameters_total"] == loading.load_model(recipe.model, str(run_dir.base)).num_parameters()
    assert found["paired"]["bits_per_byte"]["questions"] == 10
    assert found["verdict"]["direction"] in ("helped", "none", "worse")
    assert found["verdict"]["sentence"].split(":")[0] in (run_dir.path / "report.html").read_text()
    assert "from scratch" in found["warnings"][0]
    assert found["data"]["sources"][0]["licences"] == {"CC0": 48}
    lines = (run_dir.evaluation / "records.jsonl").read_text().splitlines()
    assert len(lines) == 40


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_the_base_that_shares_the_model_answers_as_the_base_alone(prepared, tmp_path, method, monkeypatch):
    recipe, run_dir = tuned(prepared, tmp_path, method)
    loaded = []
    for name in ("load_model", "load_tuned"):
        load = getattr(loading, name)
        monkeypatch.setattr(loading, name, lambda *a, load=load, **k: loaded.append(load) or load(*a, **k))
    validation, questions = (data_stage.load_split(run_dir, name) for name in ("validation", "test"))
    together = {}
    for candidate in candidates.candidates(recipe, run_dir, validation):
        answers = [c.text for _, c in sorted(candidate.system.answers(questions, 4), key=lambda pair: pair[0])]
        nlls = [n.nll for _, n in sorted(candidate.system.likelihoods(questions, 4), key=lambda pair: pair[0])]
        together[candidate.system.name] = answers, nlls
    assert len([load for load in loaded if load.__name__ == "load_tuned"]) == 1
    alone = recipe_for(tmp_path, method, systems=["base"])
    (candidate,) = candidates.candidates(alone, run_dir, validation)
    answers = [c.text for _, c in sorted(candidate.system.answers(questions, 4), key=lambda pair: pair[0])]
    nlls = [n.nll for _, n in sorted(candidate.system.likelihoods(questions, 4), key=lambda pair: pair[0])]
    assert together["base"][0] == answers
    assert together["base"][1] == pytest.approx(nlls, rel=1e-5)
    assert together["tuned"][1] != pytest.approx(nlls, rel=1e-2), "the adapter does something"


def test_a_cut_off_evaluation_goes_on_where_it_stopped(prepared, tmp_path, monkeypatch):
    recipe, run_dir = tuned(prepared, tmp_path)
    stage.run(recipe, run_dir)
    whole, path = result(run_dir), run_dir.evaluation / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:33]) + lines[33][:50])
    asked = []
    grade = runner.grade
    monkeypatch.setattr(runner, "grade", lambda name, *rest: asked.append(name) or grade(name, *rest))
    stage.run(recipe, run_dir)
    assert asked == ["tuned"] * 7
    again = result(run_dir)
    for part in ("verdict", "paired", "floors", "warnings", "prompt_format"):
        assert again[part] == whole[part]


def test_another_adapter_is_asked_again_and_the_base_is_not(prepared, tmp_path, monkeypatch):
    recipe, run_dir = tuned(prepared, tmp_path)
    stage.run(recipe, run_dir)
    before = stage.fingerprint(recipe, run_dir)
    path = run_dir.adapter / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert stage.fingerprint(recipe, run_dir) != before
    asked = []
    grade = runner.grade
    monkeypatch.setattr(runner, "grade", lambda name, *rest: asked.append(name) or grade(name, *rest))
    stage.run(recipe, run_dir)
    assert asked == ["tuned"] * 10


def test_a_tuned_model_is_not_asked_in_another_format(prepared, tmp_path):
    recipe, run_dir = tuned(prepared, tmp_path)
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": "plain"})})
    with pytest.raises(ModelError, match="chat template is plain with hash"):
        stage.run(other, run_dir)
    run_dir.update_manifest(chat_template=None)
    with pytest.raises(RunDirError, match="nothing was tuned here"):
        stage.run(recipe, run_dir)


def test_the_base_is_asked_in_its_own_best_format(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    recipe, run_dir = recipe_for(tmp_path, systems=["base"]), RunDir(tmp_path / "run")
    stage.run(recipe, run_dir)
    chosen = result(run_dir)["prompt_format"]["base"]
    figures = {c["format"]: c["bits_per_byte"] for c in chosen["candidates"]}
    assert set(figures) == {"run", "plain"}, "the model's own format is the run's"
    assert chosen["chosen"] == min(figures, key=figures.get)
    model, tokenizer = loading.load_model(recipe.model, str(run_dir.base)), loading.load_tokenizer(str(run_dir.base))
    validation = data_stage.load_split(run_dir, "validation")
    template = chat_template.choose(recipe.model, tokenizer, "causal", model.config)
    nlls = [n for _, n in TransformersCompleter(model, tokenizer, template, 64).likelihood(validation, batch_size=1)]
    bits = sum(n.nll for n in nlls) / sum(n.bytes for n in nlls) / torch.log(torch.tensor(2.0)).item()
    assert figures["run"] == pytest.approx(bits, rel=1e-4)


def test_the_base_with_examples_is_a_system_of_its_own(prepared, tmp_path):
    recipe, run_dir = tuned(prepared, tmp_path)
    recipe = with_options(
        recipe, {"evaluate.systems": ["base", "few_shot", "tuned"], "evaluate.shots": 2, "data.max_length": 96}, "test"
    )
    seen = {}
    for candidate in candidates.candidates(recipe, run_dir, data_stage.load_split(run_dir, "validation")):
        questions = data_stage.load_split(run_dir, "test")[:4]
        answers = dict(candidate.system.answers(questions, 4))
        seen[candidate.system.name] = sum(answer.prompt_tokens for answer in answers.values())
        assert len(dict(candidate.system.likelihoods(questions, 4))) == 4
    assert list(seen) == ["base", "few_shot", "tuned"]
    assert seen["few_shot"] > 2 * seen["base"], "two answered questions stand before each"
    assert seen["tuned"] < seen["few_shot"]


def test_floors_alone_need_no_model(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    run_dir = RunDir(tmp_path / "run")
    shutil.rmtree(run_dir.base)
    stage.run(recipe_for(tmp_path, systems=["nearest", "random"]), run_dir)
    found = result(run_dir)
    assert list(found["systems"]) == ["nearest", "random"]
    assert found["verdict"]["direction"] is None
    assert found["systems"]["nearest"]["metrics"]["perplexity"] is None


def test_unseen_phrasings_of_seen_topics_are_a_test_of_their_own(tmp_path):
    entries = [
        {"topic": t, "questions": [f"{way} {t} ?" for way in "abcd"], "in_short": f"{t} is {i} things, one knows."}
        for i, t in enumerate(TOPICS)
    ]
    (tmp_path / "library.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    recipe = recipe_for(tmp_path, systems=["nearest", "random"], questions=None)
    tree = recipe.model_dump(mode="json")
    tree["data"]["sources"] = [{"layout": "library", "path": str(tmp_path / "library.jsonl")}]
    tree["data"]["split"] |= {"phrasings": 0.25}
    recipe, run_dir = validate(tree, "test"), RunDir(tmp_path / "run")
    data_stage.run(recipe, run_dir)
    mark = stage.fingerprint(recipe, run_dir)
    stage.run(recipe, run_dir)
    found = result(run_dir)
    unseen, seen = (
        {c.id for c in data_stage.load_split(run_dir, name) if c.question} for name in ("test", "test_seen")
    )
    assert found["test"]["questions"] == len(unseen)
    assert found["seen"]["test"]["questions"] == len(seen) > 0
    assert found["systems"]["nearest"]["counts"]["asked"] == len(unseen)
    assert found["seen"]["systems"]["nearest"]["counts"]["asked"] == len(seen)
    for name, ids in (("records", unseen), ("records_seen", seen)):
        lines = (run_dir.evaluation / f"{name}.jsonl").read_text().splitlines()
        assert {json.loads(line)["id"] for line in lines} == ids
        assert len(lines) == 2 * len(ids)
    rouge = [side["systems"]["nearest"]["metrics"]["rouge_l"]["value"] for side in (found, found["seen"])]
    assert rouge[1] == pytest.approx(1), "another way to ask finds the topic's own answer"
    assert rouge[0] < 1
    assert found["seen"]["sentence"].startswith("Seen and unseen topics were not compared")
    report = (run_dir.path / "report.html").read_text()
    assert found["seen"]["sentence"] in report
    assert report.count("<small>seen topics</small>") == 3
    run_dir.split("test_seen").write_text("")
    assert stage.fingerprint(recipe, run_dir) != mark


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_the_audit_shows_both_ways_of_counting(prepared, tmp_path, method):
    recipe, run_dir = tuned(prepared, tmp_path, method)
    with pytest.raises(RunDirError, match="no answers of the tuned model"):
        audit.run(recipe, run_dir)
    stage.run(recipe, run_dir)
    rows = {row.title: row for row in audit.run(recipe, run_dir)}
    summary = result(run_dir)["systems"]["tuned"]["metrics"]
    for title in ("ROUGE-L of answers", "ROUGE-L at 128 tokens", "ROUGE-L, teacher-forced"):
        assert rows[title].honest == pytest.approx(summary["rouge_l"]["value"])
    assert rows["Perplexity"].honest == pytest.approx(summary["perplexity"]["value"])
    assert rows["BLEU, teacher-forced"].honest == pytest.approx(summary["bleu"]["value"])
    empty = rows["ROUGE-L of no answer at all"]
    assert empty.honest == 0 < empty.notebook
    assert rows["ROUGE-L of answers"].notebook > rows["ROUGE-L of answers"].honest
    assert rows["Token accuracy"].honest is None
    assert json.loads((run_dir.path / "audit.json").read_text())["questions"] == 10
    page = html.unescape((run_dir.path / "audit.html").read_text())
    assert all(row.title in page and row.why in page for row in rows.values())


def test_the_audits_loss_is_the_notebooks_own(prepared, tmp_path):
    """What `model(input_ids, attention_mask, labels=input_ids).loss` says, recomputed by transformers itself."""
    recipe, run_dir = tuned(prepared, tmp_path)
    completer = candidates.tuned_completer(recipe, run_dir)
    questions = data_stage.load_split(run_dir, "test")[:4]
    forced = list(audit._forced(completer, questions))
    rows = list(chat_template.samples(completer.template, completer.tokenizer, questions, 64, turns="last"))
    ids, mask = audit._padded(completer, [row.input_ids for row in rows])
    with torch.no_grad():
        loss = completer.model(input_ids=ids, attention_mask=mask, labels=ids).loss
    assert sum(f.nll for f in forced) / sum(f.positions for f in forced) == pytest.approx(float(loss), rel=1e-4)
