"""The test double for `Completer`: answers from a list, likelihoods from a number. No model, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medtune.types import Completion, Conversation, FinishReason, Likelihood, Message


class ScriptedCompleter:
    """Answers the last user turn from `answers`; one that is not there ends as an error. `asked` keeps the prompts."""

    def __init__(self, answers: Mapping[str, str], nll_per_byte: float = 1.0) -> None:
        self.answers, self.nll_per_byte = answers, nll_per_byte
        self.asked: list[tuple[Message, ...]] = []

    def complete(
        self, prompts: Sequence[tuple[Message, ...]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Completion]]:
        """As `Completer.complete`; a token is a word, and longer answers are cut at `max_new_tokens` words."""
        del batch_size
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            question = next((m.content for m in reversed(prompt) if m.role == "user"), "")
            if question not in self.answers:
                yield index, Completion("", "error", error=f"the script has no answer to {question!r}")
                continue
            words = self.answers[question].split(" ")
            text = self.answers[question] if len(words) <= max_new_tokens else " ".join(words[:max_new_tokens])
            reason: FinishReason = "stop" if len(words) <= max_new_tokens else "length"
            yield (
                index,
                Completion(
                    text, reason, sum(len(m.content.split()) for m in prompt), len(words[:max_new_tokens]), 0.001
                ),
            )

    def likelihood(self, conversations: Sequence[Conversation], *, batch_size: int) -> Iterator[tuple[int, Likelihood]]:
        """As `Completer.likelihood`: `nll_per_byte` nats for each byte of the answer; a token is a byte."""
        del batch_size
        for index, conversation in enumerate(conversations):
            size = len(conversation.answer.encode())
            yield index, Likelihood(self.nll_per_byte * size, size, size)
