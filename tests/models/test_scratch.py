from __future__ import annotations

from pathlib import Path

import torch

from medtune.models import chat_template, loading, scratch
from medtune.recipe import ModelSection, ScratchModel

TEXTS = ["What is asthma? Asthma is a disease of the lungs.", "Take 20 mg twice a day, naïve café."] * 30
SMALL = ScratchModel(layers=2, width=64, heads=4, vocabulary=400)


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        scratch.build(SMALL, TEXTS, tmp_path / name, seed)
    assert torch.equal(state, torch.random.get_rng_state())
    for file in ("model.safetensors", "tokenizer.json"):
        a, b = ((tmp_path / name / file).read_bytes() for name in "ab")
        assert a == b
    assert (tmp_path / "a" / "model.safetensors").read_bytes() != (tmp_path / "c" / "model.safetensors").read_bytes()


def test_it_loads_like_any_base_with_its_own_format(tmp_path: Path) -> None:
    scratch.build(SMALL, TEXTS, tmp_path, 0)
    section = ModelSection(base="scratch", device="cpu")
    tokenizer = loading.load_tokenizer(str(tmp_path))
    model = loading.load_model(section, str(tmp_path))
    template = chat_template.choose(section, tokenizer, "causal")
    assert (template.name, template.end_of_turn) == ("own", "<|end|>")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer) <= SMALL.vocabulary
    assert model.config.eos_token_id == tokenizer.eos_token_id
    text = "Take 20 mg twice a day, naïve café. 日本"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
