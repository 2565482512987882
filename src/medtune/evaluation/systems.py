"""Who answers the test questions: two floors that look answers up, and language models.

Covered: a random training answer, the nearest training question's answer, any `Completer`, with and without examples;
which questions are asked.
Not covered: loading models and choosing their prompt format (`candidates`), writing down what they answer (`runner`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import bm25s

from medtune.errors import EvaluationError
from medtune.run_dir import hash_of
from medtune.types import Completion, Conversation, Likelihood

if TYPE_CHECKING:
    from medtune.models.completer import Completer

FLOORS = ("random", "nearest")
logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
Answers = Callable[[Sequence[Conversation], int], Iterator[tuple[int, Completion]]]
Likelihoods = Callable[[Sequence[Conversation], int], Iterator[tuple[int, Likelihood]]]


@dataclass(frozen=True)
class System:
    """Something that answers questions.

    `answers(conversations, batch_size)` sees each conversation's prompt, never its answer, and yields (index,
    completion) in any order. `likelihoods` measures the reference answers; a floor has none. `fingerprint` names
    everything that the answers depend on, so that records of another model are not taken for this one's.
    `first_tokens` answers with one token, so that the time to it can be taken.
    """

    name: str
    fingerprint: str
    answers: Answers
    likelihoods: Likelihoods | None = None
    first_tokens: Answers | None = None


def draw(conversations: Sequence[Conversation], questions: int | None) -> list[Conversation]:
    """Up to `questions` test conversations (None: all), one from each group in turn, so that no large topic dominates.

    The order depends on the ids alone: it is the same in every run, and fewer questions are a prefix of more.
    """
    groups: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in sorted((c for c in conversations if c.question), key=_shuffled):
        groups[conversation.group or conversation.id].append(conversation)
    rounds = chain.from_iterable(zip_longest(*groups.values()))
    drawn = [conversation for conversation in rounds if conversation is not None][:questions]
    if len({c.id for c in drawn}) < len(drawn):
        raise EvaluationError(
            "Two test conversations have the same id, so one record would replace the other. Run medtune data again."
        )
    return drawn


def _shuffled(conversation: Conversation) -> str:
    return hashlib.sha256(conversation.id.encode()).hexdigest()


def random_answer(train: Sequence[Conversation], seed: int) -> System:
    """Answers each question with the answer of a random training question; the same one whatever else is asked."""
    pool = _pool(train)

    def answers(conversations: Sequence[Conversation], batch_size: int) -> Iterator[tuple[int, Completion]]:
        del batch_size
        for index, conversation in enumerate(conversations):
            yield index, Completion(random.Random(f"{seed}/{conversation.id}").choice(pool).answer)

    return System("random", hash_of("random", seed, [c.answer for c in pool]), answers)


def nearest_answer(train: Sequence[Conversation]) -> System:
    """Answers each question with the answer of the most similar training question (BM25 over its words).

    Where no word is shared there is no answer.
    """
    pool = _pool(train)
    index = bm25s.BM25()
    index.index(_words([c.question for c in pool]), show_progress=False)

    def answers(conversations: Sequence[Conversation], batch_size: int) -> Iterator[tuple[int, Completion]]:
        del batch_size
        for position, words in enumerate(_words([c.question for c in conversations])):
            scores = index.get_scores_from_ids(index.get_tokens_ids(words))
            yield position, Completion(pool[int(scores.argmax())].answer if scores.max() > 0 else "")

    return System("nearest", hash_of("nearest", [(c.question, c.answer) for c in pool]), answers)


def _pool(train: Sequence[Conversation]) -> list[Conversation]:
    pool = [conversation for conversation in train if conversation.question]
    if not pool:
        raise EvaluationError(
            "The training split has no questions, so there is no training answer to compare with. "
            "Set evaluate.systems: [base, tuned]."
        )
    return pool


def _words(texts: list[str]) -> list[list[str]]:
    tokens: list[list[str]] = bm25s.tokenize(texts, return_ids=False, show_progress=False)
    return tokens


def model_system(
    name: str,
    completer: Completer,
    fingerprint: str,
    max_new_tokens: int,
    around: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> System:
    """A language model as a system; `around` is entered while it computes (the base runs with its adapter disabled)."""

    def complete(conversations: Sequence[Conversation], batch_size: int, new: int) -> Iterator[tuple[int, Completion]]:
        prompts = [conversation.prompt for conversation in conversations]
        with around():
            yield from completer.complete(prompts, max_new_tokens=new, batch_size=batch_size)

    def likelihoods(conversations: Sequence[Conversation], batch_size: int) -> Iterator[tuple[int, Likelihood]]:
        with around():
            yield from completer.likelihood(conversations, batch_size=batch_size)

    answers, first = partial(complete, new=max_new_tokens), partial(complete, new=1)
    return System(name, hash_of(name, fingerprint, max_new_tokens), answers, likelihoods, first)


def few_shot(system: System, examples: Sequence[Conversation]) -> System:
    """`system` shown some answered questions before each of its own."""
    turns = tuple(turn for example in examples for turn in example.messages if turn.role != "system")

    def shown(conversations: Sequence[Conversation]) -> list[Conversation]:
        heads = [sum(turn.role == "system" for turn in conversation.messages) for conversation in conversations]
        return [
            replace(c, messages=(*c.messages[:head], *turns, *c.messages[head:]))
            for c, head in zip(conversations, heads, strict=True)
        ]

    def after(ask: Callable[[Sequence[Conversation], int], Iterator[Any]] | None) -> Any:
        return ask and (lambda conversations, batch_size: ask(shown(conversations), batch_size))

    fingerprint = hash_of("few_shot", system.fingerprint, [astuple(turn) for turn in turns])
    return System("few_shot", fingerprint, after(system.answers), after(system.likelihoods), after(system.first_tokens))
