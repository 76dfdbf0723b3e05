"""The walk as one page of HTML that needs nothing else, or as text for the terminal.

A section's blocks are (kind, caption, content):

    text     a document, a question: a string
    table    rows, the first of them the headings
    more     blocks that are folded away
"""
from html import escape
from textwrap import fill, shorten

STYLE = """
:root { --ink: #1a1d21; --paper: #ffffff; --soft: #f3f4f6; --line: #d5d9df; --accent: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #15181c; --soft: #1f2429; --line: #3a4149; --accent: #7ab8ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem }
a { color: var(--accent) }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 3px solid var(--accent) }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere;
  border-radius: .3rem; font-size: .85rem; margin: .3rem 0 1rem }
code { font-size: .8rem; background: var(--soft); padding: .1rem .3rem; border-radius: .2rem;
  white-space: nowrap }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; margin: .3rem 0 1rem }
caption, .caption { text-align: left; font-size: .85rem; font-weight: 600; padding: .2rem 0 }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
td { max-width: 32rem; overflow-wrap: break-word }
.n { text-align: right; white-space: nowrap }
nav ol { columns: 2; font-size: .9rem }
@media (max-width: 40rem) {
  nav ol { columns: 1 } table { font-size: .75rem } th, td { padding: .2rem .15rem }
  th:first-child, td:first-child { padding-left: 0 }
}
summary { cursor: pointer; padding: .3rem 0 }
"""


def as_html(sections):
    """Sections -> one HTML page, without any other file."""
    links = "".join(f'<li><a href="#s{i}">{escape(section.title)}</a></li>'
                    for i, section in enumerate(sections))
    body = "".join(html_section(i, section) for i, section in enumerate(sections))
    return (f'<!doctype html><html lang="en"><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>One document through one iteration</title><style>{STYLE}</style>"
            f"<main><h1>One document through one iteration</h1>"
            f'<nav aria-label="steps"><ol>{links}</ol></nav>{body}</main></html>\n')


def html_section(i, section):
    code = " ".join(f"<code>{escape(line)}</code>" for line in section.lines)
    blocks = "".join(html_block(block) for block in section.blocks)
    return (f'<section id="s{i}"><h2>{i + 1}. {escape(section.title)}</h2>'
            f"<p>{escape(section.sentence)} {code}</p>{blocks}</section>")


def html_block(block):
    kind, caption, content = block
    if kind == "text":
        return f'<div class="caption">{escape(caption)}</div><pre>{escape(content)}</pre>'
    if kind == "more":
        inside = "".join(html_block(inner) for inner in content)
        return f"<details><summary>{escape(caption)}</summary>{inside}</details>"
    caption, rows = escape(caption), content[1:]
    # the first column names the row
    numeric = [False] + [all(map(is_number, column)) for column in list(zip(*rows))[1:]]
    head = html_row(content[0], numeric, "th") if any(content[0]) else ""
    body = "".join(html_row(row, numeric, "td") for row in rows)
    return (f'<div class="wide" tabindex="0" role="region" aria-label="{caption}"><table>'
            f"<caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>")


def is_number(x):
    return str(x)[:1] in "+-0123456789" and len(str(x)) < 16


def html_row(row, numeric, tag):
    cells = []
    for x, right in zip(row, numeric):
        name = ' class="n"' if right else ""
        scope = ' scope="col"' if tag == "th" else ""
        cells.append(f"<{tag}{name}{scope}>{escape(str(x))}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


# ---------------------------------------------------------------- the terminal

def as_text(sections):
    """The same within 100 columns; long texts are cut."""
    parts = []
    for i, section in enumerate(sections):
        parts += [f"{i + 1}. {section.title}", fill(section.sentence, 96),
                  "   ".join(section.lines), ""]
        for block in section.blocks:
            parts += text_block(block)
    return "\n".join(parts)


def text_block(block):
    kind, caption, content = block
    if kind == "more":
        return []
    if kind == "text":
        lines = [fill(line, 92, initial_indent="    ", subsequent_indent="    ")
                 for line in printable(content).split("\n")]
        return [f"  {printable(caption)}", *lines, ""]
    rows = [list(map(cell, row)) for row in content if any(row)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [*(text_row(row, widths) for row in rows), ""]


def cell(value):
    return shorten(printable(str(value)), 56, placeholder="...")


def text_row(cells, widths):
    padded = [x.ljust(width) for x, width in zip(cells, widths)]
    return ("  " + "  ".join(padded)).rstrip()


def printable(text):
    """Without what would steer a terminal; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
