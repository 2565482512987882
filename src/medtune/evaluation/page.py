"""What all of medtune's HTML pages have in common: one style sheet, one template engine, one way to write a figure.

Covered: pages that open offline, whose data and model text are escaped by the template engine. Not covered: what a
page shows (`report`, `audit`, `compare`, `sweep`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medtune.evaluation.metrics import METRICS
from medtune.evaluation.verdict import in_p

LOADER = PackageLoader("medtune.evaluation", ".")


def render(template: str, **values: Any) -> str:
    """The page that `template` makes of `values`."""
    environment = Environment(
        loader=LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=number, bytes=in_bytes, seconds=in_seconds, count=in_count, share=share, plain=plain
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.globals.update(metrics=METRICS, figure=figure)
    script = values.get("script", "")
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = Markup(f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}")
    return environment.get_template(template).render(style=asset("report.css"), policy=policy, **values)


def asset(name: str) -> Markup:
    """A style sheet or script of ours, to stand in a page as it is."""
    return Markup(LOADER.get_source(Environment(), name)[0])


def as_json(value: Any) -> Markup:
    """`value` for a `<script type="application/json">`: no `<` in it, so that no text can end the block."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def number(value: float | None, key: str = "") -> str:
    """A metric's value with its own number of decimals; a rate, and whatever is a `share`, in per cent."""
    if value is None:
        return "–"
    metric = METRICS.get(key)
    return (
        f"{value:.1%}"
        if key == "share" or (metric and metric.is_rate)
        else f"{value:,.{metric.digits if metric else 3}f}"
    )


def figure(value: Mapping[str, Any] | None, key: str, is_difference: bool = False, asked: int | None = None) -> Markup:
    """A table cell with a value and its interval; a difference carries its sign, p value and its direction's colour.

    A value measured on fewer questions than were `asked` says so.
    """
    if value is None:
        return Markup('<td class="muted">–</td>')
    sign = "+" if is_difference and value["value"] > 0 else ""
    has_interval = value["low"] is not None
    bounds = f"{number(value['low'], key)} to {number(value['high'], key)}" if has_interval else "no interval"
    if is_difference and value.get("p_holm") is not None:
        bounds += f", {in_p(value['p_holm'])}"
    if asked is not None and value["questions"] < asked:
        bounds += f" (of {value['questions']})"
    cell = Markup('<td class="{}">{}<br><small>{}</small></td>')
    return cell.format(value.get("direction") or "", sign + number(value["value"], key), bounds)


def plain(value: Any) -> str:
    """A setting or a figure as it is, without the digits that nobody reads."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def in_count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return "–" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share of one in per cent."""
    return "not measured" if value is None else f"{value:.1%}"


def in_bytes(value: float | None) -> str:
    """Bytes in the unit that fits."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.2f} GB"


def in_seconds(value: float | None) -> str:
    """Seconds in the unit that fits."""
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:,.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"
