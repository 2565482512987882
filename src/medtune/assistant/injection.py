"""Instructions inside user text or passages: seen, and without effect.

Covered: a classifier for all wordings, and the rules of injection_rules.yaml for what is certain: attempts to replace
the instructions, the role, the format, the guards or the sources, or to read the hidden text; forged role markers and
chat tokens; spaced-out and invisible letters; `neutralise` for passages, which are data whatever they say.
Not covered: making a model immune. That nothing changes is the assistant's shape: guards run outside the model, on
the user's words; sources come from the index; sections and fixed texts from code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from medtune.types import Message, Verdict

RULES = Path(__file__).parent / "injection_rules.yaml"
PASSAGE_CHARACTERS = 4_000
_TURNS = 8

# Tokens of chat templates and role lines: no passage and no question needs them.
_TOKENS = re.compile(
    r"<\|[^|<>\n]{0,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<\uff5c[^\uff5c<>\n]{0,40}\uff5c>"
    r"|</?(?:system|assistant|user|human|instructions?|passages?|tool_call|think)\b[^>\n]{0,60}>|\[/?(?:system"
    r"|assistant)\]",
    re.IGNORECASE,
)
_ROLE_LINE = re.compile(
    r"^[#*\s]{0,6}(?:system|assistant|developer|user|human|sistema|asistente)\s*(?:prompt|message|note)?\s*[:>]+",
    re.I | re.M,
)
_FORGED = re.compile(
    r"^[#*\s]{0,6}(?:system|assistant|developer|sistema)\s*(?:prompt|message|note)?\s*[:>]"
    r"|\"role\"\s*:\s*\"(?:system|assistant)\"|"
    r"^#{2,}\s*(?:new )?(?:instructions?|system|response)\b|\b(?:begin|end|start) (?:of )?(?:system|admin|hidden) "
    r"(?:prompt|message|instructions?)",
    re.I | re.M,
)

_TO_ONESELF = re.compile(
    r"\b(?:can|could|should|may|must|do|did|shall|if|when|why|how|is it (?:ok|okay|safe) (?:to|for)) (?:i|we|my|he"
    r"|she|they)\b"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an attempt looks like, in lower case with single spaces, and how sure that is (0..1)."""

    kind: str
    score: float
    pattern: re.Pattern[str]


@cache
def rules() -> tuple[Rule, ...]:
    """The rules of injection_rules.yaml with their words filled in."""
    given = yaml.safe_load(RULES.read_text(encoding="utf-8"))

    def filled(pattern: str) -> str:
        for word, meaning in given["words"].items():
            pattern = pattern.replace(f"{{{word}}}", meaning)
        return pattern

    return tuple(Rule(row["kind"], row["score"], re.compile(filled(row["pattern"]), re.M)) for row in given["rules"])


def verdict(messages: Sequence[Message], score_of: Callable[[str], float], threshold: float) -> Verdict:
    """Fires where a turn holds an instruction to the assistant about itself; the surest counts.

    `score_of` scores one text; a rule adds its own certainty. Older turns, and the assistant's own (a client can make
    them up), are read by the rules alone. Raises ValueError without a user turn.
    """
    turns = [message.content for message in messages if message.role == "user" and message.content.strip()]
    if not turns:
        raise ValueError("no user turn to look at")
    answered = [message.content for message in messages if message.role == "assistant"]
    found = [(find(turn), score_of(turn)) for turn in turns[-_TURNS:]]
    found += [(find(turn), 0.0) for turn in (*turns[:-_TURNS], *answered)]
    (kind, sure, words), learnt = max(found, key=lambda pair: _both(pair[0][1], pair[1]))
    score = _both(sure, learnt)
    if score < threshold:
        return Verdict("injection", False, score, "no instruction to the assistant found")
    reason = f"instruction to the assistant: {words}" if words else "worded like an instruction to the assistant"
    return Verdict("injection", True, score, reason, kind or "other")


def _both(sure: float, learnt: float) -> float:
    return 1 - (1 - sure) * (1 - learnt)


def find(text: str) -> tuple[str, float, str]:
    """The kind of instruction in `text`, how sure (0..1), and the words; an empty kind where there is none."""
    plain = _plain(text)
    if found := _TOKENS.search(plain) or _FORGED.search(plain):
        return "markers", 0.99, found.group().strip()
    best = ("", 0.0, "")
    for rule in rules():
        if rule.score > best[1] and (found := rule.pattern.search(plain)):
            sentence = re.split(r"[.!?\n]", plain[: found.start() + 1])[-1]
            if rule.kind != "override" or not _TO_ONESELF.search(sentence):
                best = (rule.kind, rule.score, " ".join(found.group().split()))
    return best


def _plain(text: str) -> str:
    """Lower case; compatibility forms folded; invisible characters dropped; "i g n o r e" joined."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    joined = re.sub(r"\b(?:\w[ .*_-]+){4,}\w\b", lambda match: re.sub(r"[ .*_-]+", "", match.group()), visible)
    return re.sub(r"[ \t]+", " ", joined.replace("’", "'")).lower()


def neutralise(text: str, limit: int = PASSAGE_CHARACTERS) -> str:
    """`text` as a passage for a prompt: chat tokens and role markers removed, at most `limit` characters, delimited."""
    plain = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cf", "Cc"))
    # What a removal joins may be a token again.
    while (stripped := _ROLE_LINE.sub("", _TOKENS.sub(" ", plain))) != plain:
        plain = stripped
    if len(plain) > limit:
        plain = plain[:limit].rsplit(" ", 1)[0] + " ..."
    return f"<passage>\n{plain.strip()}\n</passage>"
