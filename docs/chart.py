#!/usr/bin/env python3
"""Draws docs/src/cost.svg from loadtest/peers/results.md: CPU per message and memory per idle session.

  docs/chart.py            writes the chart
  docs/chart.py --check    exits with 1 if the committed chart differs

Needs nothing but Python. The chart carries its own background, so that it is legible on any page, and follows the
reader's light or dark setting.
"""

import html
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "loadtest/peers/results.md"
CHART = ROOT / "docs/src/cost.svg"

# Name in the results, name in the chart, class of the bar.
TARGETS = [
    ("relay", "bare TCP relay", "floor"),
    ("framegate", "framegate", "ours"),
    ("nginx", "nginx", "peer"),
    ("haproxy", "HAProxy", "peer"),
    ("envoy", "Envoy", "peer"),
]
# Section, column, title, subtitle, how a value is written.
PANELS = [
    ("64", "CPU us/message", "CPU per message", "64 B echo over 200 sessions",
     lambda us: f"{us:.2f} µs"),
    ("memory", "bytes/session", "Memory per idle session", "user memory, 8,000 sessions",
     lambda size: f"{size:,.0f} B" if size < 1024 else f"{size / 1024:.1f} KiB"),
]

WIDTH, PANEL, LABEL, BAR, STEP, TOP = 820, 370, 108, 18, 28, 84
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 12px }
  .bold { font-weight: 600 }
  .floor { fill: #d1d9e0 } .peer { fill: #9aa4ae } .ours { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .quiet { fill: #9198a1 }
    .floor { fill: #3d444d } .peer { fill: #656c76 } .ours { fill: #4493f8 }
  }
"""


def column(text, section, name):
    """Values of one column in the first table of a section, by target."""
    body = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if body is None:
        sys.exit(f"{RESULTS.name}: no section {section}")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body[1].splitlines() if line[:1] == "|"]
    if not rows or name not in rows[0]:
        sys.exit(f"{RESULTS.name}: no column {name} in section {section}")
    at = rows[0].index(name)
    return {row[0]: float(row[at]) for row in rows[2:]}


def panel(left, values, title, subtitle, written):
    most = max(values[target] for target, _, _ in TARGETS)
    space = PANEL - LABEL - 74
    out = [
        f'<text class="title" x="{left}" y="36">{html.escape(title)}</text>',
        f'<text class="quiet" x="{left}" y="56">{html.escape(subtitle)}</text>',
    ]
    for n, (target, name, kind) in enumerate(TARGETS):
        y, value = TOP + n * STEP, values[target]
        width = max(2, round(space * value / most, 1))
        bold = ' class="bold"' if kind == "ours" else ""
        out += [
            f'<text{bold} x="{left + LABEL - 10}" y="{y + 13}" text-anchor="end">{name}</text>',
            f'<rect class="{kind}" x="{left + LABEL}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
            f'<text{bold} x="{left + LABEL + width + 8}" y="{y + 13}">{written(value)}</text>',
        ]
    return out


def chart(text):
    height = TOP + len(TARGETS) * STEP + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        "<title>CPU per message and memory per idle session of framegate, nginx, HAProxy and Envoy</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for n, (section, name, *words) in enumerate(PANELS):
        out += panel(24 + n * (PANEL + 32), column(text, section, name), *words)
    out.append(
        f'<text class="quiet" x="24" y="{height - 18}">Shorter is better. One worker each, same machine, same run; '
        "plain WebSocket; drawn from loadtest/peers/results.md.</text>"
    )
    return "\n".join(out + ["</svg>", ""])


def main():
    drawn = chart(RESULTS.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--check"]:
        if not CHART.exists() or CHART.read_text(encoding="utf-8") != drawn:
            sys.exit(f"{CHART.relative_to(ROOT)} is out of date: run docs/chart.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        CHART.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
