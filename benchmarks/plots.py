"""Two kinds of plot as SVG text: grouped bars, and lines over time."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 175, 40, 50
_COLOURS = ("#0b6e99", "#7f7f7f", "#e07b39", "#b5495b", "#5b8c5a", "#8568a8", "#c9a227", "#444444")


def bars(
    title: str,
    unit: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
) -> str:
    """Draw a group of bars for each entry of ``groups``, one bar a series.

    Args:
        title: above the plot.
        unit: of the values, at the left axis.
        groups: names below the groups.
        series: for each name, a value a group; None draws no bar.
    """
    top = _nice(max((v for values in series.values() for v in values if v is not None), default=1))
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    group_width = plot_width / max(1, len(groups))
    bar_width = 0.84 * group_width / max(1, len(series))
    parts = _frame(title, unit, top, list(series))
    for g, group in enumerate(groups):
        left = _LEFT + g * group_width + 0.08 * group_width
        for s, (name, values) in enumerate(series.items()):
            value = values[g]
            if value is None:
                continue
            tall = plot_height * value / top
            parts.append(
                f'<rect x="{left + s * bar_width:.1f}" y="{_TOP + plot_height - tall:.1f}"'
                f' width="{bar_width:.1f}" height="{tall:.1f}" fill="{_colour(s)}">'
                f"<title>{escape(f'{name}, {group}: {value:,.0f} {unit}')}</title></rect>"
            )
        middle = _LEFT + (g + 0.5) * group_width
        parts.append(_text(middle, HEIGHT - _BOTTOM + 20, group, "middle"))
    return _svg(parts)


def lines(
    title: str,
    unit: str,
    seconds: float,
    series: Mapping[str, Sequence[tuple[float, float]]],
) -> str:
    """Draw a line of ``(moment, value)`` points for each series.

    Args:
        title: above the plot.
        unit: of the values, at the left axis.
        seconds: the end of the time axis.
        series: the points by name, in order of time.
    """
    top = _nice(max((v for points in series.values() for _, v in points), default=1))
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    parts = _frame(title, unit, top, list(series))
    for s, points in enumerate(series.values()):
        path = " ".join(
            f"{_LEFT + plot_width * moment / seconds:.1f},"
            f"{_TOP + plot_height * (1 - value / top):.1f}"
            for moment, value in points
        )
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{_colour(s)}" stroke-width="2"/>'
        )
    for tick in range(int(seconds) + 1):
        x = _LEFT + plot_width * tick / seconds
        parts.append(_text(x, HEIGHT - _BOTTOM + 20, f"{tick} s", "middle"))
    return _svg(parts)


def _frame(title: str, unit: str, top: float, names: Sequence[str]) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
        _text(_LEFT, 33, unit, "start"),
    ]
    for step in range(6):
        y = bottom - (bottom - _TOP) * step / 5
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{top * step / 5:,.5g}", "end"))
    for s, name in enumerate(names):
        y = _TOP + 12 + 20 * s
        parts.append(f'<rect x="{right + 14}" y="{y - 9}" width="11" height="11"')
        parts[-1] += f' fill="{_colour(s)}"/>'
        parts.append(_text(right + 31, y, name, "start"))
    return parts


def _svg(parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#222222">'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _nice(value: float) -> float:
    """Return the next value of 1, 2, 2.5, 4, 5 or 10 times a power of ten."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value > 0:
        power /= 10
    return next((step * power for step in (1, 2, 2.5, 4, 5) if step * power >= value), 10 * power)
