"""A small Llama with its own tokenizer, initialised at random: the base for `model.base: scratch`.

Covered: byte-level BPE over the training texts, chat tokens and template, weights from a seed, a folder that loads like
any other base. Not covered: training it (that is `tune.method: full`) and shrinking a published model (`shapes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.recipe import ScratchModel

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
POSITIONS = 2048
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def build(section: ScratchModel, texts: Iterable[str], folder: Path, seed: int) -> None:
    """Write tokenizer and weights to `folder`. Equal arguments give equal files; the random state is left as it was."""
    tokenizer = train_tokenizer(texts, section.vocabulary, (PAD, BOS, END, *ROLES), bos=BOS, eos=END, pad=PAD)
    tokenizer.chat_template = TEMPLATE
    shape = config(section, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def config(section: ScratchModel, tokenizer: PreTrainedTokenizerFast | None = None) -> LlamaConfig:
    """The shape that `build` gives the model; without a tokenizer, with the vocabulary that was asked for."""
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    return LlamaConfig(
        vocab_size=section.vocabulary if tokenizer is None else len(tokenizer),
        hidden_size=section.width,
        intermediate_size=(section.width * 8 // 3 + 15) // 16 * 16,
        num_hidden_layers=section.layers,
        num_attention_heads=section.heads,
        num_key_value_heads=section.heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        **({} if tokenizer is None else {name: getattr(tokenizer, name) for name in special}),
    )


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, special: tuple[str, ...], *, bos: str | None, eos: str, pad: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` pieces, digits apart, whose first ids are `special`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(dict.fromkeys(special)),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        model_max_length=POSITIONS,
        additional_special_tokens=[token for token in special if token not in (bos, eos, pad)],
    )
