"""Signs and rules in a YAML file, applied to one message.

Covered: patterns over plain text, rules over the signs that are told (not denied, long ago, asked about or fiction).
Not covered: the signs themselves (`emergency_rules.yaml`, `crisis_rules.yaml`), numbers (`vitals`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from medtune.assistant.clauses import Reading


@dataclass(frozen=True, slots=True)
class Rule:
    """`signs` must all be told; of `any_of` at least one, where it is given. `weight` 1 is certain."""

    kind: str
    weight: float
    signs: tuple[str, ...]
    any_of: tuple[str, ...]
    source: str

    def fires(self, told: Collection[str]) -> bool:
        return all(sign in told for sign in self.signs) and (not self.any_of or any(s in told for s in self.any_of))

    def reason(self, told: Collection[str]) -> str:
        return f"{self.kind}: {', '.join([*self.signs, *(sign for sign in self.any_of if sign in told)])}"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Compiled signs by name, and the rules."""

    signs: Mapping[str, re.Pattern[str]]
    rules: tuple[Rule, ...]

    def told(self, reading: Reading) -> set[str]:
        """The signs that the message says are so."""
        return {name for name, pattern in self.signs.items() if _is_told(reading, pattern)}

    def strongest(self, told: Collection[str]) -> Rule | None:
        """The rule of the largest weight that fires; the first of several."""
        return max((rule for rule in self.rules if rule.fires(told)), key=lambda rule: rule.weight, default=None)


def _is_told(reading: Reading, pattern: re.Pattern[str]) -> bool:
    return any(
        reading.clause_at(match.start()).is_told and not reading.denied(match.start())
        for match in pattern.finditer(reading.text)
    )


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
    return Rulebook(signs, rules)


def _compiled(patterns: Sequence[str], words: Mapping[str, str]) -> re.Pattern[str]:
    joined = re.sub(r"~(\d+)~", r"[^.!?\\n]{0,\1}", "|".join(patterns))
    return re.compile(re.sub(r"@(\w+)", lambda match: words[match[1]], joined))
