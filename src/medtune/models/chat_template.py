"""The one place where a conversation becomes text, token ids and labels.

Covered: choosing the prompt format, the ids that generation is fed, the ids and labels that training is fed,
truncation, the tokens that end an answer, storing the format with the run. Not covered: rendering itself (`rendering`),
batches, padding and packing (`tuning.batches`), generating (`completer`).

Two rules hold by construction. What generation is fed is, id for id, a prefix of what training was fed: a text is
tokenised whole as long as that leaves its prefix alone, and in pieces where a token would merge across the border. And
what is supervised follows from where the answer lies, never from what a token is, so pad == eos is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import ModelError
from medtune.models.rendering import encode, grow, inert, prepare, prompt_texts, render, special_ids
from medtune.recipe import ModelSection
from medtune.run_dir import hash_of
from medtune.types import Conversation, Message, Sample

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Family = Literal["causal", "seq2seq"]
IGNORED = -100
ANSWER_ROOM = 16
BATCH = 512

SOURCES = {
    "dialogpt": "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}",
    "plain": (
        "{% for m in messages %}"
        "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
        "{% if m.role == 'system' %}{{ m.content }}"
        "{% elif m.role == 'user' %}{{ 'Question: ' + m.content }}"
        "{% else %}{{ 'Answer: ' + m.content + eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '\n\nAnswer:' }}{% endif %}"
    ),
    "instruction": (
        "{% for m in messages %}"
        "{% if m.role == 'assistant' %}{{ 'Answer: ' + m.content + '\n' }}"
        "{% elif m.role == 'user' and loop.last %}{{ 'Answer the medical question: ' + m.content }}"
        "{% elif m.role == 'user' %}{{ 'Question: ' + m.content + '\n' }}"
        "{% else %}{{ m.content + '\n' }}{% endif %}{% endfor %}"
    ),
}


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How one run writes its prompts; stored in the manifest, refused by its hash where another one was trained with.

    `end_of_turn` is the token after an answer (Llama-3's differs from EOS). `takes_system` is false where the source
    refuses or drops system turns; their text then opens the first user turn. `appends_end` is true where the source
    itself writes no end token.
    """

    name: str
    source: str
    family: Family
    system_prompt: str = ""
    end_of_turn: str = ""
    takes_system: bool = True
    appends_end: bool = False

    @property
    def hash(self) -> str:
        """Equal for equal formats on every machine."""
        return hash_of(asdict(self))


def choose(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, family: Family, config: PretrainedConfig | None = None
) -> ChatTemplate:
    """The prompt format of a model: the recipe's, or with `auto` the tokenizer's own, else the fallback of its kind.

    Raises ModelError for a format that the tokenizer or the family cannot have.
    """
    name: str = section.chat_template
    has_own = isinstance(tokenizer.chat_template, str)
    if name == "auto":
        where = f"{section.base} {getattr(config, '_name_or_path', '')}".lower()
        fallback = "instruction" if family == "seq2seq" else "dialogpt" if "dialogpt" in where else "plain"
        name = "own" if has_own and family == "causal" else fallback
    if name == "own" and not has_own:
        raise ModelError(
            f"model.chat_template: own, but the tokenizer of {section.base} has no chat template. "
            "Expected a tokenizer with one. Set model.chat_template: auto, plain or dialogpt."
        )
    if (family == "seq2seq") != (name == "instruction"):
        fits = "instruction" if family == "seq2seq" else "own, dialogpt or plain"
        raise ModelError(f"model.chat_template: {name} does not fit {section.base}, a {family} model: expected {fits}.")
    source = tokenizer.chat_template if name == "own" else SOURCES[name]
    if name in ("plain", "dialogpt") and tokenizer.bos_token and tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
        source = "{{ bos_token }}" + source
    if family == "seq2seq":
        return ChatTemplate(name, source, family, section.system_prompt, tokenizer.eos_token or "")
    return _probed(ChatTemplate(name, source, family, section.system_prompt), tokenizer)


