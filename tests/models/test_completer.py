from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from medtune.models import chat_template as ct
from medtune.models import decoding
from medtune.models.completer import TransformersCompleter
from medtune.models.loading import family
from medtune.models.scripted import ScriptedCompleter
from medtune.recipe import ModelSection
from medtune.types import Conversation, Message

ALL = ["gpt2", "llama", "qwen2", "qwen3", "mistral", "gpt_neox", "gemma", "gemma2", "gemma3_text", "t5", "bart"]
CONVERSATIONS = [
    Conversation(
        str(i),
        (
            Message("user", "What is asthma? " * (i % 4 + 1)),
            Message("assistant", "A disease of the lungs. " * (6 - i % 5)),
        ),
    )
    for i in range(7)
]
PROMPTS = [c.prompt for c in CONVERSATIONS]


def completer_for(model: Any, tokenizer: Any, max_length: int = 128) -> TransformersCompleter:
    template = ct.choose(ModelSection(base="x"), tokenizer, family(decoding.base_of(model).config))
    return TransformersCompleter(model, tokenizer, template, max_length)


def with_adapter(model: Any, method: str) -> Any:
    task = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    if method == "prompt":
        config: Any = PromptTuningConfig(task_type=task, num_virtual_tokens=5, num_transformer_submodules=1)
    else:
        config = LoraConfig(task_type=task, r=4, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(1)
    return get_peft_model(model, config).eval()


def generated(model: Any, ids: list[int], stop: list[int], new: int, **options: Any) -> list[int]:
    """What transformers' own generate writes for one prompt alone."""
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long), **options}
    out = model.generate(**inputs, max_new_tokens=new, do_sample=False, num_beams=1, eos_token_id=stop)[0].tolist()
    return out[1:] if model.config.is_encoder_decoder else out[len(ids) :]


