"""Bar charts as SVG: one panel a figure, readable on light and on dark pages, no other files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH, _COLUMNS = 860, 2
_LABEL, _VALUE, _MARGIN = 82, 96, 16
_BAR, _STEP, _TITLE = 14, 20, 34
_STYLE: Final = """
  .page { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif }
  .title { font-weight: 600 } .first { fill: #0969da } .second { fill: #8ab8ea }
  .other { fill: #8c959f } .other2 { fill: #c8cdd3 } .axis { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .first { fill: #4493f8 }
    .second { fill: #264f86 } .other { fill: #7d8590 } .other2 { fill: #444c56 }
    .axis { stroke: #3d444d }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: one value, or two, the second behind the first.

    Args:
        label: before it.
        values: how long its parts are.
        text: behind it.
        first: whether it stands out.
    """

    label: str
    values: Sequence[float]
    text: str
    first: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars with one scale."""

    title: str
    bars: Sequence[Bar]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels, two beside each other.

    Args:
        title: for those who cannot see it.
        panels: from left to right, then down.
    """
    rows = [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    y = _MARGIN
    parts: list[str] = []
    for row in rows:
        for column, panel in enumerate(row):
            parts += _panel(panel, _MARGIN + column * (_WIDTH - _MARGIN) // _COLUMNS, y)
        y += _TITLE + _STEP * max(len(panel.bars) for panel in row) + _MARGIN
    size = f'width="{_WIDTH}" height="{y}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" {size} rx="6"/>',
    ]
    return "\n".join([*head, *parts, "</svg>\n"])


def _panel(panel: Panel, x: int, y: int) -> list[str]:
    longest = max((sum(bar.values) for bar in panel.bars), default=0.0) or 1.0
    room = (_WIDTH - _MARGIN) // _COLUMNS - _MARGIN - _LABEL - _VALUE
    start = x + _LABEL
    lines = [f'<text class="title" x="{x}" y="{y + 14}">{escape(panel.title)}</text>']
    top = y + _TITLE - 8
    height = _STEP * len(panel.bars)
    lines.append(f'<path class="axis" d="M{start - 0.5} {top}v{height}"/>')
    for number, bar in enumerate(panel.bars):
        middle = top + _STEP * number + _STEP / 2
        at = float(start)
        lines.append(
            f'<text x="{start - 6}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>'
        )
        kinds = ("first", "second") if bar.first else ("other", "other2")
        for value, kind in zip(bar.values, kinds, strict=False):
            width = room * value / longest
            lines.append(
                f'<rect class="{kind}" x="{at:.1f}" y="{middle - _BAR / 2}" '
                f'width="{width:.1f}" height="{_BAR}"/>'
            )
            at += width
        lines.append(f'<text x="{at + 6:.1f}" y="{middle + 4}">{escape(bar.text)}</text>')
    return lines
