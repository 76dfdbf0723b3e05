"""Malformed files of questions and documents through the readers.

A file that is read has to be read whole: as many questions as Python's own json, csv and gzip find
in it, with their texts, unless a line says what was left out; and of Markdown and plain text every
word. Beside the damaged files stand the places that are no file: pipes, devices, links, folders,
paths that no system takes.
"""
import csv
import functools
import gzip
import io
import json
import os
import re
import zlib

from data import InputError
from engine.readers import load_documents, load_questions

from . import ROOT, mutators
from .outcome import Loss, attempt

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None
try:
    import pypdf
except ImportError:
    pypdf = None

KEEP = 12


@functools.cache
def base_files():
    """-> {name: bytes}: whole files of every kind that the readers know; Parquet and PDF where
    their guests are installed."""
    items = json.loads((ROOT / "toy/dev.json").read_text())[:KEEP]
    notes = json.loads((ROOT / "toy/documents.json").read_text())[:KEEP]
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    found = {"q.json": json.dumps(items, indent=1), "q.jsonl": lines,
             "q.csv": as_table(items, ","), "q.tsv": as_table(items, "\t"),
             "free.jsonl": "".join(free_form()), "mcq.jsonl": "".join(lettered()),
             "d.json": json.dumps(notes), "d.md": as_markdown(notes), "d.txt": as_text(notes),
             "d.rst": as_text(notes), "d.html": as_page(notes)}
    found = {name: text.encode() for name, text in found.items()}
    for name in ("q.jsonl", "q.csv", "d.json"):
        found[f"{name}.gz"] = gzip.compress(found[name], mtime=0)
    if pyarrow:
        found["q.parquet"] = as_parquet(items)
    if pypdf:
        found["d.pdf"] = as_pdf()
    return found


def as_parquet(items):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), out)
    return out.getvalue()


def beginnings():
    """A line of each note that fits on a page, and has no letter with a meaning in PDF."""
    notes = json.loads((ROOT / "toy/documents.json").read_text())[:KEEP]
    return [re.sub(r"[^A-Za-z0-9 .,]", "", x["content"])[:90] for x in notes]


def as_pdf():
    """One page of text: the four objects that a PDF needs, and where they begin."""
    lines = "".join(f"({line}) ' " for line in beginnings())
    text = f"BT /F 9 Tf 12 TL 30 700 Td {lines}ET".encode("ascii", "replace")
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 800 800]/Contents 4 0 R/Resources<</Font<</F "
        + font + b">>>>>>", b"<</Length %d>>stream\n%s\nendstream" % (len(text), text)]
    out, starts = b"%PDF-1.4\n", []
    for i, body in enumerate(objects):
        starts.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (i + 1, body)
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    tail = b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 5\n0000000000 65535 f \n" + table + tail


def as_table(items, delimiter):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["question", "A", "B", "C", "D", "answer"])
    for item in items:
        letter = "ABCD"[item["choices"].index(item["ground_truth"])]
        writer.writerow([item["question_text"], *item["choices"], letter])
    return out.getvalue()


def free_form():
    for i in range(KEEP):
        yield json.dumps({"problem": f"What is {i} + {i}?", "answer": str(2 * i)}) + "\n"


def lettered():
    for i in range(KEEP):
        options = [f"{i + j} caf\u00e9s" for j in range(4)]
        yield json.dumps({"question": f"Which is {i} + 2?", "options": options,
                          "answer": "ABCD"[i % 4]}) + "\n"


def as_markdown(notes):
    return "\n\n".join(f"# Note {i}\n\n{x['content']}" for i, x in enumerate(notes)) + "\n"


def as_text(notes):
    return "\n\n".join(x["content"] for x in notes) + "\n"


def as_page(notes):
    body = "".join(f"<h2>{i}</h2><p>{x['content']}</p>" for i, x in enumerate(notes))
    return f"<html><head><title>t</title></head><body>{body}</body></html>"


# ---------------------------------------------------------------- what is in a file

def items_in(name, data):
    """Bytes -> every number of questions that Python finds, by some encoding; {} is none at all.

    {number: the question texts, or None for a table}
    """
    if name.endswith(".parquet"):
        return items_in_parquet(data)
    if name.endswith(".gz") or data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return {}
    found = {}
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le",
                     "latin-1"):
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        for number, questions in numbers_in(name, text.removeprefix("\ufeff")):
            found.setdefault(number, questions)
    return found


def items_in_parquet(data):
    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError):
        return {}
    return {len(rows): texts_of(rows)}


