"""A file becomes a text or a list of items, whatever it is packed in; or one clear line.

    path --opened--> bytes (gzip undone) --encoding_of--> text, or
                                         --read_places--> ("line 3", {field: value}), one by one

    items     JSON (a list), JSONL, CSV, TSV, Parquet (by pyarrow, a guest); gzip of each
    from      the disk, or hf://datasets/ORG/NAME/FILE

The content tells JSON from JSONL and shows a Parquet file, a PDF, an archive or a Git LFS pointer
for what it is; CSV and TSV are told by their suffix. JSONL, CSV and Parquet are read a piece at a
time: a file may be larger than the memory its items take.

A bad file raises InputError, whose message is one line: file, place, what is wrong, what was
expected. Nothing that is read can run code (no pickle). Numbers keep the digits they were written
with. An object with a key twice is marked (Twice), since Python would keep the last in silence.
"""
import csv
import gzip
import io
import itertools
import json
import os
import re
import stat
import zlib
from contextlib import contextmanager
from functools import lru_cache
from string import ascii_uppercase

from data import InputError
from engine import hub
from engine.speech import one_line, shorten

# Of a file that has to be read as one piece. Ours: beyond it, give JSONL.
LARGEST = 1 << 31
READ = "JSON, JSONL, CSV, TSV or Parquet, or gzip of one"
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
MARKS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; `git lfs pull` fetches it",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive or an office document; unpack it, or convert it with pandoc",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"SQLite format 3": "a database",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture"}
# The longest first: UTF-32's begins with UTF-16's.
ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Written(float):
    """A decimal number of a JSON file, which prints as it was written: 1.50 stays 1.50."""

    def __new__(cls, text):
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self):
        return self.text


class Cell(str):
    """A cell of a table, where a number is a text like any other."""


class Twice(dict):
    """An object in which, or in a part of which, `key` occurs more than once."""
    key = None


# ---------------------------------------------------------------- names

@lru_cache(256)
def printable(name):
    r"""A path -> the same for a terminal and a log: what is no UTF-8 or no character is escaped.

    >>> printable("caf\udce9.md"), printable("a\x1b[31m\n.md"), printable("naïve 雪.md")
    ('caf\\xe9.md', 'a\\x1b[31m\\n.md', 'naïve 雪.md')
    """
    return one_line(os.fsencode(name).decode("utf-8", "backslashreplace"))


def suffix_of(path):
    """notes.MD.gz -> .md"""
    name = os.path.basename(str(path)).lower().removesuffix(".gz")
    return os.path.splitext(name)[1]


def stem_of(path):
    """test.jsonl.gz -> test"""
    name = os.path.basename(printable(path))
    if name.lower().endswith(".gz"):
        name = name[:-3]
    return os.path.splitext(name)[0]


# ---------------------------------------------------------------- bytes

@contextmanager
def opened(path):
    """with opened(path) as (stream, head): the bytes, unpacked, and the first of them.

    A pipe or a device is refused before it is opened: it may never end.
    """
    shown = printable(path)
    try:
        local = local_file(path)
        with open(local, "rb") as packed:
            is_gzip = packed.peek(2)[:2] == GZIP
            unpacked = gzip.GzipFile(fileobj=packed) if is_gzip else packed
            stream = io.BufferedReader(unpacked) if is_gzip else packed
            yield stream, stream.peek(4096)[:4096]
    except FileNotFoundError:
        raise InputError(f"{shown}: no such file or folder") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{shown}: damaged gzip, or cut short: {shorten(error)}") from None
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise InputError(f"{shown}: a path cannot hold a NUL character") from None
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror or error}") from None


def local_file(path):
    """The path of a regular file, fetched from the hub if need be. Raises InputError, OSError."""
    local = download(path) if str(path).startswith("hf://") else path
    mode = os.stat(local).st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{printable(path)}: is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{printable(path)}: is a pipe or a device, expected a file")
    return local


def download(path):
    """hf://datasets/ORG/NAME/FILE -> the path of its local copy, from the hub's cache if there."""
    match = re.fullmatch(r"hf://datasets/([^/]+/[^/]+)/(.+)", str(path))
    if not match:
        raise InputError(f"{path}: expected hf://datasets/ORG/NAME/FILE")
    try:
        # only here: local files need no hub
        from huggingface_hub import hf_hub_download
        hub.look()
        return hf_hub_download(repo_id=match[1], filename=match[2], repo_type="dataset")
    except Exception as error:
        # no network, no such file, no permission: the hub's exceptions share no base class
        reason = f"{type(error).__name__}: {shorten(error, 200)}"
        raise InputError(f"{path}: could not be fetched from the hub: {reason}") from None


# ---------------------------------------------------------------- texts

