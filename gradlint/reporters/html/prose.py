"""The Markdown of the rules' pages as HTML: what those pages use, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

_BLOCK = re.compile(
    r"(?P<heading>^\#{1,6} .*\n?)|(?P<table>(?:^\|.*\n?)+)"
    r"|(?P<list>(?:^- .*\n?(?:^ +\S.*\n?)*)+)|(?P<text>(?:^(?!\#{1,6} |\||- ).*\S.*\n?)+)",
    re.MULTILINE,
)
_FENCE = re.compile(r"^```.*?^```[^\n]*\n?", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\$([^$\n]+)\$")


def html(markdown: str, *, level: int = 4) -> Markup:
    """Return `markdown` as HTML, its headings at `level`; what it quotes is escaped."""
    parts: list[Markup] = []
    place = 0
    for fence in _FENCE.finditer(markdown):
        parts += _blocks(markdown[place : fence.start()], level)
        code = "\n".join(fence[0].rstrip("\n").split("\n")[1:-1])
        parts.append(Markup('<pre tabindex="0"><code>{}</code></pre>').format(code))
        place = fence.end()
    parts += _blocks(markdown[place:], level)
    return Markup("\n").join(parts)


def _blocks(text: str, level: int) -> Iterator[Markup]:
    for match in _BLOCK.finditer(text):
        block, kind = match[0].strip("\n"), match.lastgroup
        if not block.strip():
            continue
        if kind == "heading":
            yield Markup("<h{0}>{1}</h{0}>").format(level, span(block.lstrip("# ")))
        elif kind == "table":
            yield _table(block)
        elif kind == "list":
            items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
            rows = Markup("").join(Markup("<li>{}</li>").format(span(i)) for i in items)
            yield Markup("<ul>{}</ul>").format(rows)
        else:
            yield Markup("<p>{}</p>").format(span(block))


def _table(block: str) -> Markup:
    head, _, *body = (line.strip().strip("|").split("|") for line in block.split("\n"))
    heads = Markup("").join(Markup("<th>{}</th>").format(span(c.strip())) for c in head)
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(span(c.strip())) for c in row)
        )
        for row in body
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(heads, rows)


def span(text: str) -> Markup:
    """Return `text` with its `code`, **strong** words and $formulas$ marked."""
    parts: list[Markup] = []
    place = 0
    for match in _SPAN.finditer(text):
        parts.append(escape(text[place : match.start()]))
        code, strong, formula = match.groups()
        name, inside = ("code", code) if code else ("strong", strong) if strong else ("i", formula)
        parts.append(Markup("<{0}>{1}</{0}>").format(name, _symbols(inside, name)))
        place = match.end()
    return Markup("").join([*parts, escape(text[place:])])


def _symbols(text: str, name: str) -> str:
    """Return a formula in plain characters, as far as it is simple."""
    if name != "i":
        return text
    for tex, plain in _TEX.items():
        text = text.replace(tex, plain)
    return re.sub(r"\\(?:mathrm)\{(\w+)\}", r"\1", text)


_TEX = {r"\prod": "∏", r"\sum": "∑", r"\nabla": "∇", r"\|": "‖", r"\,": " "}
