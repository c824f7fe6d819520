"""Small plots as SVG, drawn by hand: a plotting library is not worth its weight for these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_SIDE, _GAP, _LEFT, _TOP = 200.0, 60.0, 50.0, 46.0
_INK, _FAINT, _MARK = "#333333", "#cccccc", "#1f6feb"


@dataclass(frozen=True, slots=True)
class Dot:
    """A share seen at a share foretold, with its interval; all are 0 to 1."""

    foretold: float
    seen: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: its name, its dots and what is written below."""

    name: str
    dots: Sequence[Dot]
    note: str


def reliability(panels: Sequence[Panel], *, columns: int = 3) -> str:
    """Return reliability diagrams side by side: what was foretold across, what was seen up."""
    rows = -(-len(panels) // columns)
    wide = _LEFT + min(columns, len(panels)) * (_SIDE + _GAP)
    high = _TOP + rows * (_SIDE + _GAP + 20)
    drawn = [
        f'<g transform="translate({_LEFT + place % columns * (_SIDE + _GAP):g} '
        f'{_TOP + place // columns * (_SIDE + _GAP + 20):g})">{_panel(panel)}</g>'
        for place, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" '
        f'width="{wide:g}" height="{high:g}" font-family="sans-serif" font-size="11" '
        f'fill="{_INK}"><rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One router's points, (across, up), in their order; a single one is drawn as a dot."""

    name: str
    points: Sequence[tuple[float, float]]


_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a")
_WIDE, _HIGH = 520.0, 340.0


def curves(lines: Sequence[Line], *, across: str, up: str) -> str:
    """Return lines in one frame, with a legend below."""
    every = [point for line in lines for point in line.points]
    left, right = _span([x for x, _ in every])
    low, high = _span([y for _, y in every])

    def placed(point: tuple[float, float]) -> tuple[float, float]:
        x = (point[0] - left) / (right - left) * _WIDE
        return x, (high - point[1]) / (high - low) * _HIGH

    drawn = [
        _curve([placed(point) for point in line.points], _COLOURS[at % len(_COLOURS)])
        for at, line in enumerate(lines)
    ]
    told = [
        f'<rect x="{at % 2 * _WIDE / 2:g}" y="{_HIGH + 49 + at // 2 * 16:g}" width="14" height="4" '
        f'fill="{_COLOURS[at % len(_COLOURS)]}"/>'
        + _text(at % 2 * _WIDE / 2 + 20, _HIGH + 54 + at // 2 * 16, line.name, "start")
        for at, line in enumerate(lines)
    ]
    scale = "".join(
        _text(share * _WIDE, _HIGH + 14, f"{left + share * (right - left):.2f}", "middle")
        + _text(-6, (1 - share) * _HIGH + 4, f"{low + share * (high - low):.2f}")
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    frame = f'<rect width="{_WIDE:g}" height="{_HIGH:g}" fill="none" stroke="{_FAINT}"/>'
    named = _text(_WIDE / 2, _HIGH + 32, across, "middle") + _text(0, -10, up, "start")
    wide, tall = _WIDE + 80, _HIGH + 110 + 16 * (len(lines) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {tall:g}" '
        f'width="{wide:g}" height="{tall:g}" font-family="sans-serif" font-size="11" '
        f'fill="{_INK}"><rect width="100%" height="100%" fill="white"/>'
        f'<g transform="translate(50 30)">{frame}{scale}{named}{"".join(drawn + told)}</g></svg>\n'
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _curve(points: Sequence[tuple[float, float]], colour: str) -> str:
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points
    )
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{way}" fill="none" stroke="{colour}"/>{dots}'


def _panel(panel: Panel) -> str:
    frame = f'<rect width="{_SIDE:g}" height="{_SIDE:g}" fill="none" stroke="{_FAINT}"/>'
    even = _line((0.0, 0.0), (1.0, 1.0), _FAINT)
    scale = "".join(
        _text(_SIDE * at, _SIDE + 14, f"{at:g}", "middle")
        + _text(-6, _SIDE * (1 - at) + 4, f"{at:g}")
        for at in (0.0, 0.5, 1.0)
    )
    dots = "".join(_dot(dot) for dot in panel.dots)
    told = _text(0, -10, panel.name, "start", "bold") + _text(0, _SIDE + 30, panel.note, "start")
    return frame + even + scale + dots + told


def _dot(dot: Dot) -> str:
    x, y = _place(dot.foretold, dot.seen)
    bar = _line((dot.foretold, dot.low), (dot.foretold, dot.high), _MARK)
    return f'{bar}<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_MARK}"/>'


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    (x1, y1), (x2, y2) = _place(*start), _place(*end)
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _place(across: float, up: float) -> tuple[float, float]:
    return _SIDE * across, _SIDE * (1 - up)


def _text(x: float, y: float, text: str, anchor: str = "end", weight: str = "normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
