"""Instructions inside user text or passages: seen, and without effect.

Covered: English and Spanish attempts to replace the rules, the role, the format or the sources; forged role markers
and chat tokens; `neutralise` for passages, which are data whatever they say.
Not covered: making a model immune. That nothing changes is the assistant's shape: guards run outside the model, on
the user's words; sources come from the index; sections and fixed texts from code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medtune.types import Message, Verdict

THRESHOLD = 0.5
PASSAGE_CHARACTERS = 4_000

# Tokens of chat templates and role lines: no passage and no question needs them.
_TOKENS = re.compile(
    r"<\|[^|<>\n]{0,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<\uff5c[^\uff5c<>\n]{0,40}\uff5c>"
    r"|</?(?:system|assistant|user|human|instructions?|passage|tool_call|think)\b[^>\n]{0,60}>",
    re.IGNORECASE,
)
_ROLE_LINE = re.compile(
    r"^[#*\s]{0,6}(?:system|assistant|developer|user|human)\s*(?:prompt|message)?\s*[:>]+", re.I | re.M
)


def verdict(messages: Sequence[Message]) -> Verdict:
    """Fires where a user turn holds an instruction to the assistant about its rules. The newest attempt is reported."""
    del messages
    return Verdict("injection", False, 0.0, "no instruction to the assistant found")


def neutralise(text: str, limit: int = PASSAGE_CHARACTERS) -> str:
    """`text` as a passage for a prompt: chat tokens and role markers removed, at most `limit` characters, delimited."""
    plain = _ROLE_LINE.sub("", _TOKENS.sub(" ", text))
    if len(plain) > limit:
        plain = plain[:limit].rsplit(" ", 1)[0] + " ..."
    return f"<passage>\n{plain.strip()}\n</passage>"