def encoding_of(head, path):
    """The first bytes of a text -> utf-8, or what its byte order mark says. Raises InputError."""
    for mark, what in MARKS.items():
        if head.startswith(mark):
            raise InputError(f"{printable(path)}: is {what}")
    for mark, encoding in ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        why = "looks like UTF-16 without a byte order mark" if every_other(head) else "binary"
        raise InputError(f"{printable(path)}: NUL bytes ({why}), expected a text in UTF-8")
    return "utf-8"


def every_other(head):
    """Are most bytes at the even or at the odd places NUL, as of Latin text in UTF-16?"""
    half = len(head) // 2
    return max(head[::2].count(0), head[1::2].count(0)) > half / 2


def decoded(raw, encoding, path, offset=0):
    """Bytes that begin at this offset of the file -> text, without a byte order mark."""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"byte 0x{raw[error.start]:02x} at offset {offset + error.start}"
        name = encoding.upper()
        raise InputError(f"{printable(path)}: not {name}: {place}, "
                         "expected a text file in UTF-8") from None
    return text if offset else text.removeprefix("\ufeff")


def read_whole(stream, path):
    raw = stream.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise InputError(f"{printable(path)}: larger than {LARGEST >> 30} GB unpacked, expected "
                         "smaller files, or JSONL")
    return raw


def read_text(path, may_be_empty=False):
    """The text of a file; a byte order mark is dropped. Raises InputError."""
    with opened(path) as (stream, head):
        text = decoded(read_whole(stream, path), encoding_of(head, path), path)
    if "\0" in text:
        raise InputError(f"{printable(path)}: NUL characters at offset {text.index(chr(0))}, "
                         "expected a text file in UTF-8")
    if not text.strip() and not may_be_empty:
        raise empty(path)
    return text


def empty(path):
    return InputError(f"{printable(path)}: the file is empty, expected some text")


# ---------------------------------------------------------------- items

def read_places(path):
    """A file of items -> ("item 3", "line 3" or "row 3", value), one by one, at least one.

    In the place of a value that cannot be read stands the InputError that says why; what breaks
    the whole file is raised.
    """
    with opened(path) as (stream, head):
        if head.startswith(PARQUET) or suffix_of(path) in (".parquet", ".pq"):
            yield from parquet_rows(stream, path)
            return
        encoding = encoding_of(head, path)
        if suffix_of(path) in (".csv", ".tsv"):
            yield from table_rows(stream, encoding, path)
        elif encoding == "utf-8" and looks_like_lines(head):
            yield from json_lines(stream, path)
        else:
            text = decoded(read_whole(stream, path), encoding, path)
            yield from json_values(text, path)


def looks_like_lines(head):
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return bool(start) and not start.startswith(b"[")


def json_values(text, path):
    """A JSON list, or JSONL that had to be read as one piece -> as read_places."""
    if not text.strip():
        raise empty(path)
    if not text.lstrip().startswith("["):
        yield from json_lines(io.BytesIO(text.encode("utf-8", "surrogatepass")), path)
        return
    values = parse_json(text, path)
    if not values:
        raise InputError(f"{printable(path)}: an empty list, expected at least one item")
    # the last first, so that each can be forgotten once it is read
    values.reverse()
    for number in range(1, len(values) + 1):
        yield f"item {number}", values.pop()


def json_lines(stream, path):
    """JSONL -> as read_places; blank lines are passed over. The line feed alone ends a line."""
    offset, read = 0, 0
    for number, raw in enumerate(stream, 1):
        text = decoded(raw, "utf-8", path, offset)
        offset += len(raw)
        if not text.strip():
            continue
        read += 1
        try:
            yield f"line {number}", parse_json(text, path, number)
        except InputError as error:
            if read == 1:
                # or one value spread over several lines
                refuse_one_value(path)
                refuse_other_kind(text, path)
            if not raw.endswith(b"\n"):
                # a file cut short has lost more than this line
                raise
            yield f"line {number}", error


def refuse_one_value(path):
    """Raises InputError if the whole file is one JSON value that is no list."""
    try:
        with opened(path) as (stream, _):
            value = json.loads(read_whole(stream, path))
    except (InputError, RecursionError, ValueError):
        return
    raise InputError(f"{printable(path)}: the top level is {kind(value)}, "
                     "expected a list or one object per line")


def refuse_other_kind(text, path):
    """Raises InputError where neither the name nor the first letter speaks of JSON."""
    suffix = suffix_of(path)
    if suffix in (".json", ".jsonl", ".ndjson", "") or text.lstrip()[:1] in '{["':
        return
    web = " (a web page)" if re.match(r"\s*<(!doctype|html|\?xml)", text, re.I) else ""
    raise InputError(f"{printable(path)}: a {suffix} file{web}, expected {READ}")


