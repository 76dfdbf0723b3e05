"""Whatever a file is packed in: the same questions and documents, or one line that says why not."""
import doctest
import gzip
import io
import json
import os
import sys
import tracemalloc

import pytest

from data import Document, InputError, Question
from engine import files, summary, texts
from engine.readers import load_documents, load_questions

ROWS = [{"question": "Which is a gas, naïvely?", "A": "ice, of course", "B": 'say "steam"',
         "answer": "B"}, {"question": "Two\nlines?", "A": "4", "B": "6", "answer": "A"}]
EXPECTED = [Question("Which is a gas, naïvely?", ["ice, of course", 'say "steam"'], 'say "steam"',
                     "file-1"), Question("Two\nlines?", ["4", "6"], "4", "file-2")]
DOCS = [{"doc_id": "d1", "content": "Some text."}, {"doc_id": "d2", "content": "雪 is snow."}]


def test_doctests():
    assert [doctest.testmod(module).failed for module in (files, texts, summary)] == [0, 0, 0]


def quoted(rows, delimiter):
    lines = [delimiter.join(rows[0])]
    for row in rows:
        cells = ['"' + cell.replace('"', '""') + '"' for cell in row.values()]
        lines.append(delimiter.join(cells))
    return "\r\n".join(lines) + "\r\n"


def parquet(rows):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


PACKED = {
    "file.json": lambda rows: json.dumps(rows).encode(),
    "file.jsonl": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "file.txt": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "file.csv": lambda rows: quoted(rows, ",").encode(),
    "file.tsv": lambda rows: quoted(rows, "\t").encode(),
    "file.parquet": parquet,
}


def write(folder, name, raw):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return str(path)


