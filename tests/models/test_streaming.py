from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from medtune.models import chat_template as ct
from medtune.models.completer import TransformersCompleter
from medtune.models.engine import Sampling, StopTexts
from medtune.models.loading import family
from medtune.models.streaming import TransformersEngine, choose
from medtune.recipe import ModelSection
from medtune.types import Message

PROMPT = (Message("user", "What is asthma?"),)


def engine_for(model: Any, tokenizer: Any) -> TransformersEngine:
    template = ct.choose(ModelSection(base="x"), tokenizer, family(model.config))
    return TransformersEngine(TransformersCompleter(model, tokenizer, template, 128), "tiny", "hash")


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_greedy_pieces_add_up_to_the_completers_answer(
    name: str, tiny_model: Callable[[str], Any], tiny_tokenizer: Any
) -> None:
    engine = engine_for(tiny_model(name), tiny_tokenizer)
    ((_, expected),) = engine.completer.complete([PROMPT], max_new_tokens=24, batch_size=1)
    *pieces, last = engine.stream(PROMPT, Sampling(24))
    completion = last.completion
    assert completion is not None
    assert "".join(piece.text for piece in [*pieces, last]).strip() == completion.text
    assert completion.text == expected.text.rstrip("�").strip()
    assert (completion.prompt_tokens, completion.completion_tokens) == (
        engine.count(PROMPT),
        expected.completion_tokens,
    )
    assert completion.finish_reason == expected.finish_reason
    assert len(pieces) >= completion.completion_tokens - 1


def test_a_seed_belongs_to_its_request(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    engine = engine_for(tiny_model("llama"), tiny_tokenizer)

    def answer(seed: int | None) -> str:
        return "".join(piece.text for piece in engine.stream(PROMPT, Sampling(16, 1.0, 0.95, seed)))

    before = torch.get_rng_state()
    first, other = answer(7), answer(8)
    torch.rand(3)
    assert answer(7) == first != other
    torch.set_rng_state(before)
    list(engine.stream(PROMPT, Sampling(4, 1.0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_requests_in_threads_do_not_mix(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    engine = engine_for(tiny_model("llama"), tiny_tokenizer)
    prompts = [(Message("user", f"What is {word}?"),) for word in ("gout", "asthma", "fever", "a cough")]

    def answer(prompt: tuple[Message, ...]) -> str:
        return "".join(piece.text for piece in engine.stream(prompt, Sampling(12)))

    alone = [answer(prompt) for prompt in prompts]
    found: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: answer(prompts[i])})) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(prompts))] == alone
    assert len(set(alone)) > 1


def test_closing_stops_the_model(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    model = tiny_model("llama")
    engine = engine_for(model, tiny_tokenizer)
    steps: list[int] = []
    hook = model.register_forward_hook(lambda *_: steps.append(1))
    pieces = engine.stream(PROMPT, Sampling(64))
    for _ in range(3):
        next(pieces)
    at = len(steps)
    pieces.close()
    hook.remove()
    assert at <= 4
    assert len(steps) == at


def test_a_stop_text_across_tokens_is_cut_away(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    engine = engine_for(tiny_model("llama"), tiny_tokenizer)
    whole = "".join(piece.text for piece in engine.stream(PROMPT, Sampling(24)))
    mark = whole[6:10]
    *_, last = pieces = list(engine.stream(PROMPT, Sampling(24, stop=(mark,))))
    text = "".join(piece.text for piece in pieces)
    assert text == whole[: whole.index(mark)]
    assert last.completion is not None
    assert last.completion.finish_reason == "stop"


def test_a_long_prompt_keeps_room_for_the_answer(tiny_model: Callable[[str], Any], tiny_tokenizer: Any) -> None:
    engine = engine_for(tiny_model("gpt2"), tiny_tokenizer)
    *_, last = engine.stream((Message("user", "why " * 2000),), Sampling(40))
    assert last.completion is not None
    assert last.completion.prompt_tokens + last.completion.completion_tokens <= engine.window == 256


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = {choose(logits, Sampling(temperature=1.0, top_p=0.7), generator) for _ in range(200)}
    assert drawn == {0, 1}
    assert {choose(logits, Sampling(temperature=1.0), generator) for _ in range(500)} == {0, 1, 2, 3}
    assert choose(logits, Sampling(), generator) == 0


def test_stop_texts_hold_back_what_may_become_one() -> None:
    stop = StopTexts(["END", "###"])
    assert [stop.feed(text) for text in ("a E", "N", "X #", "#b", " EN", "D after")] == [
        "a ",
        "",
        "ENX ",
        "##b",
        " ",
        "",
    ]
    assert stop.is_met
    assert stop.rest() == ""
    assert StopTexts(()).feed("all") == "all"