@pytest.mark.parametrize("name", ALL)
def test_batched_answers_equal_generate_one_at_a_time(
    name: str, tiny_model: Callable[[str], Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model(name)
    completer = completer_for(model, tiny_tokenizer)
    found = dict(completer.complete(PROMPTS, max_new_tokens=12, batch_size=4))
    assert sorted(found) == list(range(len(PROMPTS)))
    for index, prompt in enumerate(PROMPTS):
        ids = ct.prompt_ids(completer.template, tiny_tokenizer, prompt, 128)
        expected = generated(model, ids, completer.stop, 12)
        text = tiny_tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
        completion = found[index]
        assert completion.text == text
        assert completion.completion_tokens == len(expected)
        assert completion.prompt_tokens == len(ids)
        assert completion.finish_reason == ("stop" if expected[-1] in completer.stop else "length")


@pytest.mark.parametrize(
    ("option", "value", "processor"),
    [
        ("repetition_penalty", 1.5, lambda length: RepetitionPenaltyLogitsProcessor(1.5, prompt_ignore_length=length)),
        ("no_repeat_ngram_size", 2, lambda length: WithoutPrompt(NoRepeatNGramLogitsProcessor(2), length)),
    ],
)
def test_repetition_options_of_the_generation_config_are_obeyed_within_the_answer(
    option: str, value: float, processor: Any, tiny_model: Callable[[str], Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model("llama")
    completer = completer_for(model, tiny_tokenizer)
    plain = dict(completer.complete(PROMPTS, max_new_tokens=24, batch_size=4))
    setattr(model.generation_config, option, value)
    found = dict(completer.complete(PROMPTS, max_new_tokens=24, batch_size=4))
    setattr(model.generation_config, option, None)
    assert [found[i].text for i in found] != [plain[i].text for i in found]
    for index, prompt in enumerate(PROMPTS):
        ids = ct.prompt_ids(completer.template, tiny_tokenizer, prompt, 128)
        expected = generated(model, ids, completer.stop, 24, logits_processor=[processor(len(ids))])
        text = tiny_tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
        assert found[index].text == text


class WithoutPrompt:
    """A processor that sees what comes after the prompt."""

    def __init__(self, processor: Any, length: int) -> None:
        self.processor, self.length = processor, length

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return self.processor(ids[:, self.length :], logits)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("name", ["llama", "t5"])
@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_adapters_answer_as_generate_does(
    name: str, method: str, tiny_model: Callable[[str], Any], tiny_tokenizer: Any
) -> None:
    model = with_adapter(tiny_model(name), method)
    completer = completer_for(model, tiny_tokenizer)
    found = dict(completer.complete(PROMPTS, max_new_tokens=8, batch_size=4))
    for index, prompt in enumerate(PROMPTS):
        ids = ct.prompt_ids(completer.template, tiny_tokenizer, prompt, 128)
        expected = generated(model, ids, completer.stop, 8)
        text = tiny_tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
        assert found[index].text == text


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("method", ["none", "lora", "prompt"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5", "bart"])
def test_likelihood_equals_the_models_own_loss(
    name: str, method: str, tiny_model: Callable[[str], Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model(name) if method == "none" else with_adapter(tiny_model(name), method)
    completer = completer_for(model, tiny_tokenizer)
    found = dict(completer.likelihood(CONVERSATIONS, batch_size=4))
    for index, conversation in enumerate(CONVERSATIONS):
        (sample,) = ct.samples(completer.template, tiny_tokenizer, [conversation], 128)
        ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
        with torch.no_grad():
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        terms = sample.supervised
        assert found[index].tokens == terms
        assert found[index].nll == pytest.approx(loss.item() * terms, rel=1e-4)


def test_likelihood_counts_only_the_bytes_it_covers(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    completer = completer_for(tiny_model("llama"), tiny_tokenizer, max_length=64)
    short = Conversation("short", (Message("user", "Why?"), Message("assistant", "Öl.")))
    long = Conversation("long", (Message("user", "Why?"), Message("assistant", "ü" * 300)))
    found = dict(completer.likelihood([short, long], batch_size=2))
    assert found[0].bytes == len("Öl.".encode())
    assert 0 < found[1].bytes < 64
    assert found[1].tokens < 64


def test_only_the_last_answer_of_a_conversation_counts(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    completer = completer_for(tiny_model("llama"), tiny_tokenizer)
    turns = (*CONVERSATIONS[0].messages, Message("user", "And?"), Message("assistant", "No."))
    ((_, likelihood),) = completer.likelihood([Conversation("x", turns)], batch_size=1)
    assert likelihood.bytes == len("No.")
    assert likelihood.tokens < 6


def test_batches_come_as_they_finish_longest_first(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    completer = completer_for(tiny_model("llama"), tiny_tokenizer)
    order = [index for index, _ in completer.complete(PROMPTS, max_new_tokens=2, batch_size=3)]
    lengths = [len(PROMPTS[index][0].content) for index in order]
    assert lengths == sorted(lengths, reverse=True)


def test_finished_rows_leave_the_batch(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    model = tiny_model("llama")
    rows = [ct.prompt_ids(completer_for(model, tiny_tokenizer).template, tiny_tokenizer, p) for p in PROMPTS]
    free = decoding.greedy(model, rows, max_new_tokens=12, stop=[])
    stop = free[0][2]
    sizes: list[int] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[0]))
    stopped = decoding.greedy(model, rows, max_new_tokens=12, stop=[stop])
    hook.remove()
    assert sizes[-1] < sizes[0]
    for whole, cut in zip(free, stopped, strict=True):
        assert cut == (whole[: whole.index(stop) + 1] if stop in whole else whole)


def test_a_batch_that_does_not_fit_is_halved(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    model = tiny_model("llama")
    completer = completer_for(model, tiny_tokenizer)
    expected = dict(completer.complete(PROMPTS, max_new_tokens=3, batch_size=8))
    sizes: list[int] = []

    def refuse(_module: Any, args: tuple[Any, ...]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("too many rows")

    hook = model.get_input_embeddings().register_forward_pre_hook(refuse)
    found = dict(completer.complete(PROMPTS, max_new_tokens=3, batch_size=8))
    hook.remove()
    assert {i: c.text for i, c in found.items()} == {i: c.text for i, c in expected.items()}
    assert max(sizes) == 7


def test_training_mode_comes_back(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    model = tiny_model("gpt2").train()
    completer = completer_for(model, tiny_tokenizer)
    first = dict(completer.complete(PROMPTS, max_new_tokens=4, batch_size=8))
    again = dict(completer.complete(PROMPTS, max_new_tokens=4, batch_size=8))
    assert model.training
    assert [first[i].text for i in first] == [again[i].text for i in first]


def test_prompts_and_answers_stay_within_the_models_positions(
    tiny_model: Callable[[str], Any], tiny_tokenizer: Any
) -> None:
    completer = completer_for(tiny_model("gpt2"), tiny_tokenizer, max_length=4000)
    prompt = (Message("user", "why " * 2000),)
    ((_, completion),) = completer.complete([prompt], max_new_tokens=40, batch_size=1)
    assert completion.prompt_tokens + completion.completion_tokens <= 256


def test_scripted_completer_is_one() -> None:
    scripted = ScriptedCompleter({"Why?": "Because it is so."})
    asked = [(Message("user", "Why?"),), (Message("user", "When?"),)]
    found = dict(scripted.complete(asked, max_new_tokens=2, batch_size=1))
    assert (found[0].text, found[0].finish_reason, found[0].completion_tokens) == ("Because it", "length", 2)
    assert found[1].finish_reason == "error"
    assert "When?" in found[1].error
    assert scripted.asked == asked
    ((_, likelihood),) = scripted.likelihood([CONVERSATIONS[0]], batch_size=1)
    assert likelihood.nll == likelihood.bytes == len(CONVERSATIONS[0].answer)