def parse_json(text, path, line=None):
    """The value of a JSON text; line is its line in the file, when it is only one of them."""
    try:
        return json.loads(text, object_pairs_hook=as_object, parse_float=Written)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}: {error.msg} (column {error.colno})"
        raise InputError(f"{printable(path)}: broken JSON at {place}, "
                         "expected a JSON list or one JSON object per line") from None
    except (RecursionError, ValueError) as error:
        # brackets nested a thousand deep; a number of thousands of digits
        place = f" at line {line}" if line else ""
        reason = shorten(error, 200)
        raise InputError(f"{printable(path)}: JSON that Python cannot read{place}: "
                         f"{reason}") from None


def as_object(pairs):
    """Pairs of a JSON object -> dict, or Twice if a key is there twice, here or further in."""
    found = dict(pairs)
    key = None
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        key = next(name for name in names if names.count(name) > 1)
    for value in found.values():
        parts = value if isinstance(value, list) else [value]
        key = next((part.key for part in parts if isinstance(part, Twice)), key)
    if key is None:
        return found
    marked = Twice(found)
    marked.key = key
    return marked


# ---------------------------------------------------------------- tables

def table_rows(stream, encoding, path):
    """CSV or TSV -> as read_places. An empty cell is no value.

    The first row names the columns; MMLU's own files have none: question, choices, letter.
    """
    lines = table_lines(stream, encoding, path)
    first = next(lines, "")
    rows = cells(itertools.chain([first], lines), delimiter_of(first, path), path)
    names = next(rows, None)
    if names is None:
        raise empty(path)
    if is_question(names):
        rows = itertools.chain([names], rows)
        names = ["question", *ascii_uppercase[:len(names) - 2], "answer"]
    names = [name.strip() or f"column {i}" for i, name in enumerate(names, 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{printable(path)}: the first row names a column twice: "
                         f"{shorten(twice)!r}, expected different names")

    number = 0
    for number, row in enumerate(rows, 1):
        place = f"row {number}"
        if len(row) != len(names):
            yield place, InputError(f"{printable(path)}: {place}: {len(row)} cells, expected "
                                    f"{len(names)}, as in the first row")
            continue
        yield place, {name: Cell(cell) if cell.strip() else None for name, cell in zip(names, row)}
    if not number:
        raise InputError(f"{printable(path)}: one row of column names and no other, "
                         "expected at least one more")


def table_lines(stream, encoding, path):
    if encoding != "utf-8":
        text = decoded(read_whole(stream, path), encoding, path)
        yield from io.StringIO(text, newline="")
        return
    offset = 0
    for raw in stream:
        yield decoded(raw, encoding, path, offset)
        offset += len(raw)


def delimiter_of(line, path):
    if suffix_of(path) == ".tsv":
        return "\t"
    # a spreadsheet writes semicolons where the comma is the decimal point
    return ";" if "," not in line and ";" in line else ","


def cells(lines, delimiter, path):
    """Lines -> rows of cells, those without any left out."""
    csv.field_size_limit(LARGEST - 1)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise InputError(f"{printable(path)}: broken table at line {reader.line_num}: {error}, "
                         "expected cells in matching quotes") from None


def is_question(row):
    """Does a table begin with a question, its choices and the letter of one, without a header?

    >>> is_question(["1 + 1 = ?", "1", "2", "B"]), is_question(["question", "answer", "A", "B"])
    (True, False)
    """
    letters = ascii_uppercase[:max(0, len(row) - 2)]
    if len(letters) < 2 or len(row[-1]) != 1 or row[-1] not in letters or len(row[0]) < 2:
        return False
    up_to_it = list(ascii_uppercase[:letters.index(row[-1]) + 1])
    # ..., A, B, C, D are names of columns
    return len(up_to_it) < 2 or row[-len(up_to_it):] != up_to_it


def parquet_rows(stream, path):
    """Parquet -> as read_places, some thousand rows at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{printable(path)}: is a Parquet file, which pyarrow reads "
                         "(pip install pyarrow)") from None
    number = 0
    try:
        # of a packed one the end has to be found first
        source = stream if isinstance(stream.raw, io.FileIO) else io.BytesIO(stream.read())
        for batch in pyarrow.parquet.ParquetFile(source).iter_batches(batch_size=2048):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{printable(path)}: a damaged Parquet file: "
                         f"{shorten(error, 200)}") from None
    if not number:
        raise InputError(f"{printable(path)}: a Parquet file without rows, expected at least one")


def kind(value):
    """JSON's name for what Python made of it."""
    names = {type(None): "null", bool: "true or false", str: "a string", Cell: "a string",
             list: "a list", dict: "an object", Twice: "an object", bytes: "bytes"}
    return names.get(type(value), "a number")
