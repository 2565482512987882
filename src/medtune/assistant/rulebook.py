"""Signs and rules in a YAML file, applied to one message.

Covered: patterns over plain text, rules over the signs that are told (not denied, long ago, asked about or fiction).
Not covered: the signs themselves (`emergency_rules.yaml`, `crisis_rules.yaml`), numbers (`vitals`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from medtune.assistant.clauses import Reading
from medtune.types import Message

Told = Mapping[str, Sequence[int]]
"""Signs that a message says are so, each with the places where it says so."""
REACH = 300  # characters: in a long message, signs further apart belong to different matters


@dataclass(frozen=True, slots=True)
class Rule:
    """`signs` must all be told; of `any_of` at least one, where it is given; each within `REACH` of the first sign.
    `weight` 1 is certain."""

    kind: str
    weight: float
    signs: tuple[str, ...]
    any_of: tuple[str, ...]
    source: str

    def fires(self, told: Told) -> bool:
        first, *others = self.signs
        return any(
            all(_near(told, sign, place) for sign in others)
            and (not self.any_of or any(_near(told, sign, place) for sign in self.any_of))
            for place in told.get(first, ())
        )

    def reason(self, told: Told) -> str:
        return f"{self.kind}: {', '.join([*self.signs, *(sign for sign in self.any_of if sign in told)])}"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Compiled signs by name, the rules, and the signs that count even where they are only asked about."""

    signs: Mapping[str, re.Pattern[str]]
    rules: tuple[Rule, ...]
    asked: frozenset[str]

    def told(self, reading: Reading) -> dict[str, list[int]]:
        """The signs that the message says are so, with the places where it says so."""
        found = {name: _places(reading, pattern, name in self.asked) for name, pattern in self.signs.items()}
        return {name: places for name, places in found.items() if places}

    def strongest(self, told: Told) -> Rule | None:
        """The rule of the largest weight that fires; the first of several."""
        return max((rule for rule in self.rules if rule.fires(told)), key=lambda rule: rule.weight, default=None)


def _near(told: Told, sign: str, place: int) -> bool:
    return any(abs(other - place) <= REACH for other in told.get(sign, ()))


def _places(reading: Reading, pattern: re.Pattern[str], may_ask: bool) -> list[int]:
    starts = (match.start() for match in pattern.finditer(reading.text))
    return [s for s in starts if (may_ask or reading.clause_at(s).is_told) and not reading.denied(s)]


@cache
def load(path: Path) -> Rulebook:
    """The rules of a file that ships with medtune; a sign that a rule names and the file lacks is a KeyError."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    signs = {name: _compiled(patterns, data.get("words", {})) for name, patterns in data["signs"].items()}
    rules = tuple(
        Rule(r["kind"], r["weight"], tuple(r["signs"]), tuple(r.get("any_of", ())), data["sources"][r["source"]])
        for r in data["rules"]
    )
    if missing := {s for rule in rules for s in (*rule.signs, *rule.any_of)} - set(signs):
        raise KeyError(f"{path}: rules name signs that are not defined: {sorted(missing)}")
    return Rulebook(signs, rules, frozenset(data.get("asked", ())))


def _compiled(patterns: Sequence[str], words: Mapping[str, str]) -> re.Pattern[str]:
    joined = re.sub(r"~(\d+)~", r"[^.!?\\n]{0,\1}", "|".join(patterns))
    return re.compile(re.sub(r"@(\w+)", lambda match: words[match[1]], joined))


def texts(messages: Sequence[Message], most: int) -> list[str]:
    """What an alarm reads: at most `most` user turns, the newest first, and these together.

    Raises ValueError without a user turn.
    """
    turns = [message.content for message in messages if message.role == "user" and message.content.strip()][-most:]
    if not turns:
        raise ValueError("no user turn to look at")
    return [*reversed(turns), "\n".join(turns)]