def _probed(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """`template` with what three test renderings say about its end token and its treatment of system turns."""
    user, answer, system = Message("user", "Why?"), Message("assistant", "Because."), Message("system", "Sentinel")
    prompt, whole = (
        render(template, tokenizer, [turns], generate)[0]
        for turns, generate in (((user,), True), ((user, answer), False))
    )
    tail = (
        whole[len(prompt) :].partition(answer.content)[2]
        if whole.startswith(prompt)
        else whole.rpartition(answer.content)[2]
    )
    special = special_ids(tokenizer)
    end = next((i for i in encode(tokenizer, [tail])[0] if i in special), None) if tail else None
    if end is None and tokenizer.eos_token is None:
        raise ModelError(
            "The tokenizer has neither an EOS token nor a template that ends a turn: no model could learn to stop. "
            "Expected one of the two. Use another base, or set eos_token in its tokenizer_config.json."
        )
    try:
        asked = render(template, tokenizer, [(system, user)], True)[0]
        told = render(template, tokenizer, [(system, user, answer)], False)[0]
        takes_system = system.content in asked and told.startswith(asked)
    except ModelError:
        takes_system = False
    return ChatTemplate(
        template.name,
        template.source,
        template.family,
        template.system_prompt,
        tokenizer.eos_token if end is None else tokenizer.convert_ids_to_tokens(end),
        takes_system,
        end is None,
    )


def prompt_text(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """What the model reads before it answers, as text; `messages` end with a user turn."""
    return prompt_texts(template, tokenizer, prepare(template, tokenizer, messages))[-1]


def prompt_ids(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    max_length: int | None = None,
) -> list[int]:
    """What the model reads before it answers, as ids: exactly the beginning of what training was fed for these turns.

    With `max_length`, a prompt that would leave no room for an answer loses its middle, as it does in training.
    """
    if not messages:
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [first]
    texts = prompt_texts(template, tokenizer, prepare(template, tokenizer, messages))
    special = template.family == "seq2seq"
    ids = grow(tokenizer, texts, encode(tokenizer, texts, special))[-1]
    return ids if max_length is None else _cut_middle(ids, max_length if special else _prompt_room(max_length))


def stop_ids(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, generation_eos: int | Sequence[int] | None = None
) -> list[int]:
    """Where generation stops: at EOS, the template's end of turn, and what the model's generation config adds."""
    extra = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
    end = tokenizer.convert_tokens_to_ids(template.end_of_turn) if template.end_of_turn else None
    return sorted({i for i in (tokenizer.eos_token_id, end, *extra) if i is not None})


def samples(
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Iterable[Conversation],
    max_length: int,
    *,
    turns: Literal["all", "last"] = "all",
) -> Iterator[Sample]:
    """The conversations as ids and labels, in order: one sample each, or one per assistant turn for encoder-decoders,
    or one per window of `max_length` tokens for a plain text.

    `turns="last"` supervises the final answer alone (of a plain text the first window), one sample each. A sample may
    have no supervised token; the caller counts or refuses it. Raises ModelError, with the conversation's id, where the
    template refuses its turns.
    """
    rows = iter(conversations)
    while batch := list(islice(rows, BATCH)):
        build = _pairs if template.family == "seq2seq" else _causal
        yield from build(template, tokenizer, batch, max_length, turns)


def _causal(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, batch: list[Conversation], max_length: int, turns: str
) -> Iterator[Sample]:
    rows = [_training_texts(template, tokenizer, conversation) for conversation in batch]
    encoded = iter(encode(tokenizer, [text for row in rows for text in row]))
    ends = set(stop_ids(template, tokenizer))
    for conversation, row in zip(batch, rows, strict=True):
        grown = grow(tokenizer, row, list(islice(encoded, len(row))))
        if conversation.messages[-1].role == "text":
            windows = _document(conversation.id, tokenizer, conversation.answer, max_length)
            yield from windows if turns == "all" else windows[:1]
        else:
            yield _labelled(conversation.id, grown if turns == "all" else grown[-2:], ends, max_length)


def _training_texts(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> list[str]:
    """Growing texts: prompt, prompt with answer, next prompt, with answer, ... ; nothing for a plain document."""
    if conversation.messages[-1].role == "text":
        return []
    try:
        turns = prepare(template, tokenizer, conversation.messages)
        texts = prompt_texts(template, tokenizer, turns[:-1])
        told = render(template, tokenizer, [turns], False)[0]
    except ModelError as error:
        raise ModelError(f"conversation {conversation.id}: {error}") from error
    if not told.startswith(texts[-1]):
        told = texts[-1] + turns[-1].content + ("" if template.appends_end else template.end_of_turn)
    return [*texts, told]


def _labelled(id: str, grown: list[list[int]], ends: set[int], max_length: int) -> Sample:
    """`grown` alternates prompt and answered prompt; what an answer adds is supervised up to its first end token."""
    ids, labels, stop = grown[-1], [IGNORED] * len(grown[-1]), 0
    for prompt, told in zip(grown[::2], grown[1::2], strict=True):
        stop = next((i + 1 for i in range(len(prompt), len(told)) if told[i] in ends), len(told))
        labels[len(prompt) : stop] = ids[len(prompt) : stop]
    head = len(grown[0])
    start = _cut_middle(ids[:head], _prompt_room(max_length))
    kept = (start + ids[head:stop])[:max_length]
    return Sample(id, kept, ([IGNORED] * len(start) + labels[head:stop])[:max_length], stop - len(kept))


def _document(id: str, tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[Sample]:
    """A plain text as windows that share one token: each token but the very first is predicted once, none is cut."""
    ids = encode(tokenizer, [inert(tokenizer, text)], special=True)[0]
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    starts = range(0, max(len(ids) - 1, 1), max_length - 1)
    windows = [ids[start : start + max_length] for start in starts]
    return [Sample(id, window, [IGNORED, *window[1:]]) for window in windows]


def _pairs(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, batch: list[Conversation], max_length: int, turns: str
) -> Iterator[Sample]:
    owners, asked, told = [], [], []
    for conversation in batch:
        if conversation.messages[-1].role == "text":
            raise ModelError(
                f"conversation {conversation.id}: a plain text has no question, which an encoder-decoder model needs. "
                "Use a decoder-only base for continued pre-training, or drop the source with layout text."
            )
        prepared = prepare(template, tokenizer, conversation.messages)
        answers = [k for k, turn in enumerate(prepared) if turn.role == "assistant" and k]
        for k in answers if turns == "all" else answers[-1:]:
            owners.append(conversation.id)
            asked.append(render(template, tokenizer, [prepared[:k]], True)[0])
            told.append(prepared[k].content)
    if not owners:
        return
    for owner, source, target in zip(
        owners, encode(tokenizer, asked, True), encode(tokenizer, told, True), strict=True
    ):
        ids, labels = _cut_middle(source, max_length), target[:max_length]
        yield Sample(owner, ids, labels, len(source) - len(ids) + len(target) - len(labels))


def _prompt_room(max_length: int) -> int:
    """Tokens that a prompt may take, so that something of the answer is left to learn from."""
    return max(max_length - ANSWER_ROOM, max_length // 2)


def _cut_middle(ids: list[int], length: int) -> list[int]:
    """`ids` in at most `length`: the middle goes, since a format lives in its head and its tail."""
    return ids if len(ids) <= length else ids[: length // 2] + ids[len(ids) - (length - length // 2) :]


def to_json(template: ChatTemplate) -> dict[str, Any]:
    """For the manifest."""
    return {**asdict(template), "hash": template.hash}


def from_json(stored: dict[str, Any]) -> ChatTemplate:
    """The inverse of `to_json`. Raises ModelError where the entry was edited by hand."""
    template = ChatTemplate(**{key: value for key, value in stored.items() if key != "hash"})
    require_same(template, stored)
    return template


def require_same(template: ChatTemplate, stored: dict[str, Any]) -> None:
    """Raises ModelError unless `template` is the one that was stored at training."""
    if template.hash != stored.get("hash"):
        raise ModelError(
            f"The chat template is {template.name} with hash {template.hash}; the model was tuned with "
            f"{stored.get('name')} with hash {stored.get('hash')} and would be asked in a format that it has not "
            "learned. Use the tokenizer, model.chat_template and model.system_prompt of the tuning, or tune again."
        )