def numbers_in(name, text):
    if re.search(r"\.[ct]sv", name):
        delimiter = "\t" if ".tsv" in name else ","
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
                if any(cell.strip() for cell in row)]
        # as MMLU is laid out: no header, and the key is a letter in the last column
        headless = bool(rows) and re.fullmatch("[A-J]", rows[0][-1].strip())
        return [(len(rows) - (0 if headless else 1), None)]
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        lines = [line for line in text.split("\n") if line.strip()]
        return [(len(lines), None)]
    if isinstance(values, list):
        return [(len(values), texts_of(values))]
    return [(1, None)]


def texts_of(values):
    names = ("question_text", "question", "problem")
    found = set()
    for value in values:
        if isinstance(value, dict):
            found.update(squeezed(value[name]) for name in names if name in value)
    return found


def squeezed(text):
    return " ".join(str(text).split())


# ---------------------------------------------------------------- is it whole

def check_questions(name, data, path):
    said = []
    questions = load_questions(path, said.append)
    found = items_in(name, data)
    if said:
        return
    if len(questions) not in found:
        raise Loss(f"{len(questions)} questions, Python finds {sorted(found)}, and nothing is said")
    texts = found[len(questions)]
    new = [x.question_text for x in questions if texts and squeezed(x.question_text) not in texts]
    if new:
        raise Loss(f"a question that is not in the file: {new[0]!r}")
    for x in questions:
        if x.choices and (x.ground_truth not in x.choices or len(x.choices) < 2):
            raise Loss(f"no choice is the key: {x!r}")


def check_documents(name, data, path):
    documents = load_documents(path, say=lambda line: None)
    if name == "d.json":
        found = items_in(name, data)
        if len(documents) not in found:
            raise Loss(f"{len(documents)} documents, Python finds {sorted(found)}")
    if name == "d.pdf" and data == base_files()[name]:
        found = " ".join(document.content for document in documents)
        lost = [note for note in beginnings() if not set(note.split()) <= set(found.split())]
        if lost:
            raise Loss(f"lines of the page that are in no document: {lost[:2]}")
    if name in ("d.md", "d.txt"):
        try:
            text = data.decode("utf-8-sig")
        except UnicodeError:
            return
        kept = set()
        for document in documents:
            kept.update(re.findall(r"[a-z]{3,}", document.content))
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        lost = set(re.findall(r"[a-z]{3,}", "\n".join(lines))) - kept
        if lost:
            raise Loss(f"words that are in no document: {sorted(lost)[:5]}")


# ---------------------------------------------------------------- places that are no file

def places(folder):
    """-> [(what, path)]: none of them is a file of questions."""
    made = {name: os.path.join(folder, name) for name in (
        "pipe.json", "dangling.json", "loop.json", "folder.json", "latin.json")}
    os.mkfifo(made["pipe.json"])
    os.symlink("nowhere", made["dangling.json"])
    os.symlink("loop.json", made["loop.json"])
    os.mkdir(made["folder.json"])
    odd = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.json")
    return [*made.items(), ("/dev/zero", "/dev/zero"), ("/dev/null", "/dev/null"),
            ("too long", f"{folder}/{'x' * 5000}.json"), ("NUL", f"{folder}/a\0b.json"),
            ("not UTF-8", odd), ("empty name", ""), ("below a file", f"{folder}/0.q.json/x.json"),
            ("a hub file that nobody has", "hf://datasets/x"), ("no name", "hf://")]


def run(tally, seed, long, folder):
    for what, path in places(folder):
        for load in (load_questions, load_documents):
            attempt(tally, f"{load.__name__} {what}", lambda: must_refuse(load, path), InputError)

    files = base_files()
    for name, data in files.items():
        one(tally, folder, f"whole {name}", name, data)
    for i in range(2600 if long else 400):
        rng = mutators.seeded(seed, "readers", i)
        name = rng.choice(list(files))
        how, data = mutators.damaged(rng, files[name])
        if name.endswith(".gz") and rng.random() < 0.5:
            plain = name.removesuffix(".gz")
            how, data = mutators.damaged(rng, files[plain])
            how, data = f"gzip of {how}", gzip.compress(data, mtime=0)
        one(tally, folder, f"{i}: {how} of {name}", name, data)


def must_refuse(load, path):
    load(path, say=lambda line: None)
    raise Loss("was read as if it were a file")


def one(tally, folder, what, name, data):
    path = os.path.join(folder, f"0.{name}")
    with open(path, "wb") as f:
        f.write(data)
    check = check_documents if name.startswith("d.") else check_questions
    attempt(tally, what, lambda: check(name, data, path), InputError)
