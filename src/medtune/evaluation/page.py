"""What all of medtune's HTML pages have in common: one style sheet, one template engine, one way to write a figure.

Covered: pages that open offline, whose data and model text are escaped by the template engine. Not covered: what a
page shows (`report`, `audit`, `compare`, `sweep`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medtune.evaluation.metrics import METRICS


def render(template: str, **values: Any) -> str:
    """The page that `template` makes of `values`."""
    environment = Environment(
        loader=PackageLoader("medtune.evaluation", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=number, bytes=in_bytes, seconds=in_seconds, count=in_count, share=share, plain=plain
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.globals.update(metrics=METRICS, figure=figure)
    source, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template(template).render(style=Markup(source), **values)


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


def figure(value: Mapping[str, Any] | None, key: str, is_difference: bool = False) -> Markup:
    """A table cell with a value and its interval; a difference carries its sign and its direction's colour."""
    if value is None:
        return Markup('<td class="muted">–</td>')
    sign = "+" if is_difference and value["value"] > 0 else ""
    has_interval = value["low"] is not None
    bounds = f"{number(value['low'], key)} to {number(value['high'], key)}" if has_interval else "no interval"
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