def refused(load, path):
    with pytest.raises(InputError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 300 + len(path)
    return line


# ---------------------------------------------------------------- items

@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
@pytest.mark.parametrize("name", PACKED)
def test_the_same_questions_from_every_kind_of_file(tmp_path, name, packed):
    raw = PACKED[name](ROWS)
    path = write(tmp_path, name + ".gz" * packed, gzip.compress(raw) if packed else raw)
    assert load_questions(path) == EXPECTED


@pytest.mark.parametrize("name", [name for name in PACKED if name != "file.txt"])
def test_the_same_documents_from_every_kind_of_file(tmp_path, name):
    expected = [Document("d1", "Some text."), Document("d2", "雪 is snow.")]
    assert load_documents(write(tmp_path, name, PACKED[name](DOCS))) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", [name for name in PACKED if name != "file.parquet"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, name, encoding):
    raw = PACKED[name](ROWS).decode().encode(encoding)
    assert load_questions(write(tmp_path, name, raw)) == EXPECTED


def test_mmlus_own_files_have_no_column_names(tmp_path):
    raw = b'"Which is a gas, as a rule?",ice,steam,rock,oil,B\nTwo and two?,3,4,5,6,B\n'
    questions = load_questions(write(tmp_path, "test.csv", raw))
    assert [question.ground_truth for question in questions] == ["steam", "4"]
    assert [question.question_id for question in questions] == ["test-1", "test-2"]


@pytest.mark.parametrize("header, row", [
    ("question,answer,A,B,C,D", "Two and two?,B,3,4,5,6"),
    ("id,question,answer,A,B,C,D", "7,Two and two?,B,3,4,5,6")])
def test_names_of_columns_may_end_with_the_choices(tmp_path, header, row):
    question, = load_questions(write(tmp_path, "a.csv", f"{header}\n{row}\n".encode()))
    assert (question.choices, question.ground_truth) == (["3", "4", "5", "6"], "4")


def test_semicolons_of_a_spreadsheet(tmp_path):
    path = write(tmp_path, "a.csv", b"question;answer\nHalf of 3?;1,5\n")
    assert load_questions(path)[0].ground_truth == "1,5"


def test_a_number_in_a_table_is_an_index_or_a_text_like_any_other(tmp_path):
    table = b"question,A,B,answer\nTwo?,2,3,2\n"
    assert load_questions(write(tmp_path, "a.csv", table))[0].ground_truth == "2"
    line = refused(load_questions, write(tmp_path, "b.csv", b"question,A,B,answer\nOne?,0,1,1\n"))
    assert "the text of one choice and perhaps the index of another" in line
    options = b'question,options,answer\nTwo?,"[""2"", ""3""]",A\n'
    assert load_questions(write(tmp_path, "c.csv", options))[0].choices == ["2", "3"]
    numpy = b"question,options,answer\nQ?,['a' 'b'],A"
    assert "no JSON" in refused(load_questions, write(tmp_path, "d.csv", numpy))


BAD = {
    "a.csv: too many cells": (b"question,answer\nTwo?,2,3\n", "row 1: 3 cells, expected 2"),
    "a.csv: an open quote": (b'question,answer\n"Two?,2\n', "broken table at line 2"),
    "a.csv: a column twice": (b"question,answer,answer\nTwo?,2,3\n", "names a column twice"),
    "a.csv: names alone": (b"question,answer\n", "one row of column names and no other"),
    "a.csv: empty": (b"\n\n", "the file is empty"),
    "a.csv: no such columns": (b"text,label\nx,1\n", "missing field 'question_text'"),
    "a.csv: latin": (b"question,answer\ncaf\xe9?,2\n", "not UTF-8: byte 0xe9 at offset 19"),
    "a.csv: an empty cell": (b"question,answer\nTwo?,\n", "missing field 'ground_truth'"),
    "a.jsonl.gz: cut short": (gzip.compress(b'{"question": "?"}')[:-9], "damaged gzip"),
    "a.jsonl.gz: garbage": (b"\x1f\x8b" + b"x" * 90, "damaged gzip"),
    "a.parquet: cut short": (b"PAR1" + b"\0" * 90, "damaged Parquet"),
    "a.parquet: another kind": (b"[]", "damaged Parquet"),
    "a.yaml: another kind": (b"- question: 2?", "a .yaml file, expected JSON, JSONL, CSV"),
    "a.html: another kind": (b"<!DOCTYPE html>", "a .html file (a web page), expected JSON"),
    "a.pdf: another kind": (b"%PDF-1.4", "is a PDF"),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_files_are_one_line(tmp_path, name):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    raw, why = BAD[name]
    path = write(tmp_path, name.split(":")[0], raw)
    line = refused(load_questions, path)
    assert line.startswith(f"{path}: ") and why in line


def test_without_pyarrow_a_line_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = refused(load_questions, write(tmp_path, "a.parquet", b"PAR1"))
    assert "pip install pyarrow" in line


# ---------------------------------------------------------------- one bad item in a hundred

def many(n, bad):
    rows = [{"question": f"{i}?", "choices": ["a", "b"], "answer": "a"} for i in range(n)]
    for i in bad:
        rows[i]["answer"] = "c"
    return "\n".join(map(json.dumps, rows)).encode()


def test_one_bad_item_in_a_hundred_is_counted_and_said(tmp_path, capsys):
    path = write(tmp_path, "a.jsonl", many(300, [7, 9, 200]))
    assert len(load_questions(path)) == 297
    assert capsys.readouterr().out == (
        f"{path}: 3 of 300 items are bad and left out: {path}: line 8: the answer 'c' is not among "
        "the choices, expected the text of one of them or a letter from A to B\n")
    line = refused(load_questions, write(tmp_path, "b.jsonl", many(300, [7, 8, 9, 200])))
    assert "line 8: the answer 'c'" in line and "(as are 3 more of 300 items)" in line


def test_a_broken_line_is_a_bad_item_but_a_file_cut_short_is_refused(tmp_path, capsys):
    whole = many(200, [])
    broken = whole.replace(b'{"question": "7?"', b'{question: "7?"')
    assert len(load_questions(write(tmp_path, "a.jsonl", broken))) == 199
    assert "1 of 200 items is bad" in capsys.readouterr().out
    assert "broken JSON at line 200" in refused(
        load_questions, write(tmp_path, "b.jsonl", whole[:-4]))


def test_a_wrong_key_among_many_does_not_change_how_numbers_are_read(tmp_path, capsys):
    rows = [{"question": f"{i}?", "choices": ["2", "3", "4", "9"], "answer": "3"}
            for i in range(200)]
    # the text of none of them
    rows[5]["answer"] = "1"
    path = write(tmp_path, "a.json", json.dumps(rows).encode())
    assert {question.ground_truth for question in load_questions(path)} == {"3"}
    assert "1 of 200 items is bad" in capsys.readouterr().out


# ---------------------------------------------------------------- texts

FRONT = "---\ntitle: Ice\ntags:\n- cold\n- 'a: b'\nmore: [x,\n  y]\n---\n"
TEXTS = {
    "a.md": (FRONT + "It floats.", "It floats."),
    "crlf.md": (FRONT.replace("\n", "\r\n") + "It floats.", "It floats."),
    "dots.md": ("---\ntitle: Ice\n...\nIt floats.", "It floats."),
    "toml.md": ("+++\ntitle = 'Ice'\n+++\nIt floats.", "It floats."),
    "rules.md": ("---\nIt floats.\n---\nIt melts.", "---\nIt floats.\n---\nIt melts."),
    "open.md": ("---\ntitle: Ice\n", "---\ntitle: Ice"),
    "later.md": ("Ice\n---\na: b\n---\n", "Ice\n---\na: b\n---"),
    "a.txt": (FRONT + "It floats.", (FRONT + "It floats.").strip()),
    "a.markdown": ("It floats.", "It floats."),
    "a.rst": ("===\nIce\n===\n\nIt floats.\n", "# Ice\n\nIt floats."),
    "a.html": ("<html><head><title>t</title><style>p{}</style></head><body><h2>Ice</h2>"
               "<script>if (a<b) x()</script><p>It\n floats &amp; melts.<p>So it is.",
               "## Ice\n\nIt floats & melts.\n\nSo it is."),
    "bare.html": ("<!doctype html><head><title>T</title><meta charset=utf-8><p>Hello.", "Hello."),
    "open.html": ("<p>It floats <b>and</div> melts", "It floats and\n\nmelts"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_texts_become_documents(tmp_path, name, packed):
    raw, expected = TEXTS[name]
    raw = gzip.compress(raw.encode()) if packed else raw.encode()
    path = write(tmp_path, name + ".gz" * packed, raw)
    assert [document.content for document in load_documents(path)] == [expected]


def test_a_page_that_python_cannot_read_is_one_line(tmp_path):
    assert "not HTML" in refused(load_documents, write(tmp_path, "a.html", b"<p>It floats <![x <b"))


@pytest.mark.parametrize("said, encoding", [
    ("iso-8859-1", "cp1252"), ("us-ascii", "cp1252"), ("windows-1252", "cp1252"),
    ("utf-16", "utf-8"), ("UTF-8", "utf-8"), ("undefined", "utf-8"), ("rot13", "utf-8"),
    ("iso-8859-15", "iso-8859-15")])
def test_a_page_says_its_encoding_as_browsers_understand_it(tmp_path, said, encoding):
    text = "It’s a “café”" if encoding != "iso-8859-15" else "5 €"
    page = f'<meta charset="{said}"><p>{text}'.encode(encoding)
    assert load_documents(write(tmp_path, "a.html", page))[0].content == text


def test_a_pdf_is_read_by_pypdf_or_a_line_names_it(tmp_path, monkeypatch):
    path = write(tmp_path, "a.pdf", b"%PDF-1.4 broken")
    monkeypatch.setitem(sys.modules, "pypdf", None)
    line = refused(load_documents, path)
    assert "pip install pypdf" in line and "pdftotext" in line


def test_the_text_of_a_pdf(tmp_path):
    pytest.importorskip("pypdf")
    assert load_documents(write(tmp_path, "a.pdf", small_pdf("It floats.")))[0].content == (
        "It floats.")
    assert "pypdf cannot read this PDF" in refused(
        load_documents, write(tmp_path, "b.pdf", b"%PDF-1.4 broken"))


def small_pdf(text):
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
               "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
               "/Resources << /Font << /F1 5 0 R >> >> >>",
               f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
               "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 6\n0000000000 65535 f \n{table}{end}".encode()


# ---------------------------------------------------------------- folders and names

def ids(folder):
    return [document.doc_id for document in load_documents(str(folder))]


def test_links_are_followed_once_and_without_circles(tmp_path, capsys):
    notes, other = tmp_path / "notes", tmp_path / "other"
    write(notes, "a.md", b"One.")
    write(notes, "sub/b.md", b"Two.")
    write(other, "c.md", b"Three.")
    write(notes, ".vault/d.md", b"Four.")
    (notes / "linked").symlink_to(other)
    (notes / "round").symlink_to(notes)
    (other / "back").symlink_to(other)
    (notes / "again.md").symlink_to(notes / "a.md")
    (notes / "d.md").symlink_to(notes / ".vault/d.md")
    (notes / "nowhere.md").symlink_to(tmp_path / "missing.md")
    (notes / "itself.md").symlink_to(notes / "itself.md")
    assert ids(notes) == ["a.md-1", "d.md-1", "linked/c.md-1", "sub/b.md-1"]
    out = capsys.readouterr().out
    assert "2 of its links lead nowhere: itself.md, nowhere.md" in out
    again = "again.md, linked/back, round"
    assert f"3 of its links lead to what is read under its own name: {again}" in out
    assert "hidden files and folders are left alone (1): .vault" in out


def test_files_of_other_kinds_are_counted_and_named(tmp_path, capsys):
    for name in ("a.md", "b.docx", "c.docx", "d.json", "LICENSE"):
        write(tmp_path, name, b"text")
    os.mkfifo(tmp_path / "pipe.md")
    assert ids(tmp_path) == ["a.md-1"]
    line, = capsys.readouterr().out.splitlines()
    assert "5 files of other kinds are left alone" in line
    assert "2 .docx" in line and ".docx: pandoc" in line and "pipe.md" in line


def test_a_name_that_is_not_utf8_works(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.md"
    with open(raw, "wb") as file:
        file.write(b"Coffee.")
    document, = load_documents(tmp_path)
    assert document.doc_id == "caf\\xe9.md-1"
    document.doc_id.encode("utf-8")
    # given by itself as well
    assert load_documents(os.fsdecode(raw))[0].doc_id == "caf\\xe9.md-1"


def test_a_name_cannot_move_the_cursor(tmp_path, capsys):
    write(tmp_path, "a\x1b[2J\n.md", b"Text.")
    write(tmp_path, "b\x1b[2J\n.png", b"")
    assert ids(tmp_path) == ["a\\x1b[2J\\n.md-1"]
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path):
    write(tmp_path, "a.md", b"One.")
    write(tmp_path, "sub/b.md", b"Two.")
    (tmp_path / "sub").chmod(0)
    try:
        assert "cannot be entered: Permission denied" in refused(load_documents, str(tmp_path))
        assert "cannot be read: Permission denied" in refused(
            load_documents, str(tmp_path / "sub/b.md"))
    finally:
        (tmp_path / "sub").chmod(0o700)


def test_entering_is_refused_as_the_system_says(tmp_path, monkeypatch):
    """What root sees of the test above."""
    def scandir(path):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "scandir", scandir)
    assert "cannot be entered: Permission denied" in refused(load_documents, str(tmp_path))


@pytest.mark.parametrize("load", [load_documents, load_questions])
def test_what_is_no_file_is_one_line(tmp_path, load):
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is a pipe or a device" in refused(load, str(tmp_path / "pipe.jsonl"))
    assert "is a pipe or a device" in refused(load, "/dev/zero")
    assert "File name too long" in refused(load, str(tmp_path / ("x" * 5000)))
    assert "NUL character" in refused(load, "a\0b.jsonl")
    (tmp_path / "round.jsonl").symlink_to(tmp_path / "round.jsonl")
    assert "cannot be read" in refused(load, str(tmp_path / "round.jsonl"))


# ---------------------------------------------------------------- much of it

@pytest.mark.parametrize("name", ["file.jsonl", "file.csv", "file.parquet"])
def test_a_large_file_takes_little_more_memory_than_what_is_kept(tmp_path, name):
    """Of each row 10 kB are no field of ours."""
    rows = [{"question": f"{i}?", "answer": "4", "note": "x" * 10_000} for i in range(2000)]
    path = write(tmp_path, name, PACKED[name](rows))
    del rows
    tracemalloc.start()
    try:
        assert len(load_questions(path)) == 2000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # the file has 20 MB; of Parquet a batch is in memory
    assert peak < (40e6 if "parquet" in name else 4e6)


# ---------------------------------------------------------------- what is said after loading

def test_the_summary_counts_choices_keys_and_duplicates():
    questions = [Question("One?", ["a", "b", "c"], "c"), Question("one", ["a", "b", "c"], "c"),
                 Question("Two words?", ["a", "b"], "a"), Question("Free?", [], "4", "", ("four",))]
    assert summary.of_questions(questions) == (
        "choices: none, free-form (1 question), 2 (1 question), 3 (2 questions); keys: A 33 %, "
        "B 0 %, C 67 %; several right answers: 1 question; longest: 4 words; duplicates: 1")
    documents = [Document("a", "One two."), Document("b", "one  two")]
    assert summary.of_documents(documents) == "longest: 2 words; duplicates: 1"
