"""One HTML page that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

_CSS = """
:root { --ink: #1f2933; --muted: #616e7c; --line: #e4e7eb; --accent: #0b6e99; --good: #2f855a; --bad: #b7791f }
* { box-sizing: border-box }
body { margin: 0; background: #f7f8fa; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main, header > div { max-width: 1080px; margin: 0 auto; padding: 0 28px }
header { background: #fff; border-bottom: 1px solid var(--line); padding: 30px 0 18px }
h1 { margin: 0; font-size: 25px; letter-spacing: -.01em }
header p { margin: 6px 0 0; color: var(--muted) }
nav { margin-top: 14px; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px }
a { color: var(--accent); text-decoration: none }
a:hover { text-decoration: underline }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 20px 24px; margin: 20px 0 }
h2 { margin: 0 0 10px; font-size: 19px }
h3 { margin: 22px 0 8px; font-size: 15.5px }
p { margin: 8px 0; max-width: 84ch }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(205px, 1fr)); gap: 14px; margin: 20px 0 0 }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 13px 16px }
.tile .name { color: var(--muted); font-size: 13px }
.tile .value { font-size: 25px; font-weight: 650; letter-spacing: -.02em; margin: 1px 0 }
.tile .note { color: var(--muted); font-size: 13px; line-height: 1.4 }
.good .value { color: var(--good) }
.bad .value { color: var(--bad) }
.figures { display: flex; flex-wrap: wrap; gap: 10px 16px; align-items: flex-end; margin: 12px 0 }
.figures img { max-width: 100%; height: auto }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13.5px; margin: 8px 0; min-width: 45% }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--muted); font-weight: 600; white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.ours td { font-weight: 650 }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace }
td code { overflow-wrap: anywhere }
pre { background: #f7f8fa; border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px; overflow-x: auto }
summary { cursor: pointer; color: var(--accent) }
footer { color: var(--muted); font-size: 13px; padding: 4px 0 34px }
@media print { body { background: #fff } section, .tile { break-inside: avoid } nav { display: none } }
"""


@dataclass(frozen=True)
class Html:
    """Markup that is ready for the page; every other value is escaped on its way in."""

    markup: str


def markup(value: object) -> str:
    """A value as HTML."""
    return value.markup if isinstance(value, Html) else escape(str(value))


def code(text: object) -> Html:
    """Text as it is typed."""
    return Html(f"<code>{escape(str(text))}</code>")


def paragraph(*parts: object) -> Html:
    """A paragraph of values, one after another."""
    return Html(f"<p>{''.join(map(markup, parts))}</p>")


def preformatted(text: str, summary: str) -> Html:
    """A block of text that opens on demand."""
    return Html(f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>")


def heading(text: str) -> Html:
    """The title of a part of a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def figures(*pictures: tuple[str, str]) -> Html:
    """Pictures side by side, each (SVG document, what a reader who cannot see it should know)."""
    images = (
        f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'
        for svg, alt in pictures
    )
    return Html(f'<div class="figures">{"".join(images)}</div>')


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Iterable[int] = (), ours: int | None = None
) -> Html:
    """A table (without ``head``: no header row); columns in ``numeric`` are flush right, row ``ours`` stands out."""
    right = set(numeric)

    def cells(values: Sequence[object], tag: str) -> str:
        kinds = (' class="n"' if place in right else "" for place in range(len(values)))
        return "".join(f"<{tag}{kind}>{markup(value)}</{tag}>" for kind, value in zip(kinds, values, strict=True))

    marks = (' class="ours"' if place == ours else "" for place in itertools.count())
    body = "".join(f"<tr{mark}>{cells(row, 'td')}</tr>" for mark, row in zip(marks, rows, strict=False))
    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if head else ""
    return Html(f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>')


@dataclass(frozen=True)
class Tile:
    """A figure of the summary. ``good``: whether it is what one hopes for (None: neither)."""

    name: str
    value: str
    note: str
    good: bool | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page, with an entry in its list of contents."""

    anchor: str
    title: str
    parts: Sequence[Html] = field(default_factory=tuple)


def render(title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section], footer: str) -> str:
    """The whole page as one HTML document."""
    mood = {True: " good", False: " bad", None: ""}
    shown = "".join(
        f'<div class="tile{mood[tile.good]}"><div class="name">{escape(tile.name)}</div>'
        f'<div class="value">{escape(tile.value)}</div><div class="note">{escape(tile.note)}</div></div>'
        for tile in tiles
    )
    links = "".join(f'<a href="#{escape(part.anchor)}">{escape(part.title)}</a>' for part in sections)
    bodies = "\n".join(
        f'<section id="{escape(part.anchor)}"><h2>{escape(part.title)}</h2>\n'
        + "\n".join(piece.markup for piece in part.parts)
        + "</section>"
        for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header><div><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><nav>{links}</nav></div></header>
<main>
<div class="tiles">{shown}</div>
{bodies}
<footer>{escape(footer)}</footer>
</main>
</body>
</html>
"""
