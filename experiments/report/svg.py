"""Small charts as SVG within an HTML page. Their text can be selected, and their colours follow the page."""

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 46


class Series(NamedTuple):
    """A line of steps: y[i] holds for x in (x[i - 1], x[i]].

    band: lower and upper ends of a band around y; None without one.
    """

    name: str
    style: object
    x: Sequence[float]
    y: Sequence[float]
    band: tuple | None = None


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis from `start` to `end`, with its label."""

    label: str
    start: int | float
    end: int | float

    def scaled(self, values):
        """Values on a scale that is linear along the axis."""
        return np.asarray(values, float)

    def place(self, values):
        """Positions of values along the axis, from 0 to 1."""
        start, end = self.scaled([self.start, self.end])
        return np.clip((self.scaled(values) - start) / (end - start), 0, 1)

    def cut(self, bins):
        """The ends of `bins` parts of equal length."""
        return np.linspace(self.start, self.end, bins + 1)

    def ticks(self) -> list:
        """Round numbers to label."""
        step = 10.0 ** math.floor(math.log10((self.end - self.start) / 4))
        step *= next(m for m in (1, 2, 2.5, 5, 10) if (self.end - self.start) / (m * step) <= 6)
        first = math.ceil(self.start / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.end / step + 1e-9) + 1)]


class Logarithmic(Axis):
    """An axis of positive numbers."""

    def scaled(self, values):
        return np.log(values)

    def cut(self, bins):
        return np.geomspace(self.start, self.end, bins + 1)

    def ticks(self):
        ticks = [m * 10.0**e for e in range(-5, 5) for m in (1, 2, 3, 5, 7)]
        ticks = [tick for tick in ticks if self.start <= tick <= self.end]
        while len(ticks) > 8:
            ticks = ticks[::2]
        return ticks


class Nines(Axis):
    """An axis of probabilities below 1, with 0.9, 0.99 and 0.999 equally far apart."""

    def scaled(self, values):
        return -np.log10(1 - np.asarray(values, float))

    def ticks(self):
        ticks = [0.5, 0.8, *(1 - 10.0**-e for e in range(1, 8))]
        return [tick for tick in ticks if self.start <= tick <= self.end]


def steps(series: Sequence[Series], x: Axis, y: Axis, title: str) -> str:
    """A chart of lines of steps, with a legend below if there are several."""
    parts = [_frame(x, y)]
    for one in series:
        if one.band is not None:
            parts.append(f'<path class="band" fill="{one.style.colour}" d="{_band(one, x, y)}"/>')
    for one in series:
        parts.append(f'<path class="line" {_stroke(one.style)} d="{_line(one.x, one.y, x, y)}"/>')
    return _figure(parts, series, title)


def lines(series: Sequence[Series], x: Axis, y: Axis, title: str) -> str:
    """A chart of straight lines between points, with a legend below it."""
    parts = [_frame(x, y)]
    for one in series:
        points = zip(_across(x, one.x).tolist(), _down(y, one.y).tolist())
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down in points)
        parts.append(f'<path class="line" {_stroke(one.style)} d="M{path}"/>')
    return _figure(parts, series, title)


def histogram(values: Sequence[tuple], x: Axis, title: str, bins: int = 24) -> str:
    """A histogram, in shares of the images, of each of `values`: (name, style, numbers, number of images)."""
    ends = np.linspace(0, 1, bins + 1)
    shares = [np.histogram(x.place(numbers), ends)[0] / images for _, _, numbers, images in values]
    at = x.cut(bins)
    y = Axis("share of the images", 0, max(max(share.max() for share in shares) * 1.08, 0.01))
    series = []
    for (name, style, _, _), share in zip(values, shares):
        series.append(Series(name, style, np.append(at, x.end), [0.0, *share, 0.0]))
    parts = [_frame(x, y)]
    for one in series:
        parts.append(f'<path class="band" fill="{one.style.colour}" d="{_line(one.x, one.y, x, y)}Z"/>')
    parts += [f'<path class="line" {_stroke(one.style)} d="{_line(one.x, one.y, x, y)}"/>' for one in series]
    return _figure(parts, series, title)


def _figure(parts, series, title):
    said = html.escape(title)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}"'
    chart = f"<svg {box}><title>{said}</title>{''.join(parts)}</svg>"
    keys = "".join(
        f'<li><svg viewBox="0 0 34 10" aria-hidden="true"><path class="line" {_stroke(one.style)} d="M1 5H33"/></svg>'
        f"{html.escape(one.name)}</li>"
        for one in series
    )
    return f'<div class="chart">{chart}</div><ul class="legend">{keys}</ul>'


def _frame(x, y):
    """Grid, axes, numbers and labels."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick, at in zip(x.ticks(), _across(x, x.ticks())):
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:.6g}</text>')
    for tick, at in zip(y.ticks(), _down(y, y.ticks())):
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<text x="{middle[0]}" y="{HEIGHT - 8}" text-anchor="middle" class="label">{html.escape(x.label)}</text>'
        f'<text transform="translate(14 {middle[1]}) rotate(-90)" text-anchor="middle" class="label">'
        f"{html.escape(y.label)}</text>"
    )
    return "".join(parts)


def _across(axis, values):
    return LEFT + (WIDTH - LEFT - RIGHT) * axis.place(values)


def _down(axis, values):
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis.place(values)


def _line(xs, ys, x, y):
    across, down = _across(x, xs).tolist(), _down(y, ys).tolist()
    parts = [f"M{across[0]:.1f} {down[0]:.1f}"]
    for before, here, level in zip(down, across[1:], down[1:]):
        parts.append(("" if f"{level:.1f}" == f"{before:.1f}" else f"V{level:.1f}") + f"H{here:.1f}")
    return "".join(parts)


def _band(one, x, y):
    """The outline of a band: forward along the upper ends, back along the lower ones."""
    low, high = one.band
    forth = _line(one.x, high, x, y)
    across, down = _across(x, one.x).tolist()[::-1], _down(y, low).tolist()[::-1]
    back = [f"V{down[0]:.1f}"]
    for level, here in zip(down, across[1:]):
        back.append(f"V{level:.1f}H{here:.1f}")
    return forth + "".join(back) + "Z"


def _stroke(style):
    dash = f' stroke-dasharray="{" ".join(f"{2 * length:g}" for length in style.dash)}"' if style.dash else ""
    return f'stroke="{style.colour}"{dash}'
