"""Notes, web pages and PDFs become plain text whose headings begin with #, ready to be cut.

    suffix                        what is done
    .md, .markdown                front matter between --- (or +++) at the top is dropped
    .txt, .text                   nothing
    .rst                          underlined titles become # headings, in the order they first occur
    .html, .htm                   the text, headings as #, a blank line between blocks
    .pdf                          the text of each page, by pypdf (a guest)

Of a page neither scripts nor styles nor anything else that a reader does not see is kept. A PDF's
text is as good as pypdf's reading of it: look at it (--show_data) before a long run.
"""
import codecs
import io
import logging
import re
from html.parser import HTMLParser

from data import InputError
from engine.files import (
    ORDER_MARKS, decoded, empty, encoding_of, opened, printable, read_text, read_whole, suffix_of)
from engine.speech import shorten

CONVERTERS = {
    ".docx": "pandoc -t markdown", ".odt": "pandoc -t markdown", ".epub": "pandoc -t markdown",
    ".tex": "pandoc -t markdown", ".ipynb": "jupyter nbconvert --to markdown",
    ".org": "pandoc -t markdown", ".doc": "libreoffice --convert-to txt",
    ".pptx": "libreoffice --convert-to pdf", ".json": "given by itself",
    ".jsonl": "given by itself", ".csv": "given by itself", ".parquet": "given by itself"}


def is_text(path):
    """Is this a file that becomes chunks of text, rather than items?"""
    return suffix_of(path) in READERS


def text_of(path, may_be_empty=False):
    """A text file of any suffix above -> its text. Raises InputError."""
    text = READERS[suffix_of(path)](path)
    if not text.strip() and not may_be_empty:
        raise empty(path)
    return text


def read_plain(path):
    return read_text(path, may_be_empty=True)


# ---------------------------------------------------------------- Markdown

FRONT_MATTER = re.compile(
    r"(?:---[ \t]*\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*$|\+\+\+[ \t]*\n(?P<toml>.*?)^\+\+\+[ \t]*$)",
    re.S | re.M)
YAML_LINE = re.compile(r"""[ \t]|#|-([ \t]|$)|[\]}]|["']?[\w][\w .@/-]*["']?[ \t]*:([ \t]|$)|$""")
TOML_LINE = re.compile(r"""[ \t]|#|\[|[\]}]|["']?[\w][\w.-]*["']?[ \t]*=|$""")


def read_markdown(path):
    return without_front_matter(read_plain(path))


def without_front_matter(text):
    r"""Markdown -> the same without the block of settings at its top, if there is one.

    A rule of dashes over prose is no such block.

    >>> without_front_matter("---\ntitle: Ice\n---\nIt floats.")
    'It floats.'
    >>> without_front_matter("---\nIt floats.\n---\nIt melts.")
    '---\nIt floats.\n---\nIt melts.'
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    block = FRONT_MATTER.match(lines)
    if not block:
        return text
    pattern = TOML_LINE if block["yaml"] is None else YAML_LINE
    inside = block["toml"] if block["yaml"] is None else block["yaml"]
    if not all(pattern.match(line) for line in inside.split("\n")):
        return text
    return lines[block.end():].removeprefix("\n")


# ---------------------------------------------------------------- reStructuredText

RULE = re.compile(r"([=\-`:.'\"~^_*+#])\1*[ \t]*")


def read_rst(path):
    return with_headings(read_plain(path))


def with_headings(text):
    r"""reStructuredText -> the same with # headings; the n-th kind of underline is level n.

    >>> with_headings("Light\n=====\n\nIt bends.\n\nLenses\n------\nGlass.")
    '# Light\n\nIt bends.\n\n## Lenses\nGlass.'
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    levels = []
    found = []
    i = 0
    while i < len(lines):
        over = is_rule(lines, i) and is_title(lines, i + 1) and lines[i + 2].strip() == lines[
            i].strip()
        if over or is_title(lines, i):
            title = lines[i + over]
            style = (lines[i + over + 1][0], over)
            if style not in levels:
                levels.append(style)
            found.append("#" * min(6, levels.index(style) + 1) + " " + title.strip())
            i += 2 + over
        else:
            found.append(lines[i])
            i += 1
    return "\n".join(found)


def is_rule(lines, i):
    return i < len(lines) and len(lines[i].strip()) >= 2 and RULE.fullmatch(lines[i]) is not None


def is_title(lines, i):
    """A line of text over a rule that is at least as long."""
    if not is_rule(lines, i + 1) or is_rule(lines, i) or not lines[i].strip():
        return False
    above_blank = i == 0 or not lines[i - 1].strip() or is_rule(lines, i - 1)
    return above_blank and len(lines[i + 1].rstrip()) >= len(lines[i].strip())


# ---------------------------------------------------------------- HTML

UNSEEN = {"script", "style", "template", "noscript", "svg", "head", "iframe", "object", "select"}
BLOCKS = {"p", "div", "section", "article", "ul", "ol", "table", "blockquote", "main", "header",
          "footer", "nav", "aside", "figure", "figcaption", "dl", "form", "body", "hr", "pre"}
