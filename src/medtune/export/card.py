"""The model card of an exported run: README.md as the Hub shows it, every number from the run's own files.

Covered: front matter, data and licences, method, scores with intervals and floors, leakage, limits, how to load.
Not covered: what a run does not know (who may use it for what: that is for the publisher to add).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json

SHOWN = {
    "rouge_l": "ROUGE-L",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "bleu": "BLEU",
    "perplexity": "perplexity of the answers",
    "bits_per_byte": "bits per byte of the answers",
    "stop_rate": "share of answers that end by themselves",
}


def model_card(recipe: Recipe, run_dir: RunDir, weights: str) -> str:
    """The card for `weights`: `adapter` or `merged`. A run without an evaluation says so in its card."""
    summary = read_json(path) if (path := run_dir.evaluation / "summary.json").exists() else None
    manifest = run_dir.manifest()
    data = read_json(run_dir.data / "data_card.json")
    base = recipe.model.base if is_published(recipe.model.base) else shown(recipe.model.base)
    page = _template().render(
        recipe=recipe,
        weights=weights,
        base=base,
        commit=manifest.get("base", {}).get("commit"),
        licence=manifest.get("licences", {}).get("base", "see its publisher"),
        sources={shown(path): names for path, names in manifest.get("licences", {}).get("data", {}).items()},
        leakage=data.get("leakage") or {},
        template=manifest.get("chat_template", {}),
        data=data,
        tuning=read_json(run_dir.path / "tuning.json"),
        summary=summary,
        rows=list(score_rows(summary)) if summary else [],
        systems=list(summary["systems"]) if summary else [],
        is_published=is_published(base),
    )
    return f"---\n{front_matter(recipe, base, manifest, weights)}---\n\n{page}"


def front_matter(recipe: Recipe, base: str, manifest: dict[str, Any], weights: str) -> str:
    """What the Hub indexes. The licence is the base's, whose terms bind what is made from it."""
    facts: dict[str, Any] = {
        "license": "other",
        "license_name": manifest.get("licences", {}).get("base", "see the base model"),
        "library_name": "peft" if weights == "adapter" else "transformers",
        "tags": ["medical", "question-answering", "medtune", recipe.tune.method],
        "language": ["en"],
    }
    if is_published(base):
        facts |= {"base_model": base, "base_model_relation": "adapter" if weights == "adapter" else "finetune"}
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def is_published(base: str) -> bool:
    """Whether the base has a name that others can load: not made by the run, not a folder of this machine."""
    return base not in ("scratch", "starter") and not Path(base).exists()


def shown(path: str) -> str:
    """A base or source as strangers may read it: of a path on this machine only the name."""
    if path == "scratch":
        return "random weights"
    if path == "starter":
        return "medtune's embedded starter"
    return Path(path).name if Path(path).exists() or Path(path).is_absolute() else path


def score_rows(summary: dict[str, Any]) -> Iterable[tuple[str, list[str]]]:
    """For each metric its name and every system's value with its interval; an unmeasured value is a dash."""
    for key, name in SHOWN.items():
        values = [system["metrics"].get(key) for system in summary["systems"].values()]
        if any(values):
            yield name, [_value(value) for value in values]


def _value(value: dict[str, float] | None) -> str:
    if not value:
        return "–"
    digits = 1 if abs(value["value"]) >= 10 else 3
    return f"{value['value']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: "not measured" if share is None else f"{share:.1%}"
    return environment.get_template("card.md.j2")
