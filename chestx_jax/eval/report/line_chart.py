"""Line charts as inline SVG: no script, colours from the page's style sheet, described in words for screen readers."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 360.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 16.0, 8.0, 34.0  # margins, which hold the axes' numbers
MAX_POINTS = 240  # of a line; more are averaged


def line_chart(title: str, unit: str, series: Mapping[str, Points]) -> str:
    """A figure of one or more lines over the training step, with axes, a grid, and a legend with each last value.

    Args:
      title: what is drawn. unit: of the values.
      series: name -> (step, value) in order of steps, none empty; lines differ by colour and by dashes.
    """
    everything = [point for points in series.values() for point in points]
    last_step = max(x for x, _ in everything)
    x_ticks = [tick for tick in ticks(0.0, last_step, 4) if tick <= last_step]
    y_ticks = ticks(*_value_range([y for _, y in everything]), 4)
    x_of = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * x / last_step  # noqa: E731
    y_of = lambda y: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])  # noqa: E731
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    shapes = [f'<path class="grid" d="M{LEFT:.0f} {y_of(y):.1f}H{right:.0f}"/>' for y in y_ticks]
    shapes += [f'<text class="y" x="{LEFT - 6:.0f}" y="{y_of(y) + 4:.1f}">{_number(y)}</text>' for y in y_ticks]
    shapes += [f'<text class="x" x="{x_of(x):.1f}" y="{bottom + 15:.0f}">{_number(x)}</text>' for x in x_ticks]
    shapes.append(f'<text class="x" x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 4:.0f}">step</text>')
    for number, points in enumerate(series.values()):
        place = [(x_of(x), y_of(y)) for x, y in downsampled(points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in place)
        shapes.append(f'<path class="line s{number}" d="{path}"/>')
        shapes.append(f'<circle class="s{number}" cx="{place[-1][0]:.1f}" cy="{place[-1][1]:.1f}" r="2.5"/>')
    label = escape(f"{title}, {unit}: {_in_words(series)}")
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b> <span class="dim">{escape(unit)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
        f"{_legend(series)}</figure>"
    )


def downsampled(points: Points, limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means of equally long runs of points."""
    size = math.ceil(len(points) / limit)
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in equal steps of 1, 2 or 5 times a power of ten, from `low` or below to `high` or
    above."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= span / count * 0.75)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _value_range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest value, from 0 where the least is not far from it."""
    low, high = min(values), max(values)
    return (0.0 if 0 <= low < 0.6 * high else low), high


def _number(value: float) -> str:
    """A tick in few characters: 1200, 0.25, 2e-05."""
    text = f"{value:.0e}".replace("e-0", "e-") if value and abs(value) < 1e-3 else f"{value:.6g}"
    return text.replace("-", "−")


def _legend(series: Mapping[str, Points]) -> str:
    entries = [
        f'<li><svg viewBox="0 0 22 8" aria-hidden="true"><path class="line s{number}" d="M1 4H21"/></svg>'
        f"{escape(name)} <b>{_rounded(points[-1][1])}</b></li>"
        for number, (name, points) in enumerate(series.items())
    ]
    return f'<ul class="key">{"".join(entries)}</ul>'


def _rounded(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _in_words(series: Mapping[str, Points]) -> str:
    parts = []
    for name, points in series.items():
        (first_step, first), (last_step, last) = points[0], points[-1]
        parts.append(f"{name} from {first:.3g} at step {first_step:g} to {last:.3g} at step {last_step:g}")
    return "; ".join(parts)