LINES = {"br", "li", "tr", "dt", "dd"}


class Page(HTMLParser):
    """The text of a web page that a reader sees, as pieces."""

    def __init__(self):
        super().__init__()
        self.pieces, self.unseen, self.pre = [], [], 0

    def handle_starttag(self, tag, attrs):
        # One may leave out </head>, and <body> too: what a reader sees ends it.
        seen = tag in BLOCKS or tag in LINES or re.fullmatch("h[1-6]", tag)
        if tag == "body" or (seen and self.unseen == ["head"]):
            self.unseen.clear()
        if tag in UNSEEN:
            self.unseen.append(tag)
        elif re.fullmatch("h[1-6]", tag):
            self.pieces.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag in BLOCKS:
            self.pieces.append("\n\n")
        elif tag in LINES:
            self.pieces.append("\n- " if tag == "li" else "\n")
        elif tag in ("td", "th"):
            self.pieces.append(" ")
        self.pre += tag == "pre"

    def handle_startendtag(self, tag, attrs):
        # <script/> opens nothing that will be closed
        if tag not in UNSEEN:
            self.handle_starttag(tag, attrs)
            self.pre -= tag == "pre"

    def handle_endtag(self, tag):
        if tag in self.unseen:
            while self.unseen.pop() != tag:
                pass
        elif tag in BLOCKS or re.fullmatch("h[1-6]", tag):
            self.pieces.append("\n\n")
        self.pre = max(0, self.pre - (tag == "pre"))

    def handle_data(self, text):
        if not self.unseen:
            self.pieces.append(text if self.pre else re.sub(r"\s+", " ", text))


def read_html(path):
    with opened(path) as (stream, head):
        raw = read_whole(stream, path)
        encoding = encoding_of(head, path)
    declared = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", raw[:4096], re.I)
    if declared and not raw.startswith(tuple(ORDER_MARKS)):
        encoding = known_encoding(declared[1].decode("ascii"))
    return html_text(decoded(raw, encoding, path), path)


def known_encoding(name):
    """What a page calls its encoding -> what browsers read it as, by the HTML standard.

    >>> known_encoding("iso-8859-1"), known_encoding("utf-16"), known_encoding("koi8-r")
    ('cp1252', 'utf-8', 'koi8-r')
    """
    try:
        known = codecs.lookup(name).name
        "".encode(known)
    except (LookupError, UnicodeError):
        return "utf-8"
    if known in ("iso8859-1", "ascii"):
        return "cp1252"
    # a page that can say so in ASCII is none
    return "utf-8" if known.startswith(("utf-16", "utf-32")) else known


def html_text(text, path=""):
    r"""A page -> the text that a reader of it sees.

    >>> html_text("<head><title>x</title></head><h1>Ice</h1><p>It &lt; melts<ul><li>a<li>b</ul>")
    '# Ice\n\nIt < melts\n\n- a\n- b'
    """
    page = Page()
    try:
        page.feed(text)
        page.close()
    except (AssertionError, ValueError, RecursionError) as error:
        # html.parser on some broken declarations
        raise InputError(f"{printable(path)}: not HTML that Python can read: "
                         f"{shorten(error)}") from None
    lines = "".join(page.pieces).split("\n")
    kept = "\n".join(line.rstrip() if line.startswith("  ") else line.strip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", kept).strip("\n")


# ---------------------------------------------------------------- PDF

def read_pdf(path):
    try:
        import pypdf
    except ImportError:
        raise InputError(f"{printable(path)}: is a PDF, whose text pypdf reads (pip install "
                         "pypdf); or make a .txt of it with pdftotext") from None
    with opened(path) as (stream, _):
        raw = read_whole(stream, path)
    complaints = []
    logger = logging.getLogger("pypdf")
    logger.handlers, logger.propagate = [Complaints(complaints)], False
    try:
        pages = [page.extract_text() or "" for page in pypdf.PdfReader(io.BytesIO(raw)).pages]
    except Exception as error:
        # broken, encrypted or hostile: what pypdf raises on these has no common class
        raise InputError(f"{printable(path)}: pypdf cannot read this PDF: "
                         f"{type(error).__name__}: {shorten(error)}") from None
    if complaints:
        print(f"{printable(path)}: a damaged PDF, some of whose text may be missing: "
              f"{shorten(printable(complaints[0]))}")
    return "\n\n".join(pages).replace("\0", "")


class Complaints(logging.Handler):
    """What pypdf logs while it mends a file, into a list."""

    def __init__(self, found):
        super().__init__(logging.WARNING)
        self.found = found

    def emit(self, record):
        self.found.append(record.getMessage())


READERS = {
    ".md": read_markdown, ".markdown": read_markdown, ".txt": read_plain, ".text": read_plain,
    ".rst": read_rst, ".html": read_html, ".htm": read_html, ".pdf": read_pdf}
