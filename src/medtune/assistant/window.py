"""Which turns of a conversation, and how many passages, a model is shown when not all fit into its window.

The rule: the system text and the last question always stay. The oldest turns go first, question and answer together,
then the passages that fit worst; at last the middle of the question, since people ask at the beginning or at the end.
Not covered: what the search sees (`query`) and what the guards read (`guards`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medtune.types import Message

Count = Callable[[Sequence[Message]], int]
CUT = " [...] "


def fit(
    system: str, history: Sequence[Message], question: Callable[[int], str], passages: int, count: Count, room: int
) -> tuple[Message, ...]:
    """The prompt in at most `room` tokens: system text, the newest `history`, and `question(n)`, with n passages.

    `count` gives the tokens of a prompt. With nothing left to drop, the prompt's last turn loses its middle.
    """
    head = (Message("system", system),) if system else ()
    history = tuple(history)
    last = Message("user", question(passages))
    while history and count((*head, *history, last)) > room:
        starts = [at for at, message in enumerate(history) if message.role == "user" and at]
        history = history[starts[0] :] if starts else ()
    while passages > 1 and count((*head, *history, last)) > room:
        passages -= 1
        last = Message("user", question(passages))
    text = last.content
    while len(text) > 2 * len(CUT) and count((*head, *history, last)) > room:
        text = text[: len(text) * 2 // 5] + text[-(len(text) * 2 // 5) :]
        last = Message("user", text[: len(text) // 2] + CUT + text[len(text) // 2 :])
    return (*head, *history, last)
