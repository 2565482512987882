from __future__ import annotations

import importlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model

from medtune.errors import ModelError, PrerequisiteError
from medtune.models import loading
from medtune.recipe import ModelSection, Recipe
from medtune.run_dir import RunDir


def section(folder: Path, **fields: Any) -> ModelSection:
    return ModelSection(base=str(folder), dtype="float32", device="cpu", **fields)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def only_pickle(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = RunDir(tmp_path)
    assert loading.locate(ModelSection(base="scratch"), run_dir) == str(run_dir.base)
    assert loading.locate(ModelSection(base="gpt2"), run_dir) == "gpt2"
    assert loading.locate(ModelSection(base="starter"), run_dir) == str(loading.STARTER)
    monkeypatch.setattr(loading, "STARTER", tmp_path / "nowhere")
    with pytest.raises(ModelError, match="missing from this installation"):
        loading.locate(ModelSection(base="starter"), run_dir)


def test_a_repository_with_only_a_plain_pickle_is_read(folder: Path, tiny_model: Callable[[str], Any]) -> None:
    expected = tiny_model("llama").state_dict()
    only_pickle(folder, expected)
    model = loading.load_model(section(folder), str(folder))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())
    assert not model.training


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(
    folder: Path, legacy: bool, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    only_pickle(folder, {"model.embed_tokens.weight": _Malicious()})
    if legacy:
        (folder / "pytorch_model.bin").write_bytes(
            pickle.dumps({"model.embed_tokens.weight": _Malicious()}, protocol=2)
        )
    with pytest.raises(ModelError, match="a pickle that holds more than tensors"):
        loading.load_model(section(folder), str(folder))
    assert not (tmp_path / "pwned").exists()


def test_a_repositorys_own_python_is_never_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="configuration cannot be loaded"):
        loading.load_model(section(folder), str(folder))


def test_damaged_and_missing_weights_are_explained(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"weights cannot be loaded.*must hold config\.json"):
        loading.load_model(section(folder), str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        loading.load_model(section(folder), str(folder))


def test_unknown_base_says_what_was_expected(monkeypatch: Any) -> None:
    monkeypatch.setattr(loading, "no_hub", lambda: True)
    with pytest.raises(ModelError, match=r"no/such-model: .*Expected `scratch`.*Correct model\.base"):
        loading.load_tokenizer("no/such-model")


def test_tokenizer_without_pad_pads_with_eos(tmp_path: Path, tiny_tokenizer: Any) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del stored["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stored))
    tokenizer = loading.load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token == tokenizer.eos_token


def test_dtype_and_attention_of_the_section_are_kept(folder: Path) -> None:
    asked = ModelSection(base=str(folder), dtype="bfloat16", attention="sdpa", device="cpu")
    model = loading.load_model(asked, str(folder))
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "sdpa"
    assert loading.load_model(asked, str(folder), dtype=torch.float32).dtype == torch.float32


def test_gemma2_is_not_given_a_kernel_that_cannot_cap(tmp_path: Path, tiny_model: Callable[[str], Any]) -> None:
    tiny_model("gemma2").save_pretrained(tmp_path)
    model = loading.load_model(section(tmp_path, attention="sdpa"), str(tmp_path))
    assert model.config._attn_implementation == "eager"


@pytest.mark.filterwarnings("ignore")
def test_nf4_answers_and_keeps_its_gradient_after_an_evaluation(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = loading.load_model(section(folder, quantization="nf4"), str(folder))
    assert "4bit" in type(model.model.layers[0].mlp.up_proj).__name__
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=["q_proj"], init_lora_weights=False)
    tuned = get_peft_model(model, config)
    ids = torch.tensor([[5, 6, 7, 8]])

    def first_gradient() -> torch.Tensor:
        tuned.train().zero_grad()
        tuned(input_ids=ids, labels=ids).loss.backward()
        gradient = tuned.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight.grad
        assert gradient is not None
        return gradient.clone()

    before = first_gradient()
    with torch.no_grad():
        tuned.eval()(input_ids=ids)
    assert before.abs().sum() > 0
    torch.testing.assert_close(first_gradient(), before)


def test_nf4_without_bitsandbytes_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'medtune\[nf4\]'"):
        loading.nf4()


def test_tuned_adapter_and_tuned_model(folder: Path, tmp_path: Path) -> None:
    base = loading.load_model(section(folder), str(folder))
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(base, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = tuned(input_ids=ids).logits
    loaded = loading.load_tuned(section(folder), str(folder), tmp_path / "adapter")
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected)
    whole = loading.load_tuned(section(tmp_path), "not used", folder)
    assert whole.config.model_type == "llama"
    with pytest.raises(ModelError, match="no tuned model"):
        loading.load_tuned(section(folder), str(folder), tmp_path / "nothing")


@pytest.mark.parametrize(
    ("family", "tune", "room"),
    [
        ("gpt2", {}, 256),
        ("bart", {}, 256),
        ("gpt2", {"method": "prompt", "prompt": {"tokens": 20}}, 236),
        ("t5", {}, None),
    ],
)
def test_rows_longer_than_the_models_positions_are_refused(
    family: str, tune: dict[str, Any], room: int | None, tiny_model: Callable[[str], Any]
) -> None:
    def recipe(length: int) -> Recipe:
        data = {"sources": [{"layout": "text", "path": "x"}], "max_length": length}
        return Recipe.model_validate({"name": "x", "model": {"base": "b"}, "data": data, "tune": tune})

    config = tiny_model(family).config
    loading.require_room(recipe(room or 100_000), config)
    if room:
        with pytest.raises(ModelError, match=f"data.max_length: {room}\\."):
            loading.require_room(recipe(room + 1), config)


def test_lack_of_memory_is_not_taken_for_a_wrong_base(folder: Path, monkeypatch: Any) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", too_large)
    with pytest.raises(PrerequisiteError, match=r"memory.*nf4"):
        loading.load_model(section(folder), str(folder))


def test_a_run_stays_at_the_commit_that_it_loaded_first(tmp_path):
    run_dir = RunDir(tmp_path)
    section = ModelSection(base="org/model")
    assert loading.pinned(section, run_dir).revision is None
    run_dir.update_manifest(base={"id": "org/model", "commit": "abc123"})
    assert loading.pinned(section, run_dir).revision == "abc123"
    assert loading.pinned(ModelSection(base="org/model", revision="v1"), run_dir).revision == "v1"
    assert loading.pinned(ModelSection(base="org/other"), run_dir).revision is None


def test_no_compiled_code_is_fetched_from_the_hub():
    with pytest.raises(ImportError):
        importlib.import_module("kernels")
