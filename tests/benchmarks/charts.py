"""Draws charts as SVG, without a library: lines in grey, blue and orange that a page can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, log10

WIDTH, HEIGHT = 640, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 44, 44
COLOURS = ("#1a73e8", "#e8710a", "#188038", "#9aa0a6", "#a142f4")
BINS = 40
CUT = 0.998
"""The last few of many values are left out, so that the others can be told apart."""

Line = list[tuple[float, float]]


def histogram(series: Mapping[str, Sequence[float]], x: str, y: str) -> str:
    """Draws how many there are of each value."""
    most = max(_cut(values) for values in series.values())
    width = max(1, round(most / BINS))
    lines: dict[str, Line] = {}
    for name, values in series.items():
        counted = Counter(int(value // width) for value in values)
        bins = range(int(most // width) + 2)
        lines[name] = [(number * width, counted[number]) for number in bins]
    return _chart(lines, x, y, most)


def cumulative(series: Mapping[str, Sequence[float]], x: str, y: str) -> str:
    """Draws which share of the values is at most so much."""
    most = max(_cut(values) for values in series.values()) or 1.0
    lines: dict[str, Line] = {}
    for name, values in series.items():
        ranked = sorted(values)
        points = [int(share * (len(ranked) - 1) / 200) for share in range(201)]
        line = [(ranked[at], 100 * (at + 1) / len(ranked)) for at in points]
        lines[name] = [point for point in line if point[0] <= most]
    return _chart(lines, x, f"% of {y}", most)


def over_time(lines: Mapping[str, Line], x: str, y: str) -> str:
    """Draws figures as they were at many moments."""
    return _chart(lines, x, y, max(line[-1][0] for line in lines.values()))


def growth(line: Sequence[tuple[float, float]], x: str, y: str) -> str:
    """Draws a curve over powers of ten, from one to what is next to its highest."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    across, up = (ceil(max(log10(max(point[i] for point in line)), 1)) for i in (0, 1))

    def place(a: float, b: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * a / across, bottom - (bottom - TOP) * b / up

    parts = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444"/>']
    parts += [_text(place(n, 0)[0], bottom + 16, f"{10**n:,}", "middle") for n in range(across + 1)]
    parts += [_text(LEFT - 6, place(0, n)[1] + 4, f"{10**n:,}", "end") for n in range(up + 1)]
    points = [place(log10(a), log10(max(b, 1))) for a, b in line]
    told = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    parts.append(f'<polyline points="{told}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>')
    for (a, b), (_, figure) in zip(points, line, strict=True):
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[0]}"/>')
        parts.append(_text(a, b - 8, f"{figure:,.0f}", "middle", COLOURS[0]))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x, "middle"))
    parts.append(_text(8, TOP - 22, y, "start"))
    return "\n".join(parts)


def stacked(charts: Sequence[str]) -> str:
    """Puts charts below one another."""
    height = HEIGHT * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        '<g font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, chart in enumerate(charts):
        parts.append(f'<g transform="translate(0 {number * HEIGHT})">{chart}</g>')
    return "\n".join([*parts, "</g>", "</svg>\n"])


def _cut(values: Sequence[float]) -> float:
    ranked = sorted(values)
    return ranked[int((len(ranked) - 1) * CUT)]


def _chart(lines: Mapping[str, Line], x: str, y: str, most: float) -> str:
    high = max((point[1] for line in lines.values() for point in line), default=1) or 1
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(point: tuple[float, float]) -> str:
        across = LEFT + (right - LEFT) * min(point[0] / (most or 1), 1)
        return f"{across:.1f},{bottom - (bottom - TOP) * point[1] / high:.1f}"

    parts = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444"/>']
    for step in range(5):
        value = most * step / 4
        across, up = LEFT + (right - LEFT) * step / 4, bottom - (bottom - TOP) * step / 4
        parts.append(_text(across, bottom + 16, f"{value:,.0f}", "middle"))
        parts.append(_text(LEFT - 6, up + 4, f"{high * step / 4:,.0f}", "end"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x, "middle"))
    parts.append(_text(8, TOP - 10, y, "start"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(map(place, line))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(_text(LEFT + 140 * number, 16, f"— {name}", "start", colour))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#444") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
