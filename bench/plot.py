"""`python -m bench plot FIGURES.json PLOT.svg`: the ratios that `bench edge --json` wrote as bars with their spread;
and as rows for `docs/performance.md`, on stdout.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.rounds import BOTTLENECK

WIDTH, LABEL, VALUE, ROW, TOP = 860, 230, 130, 24, 44
STYLE = (
    "text{font:13px sans-serif;fill:#222}.small{font-size:11px;fill:#666}.ours{fill:#3b6ea5}.other{fill:#a8a8a8}"
    "line{stroke:#222;stroke-width:1.4}.grid{stroke:#ddd;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}line{stroke:#ddd}.grid{stroke:#444}}"
)


def svg(found: dict[str, Any]) -> str:
    """The plot: a bar from nothing to the median of each row, a line from its least to its greatest ratio."""
    rows, versions = found["rows"], found["versions"]
    most = max(row["greatest"] for row in rows)
    scale = (WIDTH - LABEL - VALUE) / most
    height = TOP + ROW * len(rows) + 34
    end = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<text x="0" y="18">CPU per call, as a multiple of {escape(found["reference"])}\'s in the same round</text>',
        f'<text x="0" y="{height - 6}" class="small">{escape(_told(found, versions))}</text>',
    ]
    step = next(one for one in (0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if most / one <= 9)
    for number in range(int(most / step) + 1):
        at = LABEL + number * step * scale
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{end}"/>')
        parts.append(f'<text class="small" x="{at:.1f}" y="{TOP - 10}" text-anchor="middle">{number * step:g}</text>')
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        kind = "ours" if row["name"].startswith("fastgw") else "other"
        least, greatest = (LABEL + row[name] * scale for name in ("least", "greatest"))
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(row["name"])}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y + 3}" width="{row["ratio"] * scale:.1f}" height="{ROW - 8}"/>',
            f'<line x1="{least:.1f}" x2="{greatest:.1f}" y1="{y + 11}" y2="{y + 11}"/>',
            f'<text x="{WIDTH - VALUE + 12}" y="{y + 15}">{row["ratio"]:.2f}x, {row["cpu"]:.0f} us</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def markdown(found: dict[str, Any]) -> list[str]:
    """A row each: CPU, ratio, spread, and milliseconds of the open loop (p50, p99, p99.9) if there is one."""
    lines = []
    for row in found["rows"]:
        slow = found["open_loop"].get(row["name"], {"generator": 1.0})
        times = (
            ["-"] * 3
            if slow["generator"] > BOTTLENECK
            else [f"{slow[f'{share}_us'] / 1e3:.2f}" for share in ("p50", "p99", "p99.9")]
        )
        spread = f"{row['least']:.2f} - {row['greatest']:.2f}"
        cells = [
            f"`{row['name']}`",
            f"{row['cpu']:.0f}",
            f"{row['ratio']:.2f} ({spread})",
            f"{row['busy']:.0%}",
            *times,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _told(found: dict[str, Any], versions: dict[str, str]) -> str:
    load = f"load average {found['load'][0]:.1f}"
    return f"bars: medians of {found['rounds']} rounds; lines: least to greatest; {load}; {versions['python']}"


def main(argv: list[str]) -> int:
    """Read the one, write the other, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench plot", description=__doc__.split("\n")[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("plot", type=Path)
    args = parser.parse_args(argv)
    found = json.loads(args.figures.read_text())
    args.plot.write_text(svg(found))
    print("\n".join(markdown(found)))
    return 0
