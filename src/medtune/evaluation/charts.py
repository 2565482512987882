"""The report's pictures as inline SVG: bars with intervals, and curves. Colours and sizes are the style sheet's.

Covered: plain shapes with classes, labels in the picture, a title and description for screen readers. Not covered:
colours, dark mode, layout (`report.css`). Each picture is drawn 360 units wide, a phone's width, so that its text
stays legible there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH = 360
LABEL, VALUE, ROW = 72, 58, 26
Point = tuple[float, float]


def bars(title: str, values: Mapping[str, Mapping[str, float | None] | None], show: Callable[[float], str]) -> Markup:
    """One bar per system with its interval as a whisker; a system without a measurement says so."""
    shown = [value for value in values.values() if value]
    top = max([_bound(value, "high") for value in shown], default=0.0) or 1.0
    scale = (WIDTH - LABEL - VALUE) / top
    rows = [_bar(index, name, value, scale, show) for index, (name, value) in enumerate(values.items())]
    return _svg(f"{title} by system", ROW * len(values) + 4, rows)


def _bar(
    index: int, name: str, value: Mapping[str, float | None] | None, scale: float, show: Callable[[float], str]
) -> str:
    middle = index * ROW + ROW / 2 + 2
    label = f'<text x="0" y="{middle + 4:g}" class="label">{escape(name)}</text>'
    if value is None or value["value"] is None:
        return label + f'<text x="{LABEL}" y="{middle + 4:g}" class="muted">not measured</text>'
    width, low, high = (LABEL + _bound(value, key) * scale for key in ("value", "low", "high"))
    long = max(width - LABEL, 0.5)
    bar = f'<rect x="{LABEL}" y="{middle - 8:g}" width="{long:.1f}" height="16" rx="2" class="bar {escape(name)}"/>'
    whisker = f"M{low:.1f} {middle:g}H{high:.1f}M{low:.1f} {middle - 4:g}v8M{high:.1f} {middle - 4:g}v8"
    text = f'<text x="{WIDTH}" y="{middle + 4:g}" class="value">{escape(show(value["value"]))}</text>'
    return label + bar + (f'<path d="{whisker}" class="whisker"/>' if value["low"] is not None else "") + text


def _bound(value: Mapping[str, float | None], key: str) -> float:
    bound = value[key]
    return float(bound if bound is not None else value["value"] or 0.0)


def forest(title: str, differences: Mapping[str, Mapping[str, Any] | None]) -> Markup:
    """One line per difference: a dot, its interval as a whisker, and the zero that it must leave out."""
    rows = {name: value for name, value in differences.items() if value}
    if not rows:
        return Markup("")
    bounds = [_bound(value, key) for value in rows.values() for key in ("value", "low", "high")]
    low, high, ticks = _axis([*bounds, 0.0], 4)
    tall = 34

    def place(value: float) -> float:
        return 6 + (value - low) / (high - low) * (WIDTH - 12)

    foot = tall * len(rows) + 18
    parts = [f'<text x="{place(tick):.1f}" y="{foot}" class="tick middle">{tick:+g}</text>' for tick in ticks]
    parts.append(f'<path d="M{place(0):.1f} 2V{foot - 12}" class="grid"/>')
    for index, (name, value) in enumerate(rows.items()):
        top, left, middle, right = index * tall, *(place(_bound(value, key)) for key in ("low", "value", "high"))
        kind = escape(value.get("direction") or "")
        text = f"{value['value']:+.3f}"
        parts.append(f'<text x="0" y="{top + 13}" class="label">{escape(name)}</text>')
        parts.append(f'<text x="{WIDTH}" y="{top + 13}" class="value">{text}</text>')
        if value["low"] is not None:
            parts.append(f'<path d="M{left:.1f} {top + 24}H{right:.1f}" class="whisker {kind}"/>')
        parts.append(f'<circle cx="{middle:.1f}" cy="{top + 24}" r="4" class="point {kind}"/>')
    return _svg(title, foot + 4, parts)


def curves(title: str, across: str, lines: Mapping[str, Sequence[Point]]) -> Markup:
    """Lines over `across`, each named at the top; single points are drawn as dots."""
    height, left, bottom, head = 210, 44, 34, 22
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    low_x, high_x, ticks_x = _axis([x for x, _ in points], 5)
    low_y, high_y, ticks_y = _axis([y for _, y in points], 4)

    def place(x: float, y: float) -> Point:
        across_share, up_share = (x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y)
        return left + across_share * (WIDTH - left - 8), height - bottom - up_share * (height - bottom - head - 6)

    parts = []
    for tick in ticks_y:
        y = place(low_x, tick)[1]
        parts.append(f'<path d="M{left} {y:.1f}H{WIDTH - 8}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick end">{tick:g}</text>')
    for tick in ticks_x:
        parts.append(
            f'<text x="{place(tick, low_y)[0]:.1f}" y="{height - bottom + 15}" class="tick middle">{tick:g}</text>'
        )
    parts.append(f'<text x="{WIDTH - 8}" y="{height - 3}" class="tick end">{escape(across)}</text>')
    for index, (name, line) in enumerate(lines.items()):
        placed = [place(x, y) for x, y in line]
        parts.append(f'<path d="M{left + index * 110} 8h18" class="line line{index}"/>')
        parts.append(f'<text x="{left + 23 + index * 110}" y="12" class="label">{escape(name)}</text>')
        parts.append(f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in placed)}" class="line line{index}"/>')
        if len(placed) <= 30:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="dot line{index}"/>' for x, y in placed]
    return _svg(title, height, parts)


def histogram(title: str, edges: Sequence[float], counts: Sequence[int]) -> Markup:
    """One column per bin, equally wide whatever its edges say; the edges stand below."""
    height, bottom, top = 150, 34, max([*counts, 1])
    step = WIDTH / max(len(counts), 1)
    parts = []
    for index, count in enumerate(counts):
        tall = (height - bottom - 16) * count / top
        x = index * step
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{height - bottom - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" '
            'class="bar data"/>'
        )
        parts.append(f'<text x="{x + 1:.1f}" y="{height - bottom + 13}" class="tick">{_short(edges[index])}</text>')
    parts.append(f'<text x="{WIDTH}" y="{height - 3}" class="tick end">words per answer, from</text>')
    return _svg(title, height, parts)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _axis(values: Sequence[float], ticks: int) -> tuple[float, float, list[float]]:
    """Bounds around `values` and round numbers between them, about `ticks` many."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - abs(low) / 2, high + (abs(high) / 2 or 1.0)
    raw = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return low, high, [round(number * step, 10) for number in range(first, last + 1)]


def _svg(title: str, height: float, parts: Sequence[Any]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )
