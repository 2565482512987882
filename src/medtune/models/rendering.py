"""Turns to text and text to ids: the mechanics under `chat_template`, which is where to begin.

Covered: turns as a template can take them, Jinja rendering, tokenising texts that grow. Not covered: which template,
and what is supervised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from medtune.errors import ModelError
from medtune.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from medtune.models.chat_template import ChatTemplate


def prepare(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[Message, ...]:
    """The turns as the template takes them: with the system prompt, and no content that reads as a control token."""
    turns = [Message(m.role, inert(tokenizer, m.content)) for m in messages]
    if template.system_prompt and turns[0].role != "system":
        turns.insert(0, Message("system", template.system_prompt))
    if not template.takes_system and turns[0].role == "system":
        system, first, *rest = turns if len(turns) > 1 else (turns[0], Message("user", ""))
        if first.role == "user":
            turns = [Message("user", f"{system.content}\n\n{first.content}".strip()), *rest]
    end = template.end_of_turn if template.appends_end else ""
    return tuple(Message(m.role, m.content + end) if end and m.role == "assistant" else m for m in turns)


def render(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[Message]], generate: bool
) -> list[str]:
    """One text per row. Thinking is off and the date fixed, so that training and serving render alike on any day."""
    try:
        chats = [[{"role": m.role, "content": m.content} for m in row] for row in rows]
        texts: list[str] = tokenizer.apply_chat_template(
            chats,
            chat_template=template.source,
            tokenize=False,
            add_generation_prompt=generate,
            enable_thinking=False,
            date_string="26 Jul 2024",
        )
    except (TemplateError, ValueError, TypeError) as error:
        roles = ", ".join(m.role for m in rows[0]) if len(rows) == 1 else "several rows"
        raise ModelError(
            f"The chat template ({template.name}) refuses the turns {roles}: {error}. Expected turns that alternate "
            "between user and assistant. Fix the conversation, or set model.chat_template: plain."
        ) from error
    return texts


def prompt_texts(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message]) -> list[str]:
    """Growing texts, each beginning with the one before: every earlier prompt, the same answered, the prompt itself.

    Only the prompt itself where a template rewrites earlier turns (Qwen3 drops what was thought in them).
    """
    prompt = render(template, tokenizer, [turns], True)
    answers = [k for k, turn in enumerate(turns) if turn.role == "assistant" and k]
    if not answers or template.family == "seq2seq":
        return prompt
    asked = render(template, tokenizer, [turns[:k] for k in answers], True)
    told = render(template, tokenizer, [turns[: k + 1] for k in answers], False)
    texts = [text for pair in zip(asked, told, strict=True) for text in pair] + prompt
    return texts if all(b.startswith(a) for a, b in pairwise(texts)) else prompt


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool = False) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=special, return_attention_mask=False, verbose=False
    ).input_ids
    return ids


def grow(tokenizer: PreTrainedTokenizerBase, texts: list[str], encoded: list[list[int]]) -> list[list[int]]:
    """Ids of growing texts, each beginning with those of the one before; what is added is encoded apart if need be."""
    grown = encoded[:1]
    for shorter, longer, whole in zip(texts, texts[1:], encoded[1:], strict=False):
        before = grown[-1]
        grown.append(
            whole if whole[: len(before)] == before else before + encode(tokenizer, [longer[len(shorter) :]])[0]
        )
    return grown


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}


@lru_cache(maxsize=8)
def _control_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Special tokens in running text: a question that holds `</s>` must not be able to end or forge a turn."""
    tokens = {token for i in special_ids(tokenizer) if len(token := tokenizer.convert_ids_to_tokens(i)) > 1}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)")


def inert(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` with a blank inside every special token that it spells."""
    return _control_pattern(tokenizer).sub(lambda hit: f"{hit[0][0]} {hit[0][1:]}", text)
