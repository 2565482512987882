"""The page's texts by language: one YAML file each, all with the same keys.

Not covered: what the assistant itself says (`assistant.wording`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from medtune.errors import PrerequisiteError

LOCALE = Path(__file__).parents[1] / "locale"

Texts = dict[str, Any]


def languages() -> tuple[str, ...]:
    """The codes that there is a file for."""
    return tuple(sorted(path.stem for path in LOCALE.glob("*.yaml")))


@cache
def texts(language: str) -> Texts:
    """The texts of one language, with its code as `code`. Raises PrerequisiteError naming those that there are."""
    if language not in languages():
        raise PrerequisiteError(f"--lang: there are no texts in {language!r}. There are: {', '.join(languages())}.")
    return {"code": language, **yaml.safe_load((LOCALE / f"{language}.yaml").read_text(encoding="utf-8"))}
