from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtune.errors import ModelError
from medtune.models import chat_template, estimate, loading, shapes
from medtune.models.completer import TransformersCompleter
from medtune.recipe import ModelSection, Recipe
from medtune.types import Message

TEXTS = ["What is asthma? A disease of the lungs."] * 10


@pytest.fixture(autouse=True)
def _offline(monkeypatch: Any) -> None:
    monkeypatch.setattr(loading, "no_hub", lambda: True)


def recipe(base: str) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "model": {"base": base, "device": "cpu"},
            "data": {"sources": [{"layout": "flashcards", "path": "x"}]},
        }
    )


@pytest.mark.parametrize("base", shapes.SHAPES)
def test_table_has_the_published_number_of_parameters(base: str) -> None:
    changed = Recipe.model_validate({**recipe(base).model_dump(), "tune": {"method": "full"}})
    counts = estimate.parameters(changed, shapes.config_of(changed.model))
    assert counts.base == shapes.SHAPES[base]["parameters"]


@pytest.mark.parametrize("base", shapes.SHAPES)
def test_shrunken_base_loads_and_answers(base: str, tmp_path: Path) -> None:
    section = shapes.rehearsal_base(recipe(base), tmp_path, TEXTS)
    model, tokenizer = loading.load_model(section, section.base), loading.load_tokenizer(section.base)
    config = model.config
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert config.model_type == shapes.SHAPES[base]["config"]["model_type"]
    template = chat_template.choose(section, tokenizer, loading.family(config), config)
    assert template.name == section.chat_template
    completer = TransformersCompleter(model, tokenizer, template, 128)
    ((_, completion),) = completer.complete([(Message("user", "Why?"),)], max_new_tokens=3, batch_size=1)
    assert completion.prompt_tokens > 0


def test_architecture_is_kept() -> None:
    def small(base: str) -> Any:
        return shapes.shrink(shapes.config_of(ModelSection(base=base)), 500)

    tinyllama, smol, gemma = (
        small(base)
        for base in ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "HuggingFaceTB/SmolLM2-135M", "google/gemma-3-270m")
    )
    assert tinyllama.num_attention_heads / tinyllama.num_key_value_heads == 8
    assert smol.num_attention_heads / smol.num_key_value_heads == 3
    assert (smol.tie_word_embeddings, tinyllama.tie_word_embeddings) == (True, False)
    assert gemma.layer_types == ["sliding_attention", "full_attention"]
    assert small("google/flan-t5-base").feed_forward_proj == "gated-gelu"
    assert small("google/flan-t5-base").scale_decoder_outputs is False
    assert small("mistralai/Mistral-7B-Instruct-v0.3").sliding_window is None


def test_dialogpt_keeps_its_format_although_the_folder_does_not_name_it(tmp_path: Path) -> None:
    section = shapes.rehearsal_base(recipe("microsoft/DialoGPT-large"), tmp_path, TEXTS)
    assert section.chat_template == "dialogpt"


def test_real_tokenizer_is_used_with_the_tables_chat_format(tmp_path: Path, shared_tokenizers: Path) -> None:
    base = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    section = shapes.rehearsal_base(recipe(base), tmp_path, TEXTS, shared_tokenizers / "llama2")
    assert len(loading.load_tokenizer(section.base)) == 32000
    assert section.chat_template == "own"


def test_scratch_stays_scratch(tmp_path: Path) -> None:
    section = shapes.rehearsal_base(recipe("scratch"), tmp_path / "base", TEXTS)
    assert (section.base, section.scratch.layers) == ("scratch", 2)
    assert not (tmp_path / "base").exists()
    assert shapes.config_of(section).num_hidden_layers == 2


def test_unknown_base_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"Shapes that need no Hub: .*microsoft/DialoGPT-large"):
        shapes.config_of(ModelSection(base="no/such-model"))
