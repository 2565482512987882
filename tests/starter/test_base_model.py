"""The embedded model: small enough for git, loadable by anyone, asked in its own format, and able to stop."""

import hashlib
import json
import re

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from medtune.models import chat_template, loading
from medtune.models.completer import TransformersCompleter
from medtune.recipe import ModelSection
from medtune.types import Message

LIMIT_BYTES = 32_000_000
QUESTIONS = (
    "What is asthma?",
    "What causes high blood pressure?",
    "How is the flu treated?",
    "What are the symptoms of diabetes?",
    "Who is at risk for a stroke?",
    "How can I prevent heart disease?",
)


@pytest.fixture(scope="module")
def section():
    return ModelSection(base="starter", dtype="float32", device="cpu", attention="sdpa")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(loading.STARTER)


@pytest.fixture(scope="module")
def model(section):
    return loading.load_model(section, loading.published(section))


def test_it_is_small_and_bfloat16():
    assert sum(file.stat().st_size for file in loading.STARTER.iterdir()) <= LIMIT_BYTES
    with safe_open(loading.STARTER / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_card_names_these_weights_and_what_they_are_not():
    card = (loading.STARTER / "README.md").read_text()
    digest = hashlib.sha256((loading.STARTER / "model.safetensors").read_bytes()).hexdigest()
    assert digest in card
    assert re.search(r"not a source of medical facts", card)
    assert all(name in card for name in ("MedQuAD", "OpenStax", "CC BY 4.0", "PubMed Central", "MeQSum"))


def test_plain_transformers_load_and_run_it(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(loading.STARTER)
    assert model.dtype == torch.bfloat16
    assert 9e6 < sum(p.numel() for p in model.parameters()) < 20e6
    assert model.config.use_cache
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is asthma?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = model.generate(**asked, max_new_tokens=8, do_sample=False)
    assert answer.shape[1] <= asked["input_ids"].shape[1] + 8


def test_end_and_padding_are_two_tokens(model, tokenizer):
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(set(ids)) == 3
    generation = json.loads((loading.STARTER / "generation_config.json").read_text())
    assert [generation[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")] == list(ids)
    assert len(tokenizer) == model.config.vocab_size
    for text in ("naïve 37.5 °C\n\n- β-blockers", "𝒳"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text, "any text survives the tokenizer"


def test_answers_end_by_themselves_and_are_words(section, model, tokenizer):
    template = chat_template.choose(section, tokenizer, "causal")
    assert template.name == "own"
    completer = TransformersCompleter(model, tokenizer, template, 512)
    prompts = [(Message("user", question),) for question in QUESTIONS]
    answers = dict(completer.complete(prompts, max_new_tokens=400, batch_size=6)).values()
    assert sum(answer.finish_reason == "stop" for answer in answers) >= 5
    assert all(len(re.findall(r"\b[a-z]{2,}\b", answer.text)) >= 8 for answer in answers)
