"""Files become documents and questions, or one clear line."""
import doctest
import json
import random
import sys
import types
from collections import Counter

import pytest

from data import Document, InputError, Question, count_words
from engine import readers
from engine.readers import chunk, load_documents, load_questions

DOC = {"doc_id": "d1", "content": "Some text."}
MCQ = {"question_id": "q1", "question_text": "2 + 2 = ?", "choices": ["3", "4", "5", "6"],
       "ground_truth": "4"}


def write(folder, name, content):
    """content: bytes, a text, or a value that becomes JSON -> the file's path as a string."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def jsonl(*items):
    return "\n".join(json.dumps(item) for item in items) + "\n"


def without(item, *names):
    return {name: value for name, value in item.items() if name not in names}


def test_doctests():
    assert doctest.testmod(readers).failed == 0


# ---------------------------------------------------------------- good files

QUESTION = Question("2 + 2 = ?", ["3", "4", "5", "6"], "4", "q1")
OTHER_NAMES = {"id": "q1", "question": "2 + 2 = ?", "choices": ["3", "4", "5", "6"], "answer": "4"}
GOOD_QUESTIONS = {
    "a list": (json.dumps([MCQ]), QUESTION),
    "a list over several lines": (json.dumps([MCQ], indent=2), QUESTION),
    "JSONL": (jsonl(MCQ), QUESTION),
    "JSONL with blank lines and Windows line ends":
        ("\r\n" + json.dumps(MCQ) + "\r\n\r\n", QUESTION),
    "JSONL without a last newline": (json.dumps(MCQ), QUESTION),
    "a line separator inside a string is no new line":
        (json.dumps(MCQ | {"note": "a\u2028b"}, ensure_ascii=False), QUESTION),
    "a byte order mark": (b"\xef\xbb\xbf" + jsonl(MCQ).encode(), QUESTION),
    "the other field names": ([OTHER_NAMES], QUESTION),
    "null under the first name": ([OTHER_NAMES | {"question_text": None}], QUESTION),
    "more fields": ([MCQ | {"domain": "arithmetic"}], QUESTION),
    "spaces around the texts":
        ([MCQ | {"choices": [" 3", "4 ", "5", "6"], "ground_truth": "4\n"}], QUESTION),
    "a number that is the text of a choice": ([MCQ | {"ground_truth": 4}], QUESTION),
    "a letter where no text matches": ([MCQ | {"ground_truth": "B"}], QUESTION),
    "text before letter":
        ([MCQ | {"choices": ["B", "C", "A", "D"], "ground_truth": "C"}],
         Question("2 + 2 = ?", ["B", "C", "A", "D"], "C", "q1")),
    "26 choices":
        ([MCQ | {"choices": [str(i) for i in range(26)], "ground_truth": "Z"}],
         Question("2 + 2 = ?", [str(i) for i in range(26)], "25", "q1")),
    "free-form": ([without(MCQ, "choices")], Question("2 + 2 = ?", [], "4", "q1")),
    "free-form with []": ([MCQ | {"choices": []}], Question("2 + 2 = ?", [], "4", "q1")),
    "free-form with null": ([MCQ | {"choices": None}], Question("2 + 2 = ?", [], "4", "q1")),
    "free-form with an integer":
        ([MCQ | {"choices": None, "ground_truth": 204}], Question("2 + 2 = ?", [], "204", "q1")),
    "free-form with 0":
        ([MCQ | {"choices": None, "ground_truth": 0}], Question("2 + 2 = ?", [], "0", "q1")),
    "free-form with a decimal":
        ([MCQ | {"choices": None, "ground_truth": -0.5}], Question("2 + 2 = ?", [], "-0.5", "q1")),
    "no id":
        ([without(MCQ, "question_id")], Question("2 + 2 = ?", ["3", "4", "5", "6"], "4", "file-1")),
    "a number as id":
        ([MCQ | {"question_id": 7}], Question("2 + 2 = ?", ["3", "4", "5", "6"], "4", "7")),
}


# the content decides, not the name
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("content, expected", GOOD_QUESTIONS.values(), ids=GOOD_QUESTIONS.keys())
def test_good_question_files(tmp_path, suffix, content, expected):
    assert load_questions(write(tmp_path, "file" + suffix, content)) == [expected]


def test_multiple_choice_and_free_form_may_be_mixed(tmp_path):
    free = {"question": "6 * 7 = ?", "answer": "42"}
    questions = load_questions(write(tmp_path, "mixed.json", [MCQ, free]))
    assert [q.letter for q in questions] == ["B", None]
    assert [q.question_id for q in questions] == ["q1", "mixed-2"]


def test_good_document_files(tmp_path):
    expected = [Document("d1", "Some text."), Document("docs-2", "More  text,\nas it is. ")]
    items = [DOC, {"text": "More  text,\nas it is. "}]
    for name in ("docs.json", "docs.jsonl"):
        for content in (items, jsonl(*items)):
            assert load_documents(write(tmp_path, name, content)) == expected
    # a Path will do
    assert load_documents(tmp_path / "docs.json") == expected


def test_json_documents_stay_whole(tmp_path):
    path = write(tmp_path, "docs.json", [{"id": "long", "text": "# Title\n\n" + "word " * 50}])
    assert len(load_documents(path, max_tokens=10)) == 1


def test_single_text_file(tmp_path):
    path = write(tmp_path, "notes.MD", "# A\nOne.\n# B\nTwo.\n")
    assert load_documents(path) == [Document("notes.MD-1", "# A\n\nOne."),
                                    Document("notes.MD-2", "# B\n\nTwo.")]


def test_folder_is_read_recursively_and_in_order(tmp_path, capsys):
    write(tmp_path, "b.txt", "Bee.")
    write(tmp_path, "a/two.md", b"\xef\xbb\xbf# T\r\n\r\nTwo.\r\n")
    write(tmp_path, "a/one.md", "One.")
    write(tmp_path, "b.md", "Also bee.")
    write(tmp_path, "picture.png", b"\x89PNG")
    write(tmp_path, ".hidden/c.md", b"\xff")
    write(tmp_path, "a/._one.md", b"\xff")
    documents = load_documents(str(tmp_path))
    assert [(d.doc_id, d.content) for d in documents] == [
        ("a/one.md-1", "One."), ("a/two.md-1", "# T\n\nTwo."), ("b.md-1", "Also bee."),
        ("b.txt-1", "Bee.")]
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: 1 file of another kind is left alone (1 .png): picture.png",
        f"{tmp_path}: hidden files and folders are left alone (2): .hidden, a/._one.md"]


def test_files_without_text_in_a_folder_are_counted_and_named(tmp_path, capsys):
    for name, content in [("a.md", "Text."), ("empty.md", ""), ("headings.md", "# A\n## B\n")]:
        write(tmp_path, name, content)
    assert [d.doc_id for d in load_documents(tmp_path)] == ["a.md-1"]
    printed = capsys.readouterr().out
    assert "2 of 3 files" in printed and "empty.md, headings.md" in printed
    assert printed.count("\n") == 1


# ---------------------------------------------------------------- bad files
# Each is one line that says where, what, and what was expected.

DEEP = "[" * 100_000
BAD_JSON = {   # for documents and questions alike; {item} is replaced by a good item
    "empty file": ("", ["file is empty"]),
    "only spaces": (" \n\n", ["file is empty"]),
    "empty list": ("[]", ["empty list", "expected at least one item"]),
    "broken list": ('[\n{item},\n{"id": }]', ["broken JSON at line 3", "expected a JSON list"]),
    "list cut short": ('[\n{item},\n', ["broken JSON at line 3"]),
    "broken JSONL": ('{item}\n\n{"id": \n', ["broken JSON at line 3"]),
    "JSONL cut short": ('{item}\n{item', ["broken JSON at line 2"]),
    "not JSON": ("Once upon a time", ["broken JSON at line 1"]),
    "nested too deep": (DEEP, ["JSON that Python cannot read"]),
    "nested too deep in a line":
        ('{item}\n{"a": ' + DEEP, ["JSON that Python cannot read at line 2"]),
    "an endless number": ('[{"id": ' + "1" * 5000 + "}]", ["JSON that Python cannot read"]),
    "top level an object":
        ('{\n "data": [\n{item}]}', ["top level is an object", "expected a list"]),
    "top level a string": ('"text"', ["line 1", "a string", "expected an object"]),
    "item a string": ('[{item}, "text"]', ["item 2", "a string", "expected an object"]),
    "item null": ("[null]", ["item 1", "null", "expected an object"]),
    "line a list": ('{item}\n\n[1]', ["line 3", "a list", "expected an object"]),
    "duplicate ids":
        ("[{item}, {item}]", ["item 2", "id", "already that of item 1", "expected different ids"]),
    "duplicate ids in JSONL": ("\n{item}\n{item}", ["line 3", "already that of line 2"]),
    "not UTF-8": (b'[{"id": "caf\xe9"}]', ["not UTF-8", "0xe9", "offset 12", "expected"]),
    "not UTF-8 after a byte order mark": (b"\xef\xbb\xbf[\xff]", ["not UTF-8", "0xff", "offset 4"]),
    "UTF-16 without a byte order mark":
        ('[{"id": 1}]'.encode("utf-16-le"), ["UTF-16 without a byte order mark", "UTF-8"]),
    "UTF-16 cut short": ("[]".encode("utf-16")[:-1], ["not UTF-16", "offset 4"]),
    "a key twice": ('[{item}, {"id": 1, "id": 2}]', ["item 2", "key 'id' is there twice"]),
    "a key twice, further in":
        ('[{item}, {"id": 2, "a": [{"b": 1, "b": 1}]}]', ["item 2", "key 'b' is there twice"]),
    "a Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer"]),
    "an archive": (b"PK\x03\x04\0\0", ["zip archive"]),
    "NUL bytes": (b"\0" * 900, ["NUL bytes"]),
}


def check_refused(load, path, fragments):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(path + ": ")
    assert len(message.splitlines()) == 1 and len(message) - len(path) < 300
    assert not [fragment for fragment in fragments if fragment not in message], message


@pytest.mark.parametrize("load, item", [(load_documents, DOC), (load_questions, MCQ)],
                         ids=["documents", "questions"])
@pytest.mark.parametrize("content, fragments", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_files(tmp_path, load, item, content, fragments):
    if isinstance(content, str):
        content = content.replace("{item}", json.dumps(item))
        content = content.replace("{item", json.dumps(item)[:-5])
    check_refused(load, write(tmp_path, "file.json", content), fragments)


BAD_DOCUMENTS = {
    "no content":
        (without(DOC, "content"),
         ["missing field 'content' (or 'text')", "found the fields: doc_id"]),
    "a field name over two lines": ({"a\nb": 1}, ["missing field 'content'", "a b"]),
    "no field": ({}, ["missing field 'content'", "none"]),
    "content null": (DOC | {"content": None}, ["missing field 'content'"]),
    "content a list": (DOC | {"content": ["a"]}, ["'content' is a list", "expected a string"]),
    "content a number": ({"id": "d", "text": 3}, ["'text' is a number", "expected a string"]),
    "content empty": (DOC | {"content": " \n"}, ["'content' is empty"]),
    "half a surrogate pair": (DOC | {"content": "a\ud800"}, ["'content'", "surrogate"]),
    "id a list": (DOC | {"doc_id": [1]}, ["'doc_id' is a list", "expected a string or a number"]),
    "id true": (DOC | {"doc_id": True}, ["'doc_id' is true or false"]),
    "id empty": (DOC | {"doc_id": ""}, ["'doc_id' is empty"]),
}
BAD_QUESTIONS = {
    "no question":
        (without(MCQ, "question_text"),
         ["missing field 'question_text' (or 'question')", "choices"]),
    "no answer": (without(MCQ, "ground_truth"), ["missing field 'ground_truth' (or 'answer')"]),
    "question a number":
        (MCQ | {"question_text": 1}, ["'question_text' is a number", "expected a string"]),
    "question empty": (MCQ | {"question_text": ""}, ["'question_text' is empty"]),
    "answer true":
        (MCQ | {"choices": [], "ground_truth": True},
         ["'ground_truth' is true or false", "expected a string or a number"]),
    "answer a list": (MCQ | {"ground_truth": ["4"]}, ["'ground_truth' is a list"]),
    "answer empty": (MCQ | {"choices": [], "ground_truth": " "}, ["'ground_truth' is empty"]),
    "answer not among the choices":
        (MCQ | {"ground_truth": "7"},
         ["answer '7' is not among the choices", "a letter from A to D"]),
    "a letter beyond the choices":
        (MCQ | {"ground_truth": "E"}, ["answer 'E' is not among the choices"]),
    "a small letter": (MCQ | {"ground_truth": "b"}, ["not among the choices"]),
    "two letters": (MCQ | {"ground_truth": "AB"}, ["not among the choices"]),
    "a long answer is cut in the message":
        (MCQ | {"ground_truth": "x" * 5000}, ["not among the choices", "..."]),
    "an answer over two lines": (MCQ | {"ground_truth": "a\nb"}, ["not among the choices"]),
    "one choice": (MCQ | {"choices": ["4"]}, ["1 choice,", "expected 2 to 26"]),
    "27 choices":
        (MCQ | {"choices": [str(i) for i in range(27)]}, ["27 choices", "expected 2 to 26"]),
    "duplicate choices":
        (MCQ | {"choices": ["3", "4", "5", "4 "]},
         ["choices 2 and 4 are both '4'", "expected different ones"]),
    "choices a string":
        (MCQ | {"choices": "3, 4"}, ["'choices' is a string", "expected a list of strings"]),
    "choices an object":
        (MCQ | {"choices": {"x": "3"}}, ["'choices' is an object with the keys x"]),
    "choices an object of one": (MCQ | {"choices": {"A": "3"}}, ["1 choice, expected 2 to 26"]),
    "a NUL character": (MCQ | {"question_text": "a\0"}, ["'question_text'", "NUL character"]),
    "choices empty string": (MCQ | {"choices": ""}, ["'choices' is a string"]),
    "a choice that is a number":
        (MCQ | {"choices": ["3", 4]}, ["choice 2 is a number", "expected a string"]),
    "a choice without text": (MCQ | {"choices": ["4", " "]}, ["choice 2 is empty"]),
    "a choice with half a surrogate pair":
        (MCQ | {"choices": ["4", "\udfff"]}, ["choice 2", "surrogate"]),
}
BAD_ITEMS = [(load_documents, DOC, *row) for row in BAD_DOCUMENTS.values()]
BAD_ITEMS += [(load_questions, MCQ, *row) for row in BAD_QUESTIONS.values()]


@pytest.mark.parametrize("load, good, bad, fragments", BAD_ITEMS,
                         ids=[*BAD_DOCUMENTS, *BAD_QUESTIONS])
def test_bad_items(tmp_path, load, good, bad, fragments):
    ids = {name: value + "-good" for name, value in good.items() if name.endswith("_id")}
    good = good | ids
    check_refused(load, write(tmp_path, "list.json", [good, bad]), ["item 2: ", *fragments])
    lines = "\n" + jsonl(good, bad)
    check_refused(load, write(tmp_path, "lines.jsonl", lines), ["line 3: ", *fragments])


def test_bad_paths(tmp_path):
    for load in (load_documents, load_questions):
        check_refused(load, str(tmp_path / "missing.json"), ["no such file"])
    check_refused(load_documents, str(tmp_path / "missing.md"), ["no such file"])
    check_refused(load_documents, str(tmp_path), ["no text file in this folder", ".md, .txt"])
    check_refused(load_questions, str(tmp_path), ["is a folder", "expected a file of questions"])
    inside = write(tmp_path, "file.json", [DOC]) + "/inside.json"
    check_refused(load_documents, inside, ["cannot be read"])


@pytest.mark.parametrize("content, fragments", [
    ("", ["file is empty"]),
    ("# Only\n## headings\n", ["no text outside headings"]),
    (b"caf\xe9", ["not UTF-8", "0xe9", "offset 3"]),
    ("# A heading of seven words in all\nText.", ["headings alone reach max_chunk_tokens"]),
])
def test_bad_text_files(tmp_path, content, fragments):
    path = write(tmp_path, "file.md", content)
    check_refused(lambda path: load_documents(path, max_tokens=8), path, fragments)


def test_bad_text_files_in_a_folder(tmp_path):
    folder = tmp_path / "notes"
    write(folder, "empty.md", "")
    check_refused(load_documents, str(folder), ["hold no text"])
    write(folder, "latin.txt", b"caf\xe9")
    with pytest.raises(InputError, match="latin.txt: not UTF-8"):
        load_documents(folder)


# ---------------------------------------------------------------- the hub

def fake_hub(monkeypatch, hf_hub_download):
    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_hub_files_are_fetched_by_name(tmp_path, monkeypatch):
    asked = []

    def hf_hub_download(repo_id, filename, repo_type):
        asked.append((repo_id, filename, repo_type))
        return write(tmp_path, "blob", [MCQ, without(MCQ, "question_id")])
    fake_hub(monkeypatch, hf_hub_download)
    questions = load_questions("hf://datasets/Siyuc/infuser_train/benchmarks/math500.json")
    assert asked == [("Siyuc/infuser_train", "benchmarks/math500.json", "dataset")]
    # named after the file asked for, not the cache
    assert [q.question_id for q in questions] == ["q1", "math500-2"]


def test_hub_failures_are_one_line(monkeypatch):
    def hf_hub_download(**_):
        raise ConnectionError("no route\nto the hub")
    fake_hub(monkeypatch, hf_hub_download)
    path = "hf://datasets/Siyuc/infuser_train/documents.json"
    why = "could not be fetched from the hub"
    check_refused(load_documents, path, [why, "ConnectionError: no route to the hub"])
    # not installed
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    check_refused(load_documents, path, [why, "huggingface_hub"])
    for path in ("hf://datasets/Siyuc/infuser_train", "hf://Siyuc/infuser_train/documents.json"):
        check_refused(load_documents, path, ["expected hf://datasets/ORG/NAME/FILE"])


# ---------------------------------------------------------------- chunks

def random_sentence(rng, words):
    return " ".join(next(words) for _ in range(rng.randint(1, 15))) + rng.choice(".?!")


def random_markdown(rng):
    """A text of numbered words, so that every word is different.

    With headings, paragraphs, sentences, stray blank lines.
    """
    words = (f"w{i}" for i in range(10 ** 6))
    lines = []
    for _ in range(rng.randint(1, 12)):
        if rng.random() < 0.3:
            lines.append("#" * rng.randint(1, 4) + f" h{len(lines)}")
        sentences = [random_sentence(rng, words) for _ in range(rng.randint(1, 8))]
        lines += [rng.choice([" ", "\n"]).join(sentences), *[""] * rng.randint(1, 3)]
    return "\n".join(lines)


def body_of(text):
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("seed", range(30))
def test_chunks_lose_nothing_and_fit(seed):
    rng = random.Random(seed)
    text = random_markdown(rng)
    # up to 4 headings of 2 words each leave room for 2
    max_tokens = rng.randint(10, 60)
    chunks = chunk(text, max_tokens)
    assert " ".join(body_of("\n".join(chunks))).split() == " ".join(body_of(text)).split()
    assert all(count_words(part) <= max_tokens for part in chunks)


@pytest.mark.parametrize("seed", range(30))
def test_each_chunk_keeps_its_headings(seed):
    text = random_markdown(random.Random(seed))
    # which headings each word lies under, found another way: one open heading per level
    above = {}
    headings = {}
    for line in text.splitlines():
        if line.startswith("#"):
            level = line.index(" ")
            above = {k: h for k, h in above.items() if k < level} | {level: line}
        else:
            headings |= {word: list(above.values()) for word in line.split()}
    for part in chunk(text, 25):
        for word in " ".join(body_of(part)).split():
            above = [line for line in part.splitlines() if line.startswith("#")]
            assert headings[word] == above


def test_a_text_is_cut_at_paragraphs_then_sentences_then_words():
    assert chunk("One two.\n\nThree four. Five six.", 4) == ["One two.", "Three four. Five six."]
    assert chunk("One two. Three four five. Six.", 3) == ["One two.", "Three four five.", "Six."]
    assert chunk("one two three four five", 3) == ["one two three", "four five"]
    # a decimal point ends no sentence
    assert chunk("a 3.5 m rod", 2) == ["a 3.5", "m rod"]
    # lines of a list count as sentences
    assert chunk("- one two\n- three four", 4) == ["- one two", "- three four"]
    assert chunk("一二。三四。", 3, len) == ["一二。", "三四。"]
    # a word may be cut only if it is too long by itself
    assert "".join(chunk("x" * 100, 7, len)) == "x" * 100


def test_without_a_limit_a_chunk_is_a_section():
    text = "Before.\n\n# A\n\nOne.\n\nTwo.\n\n### B\n## C\nThree.\n# D"
    assert chunk(text) == ["Before.", "# A\n\nOne.\n\nTwo.", "# A\n\n## C\n\nThree."]


def test_text_that_fits_is_left_as_it_is():
    text = "A  table:\n\n    x   y\n    1   2\n\n\nEnd."
    assert chunk(text, 100) == [text]


def test_only_headings_are_headings():
    for code in ("```\n# a comment\n~~~\n# b\n```", "````\n```\n# a comment\n```\n````"):
        assert chunk(code) == [code]
        assert chunk(code + "\n# H\nText.") == [code, "# H\n\nText."]
    # code within a line opens nothing
    inline = "# A\n\n```x = 1```\none\n\n# B\n\ntwo"
    assert chunk(inline) == ["# A\n\n```x = 1```\none", "# B\n\ntwo"]
    assert chunk("#hashtag\n\n#\n\n####### seven") == ["#hashtag\n\n#\n\n####### seven"]
    text = "  ## A ##\r\nText.\r\n~~~\r\n# no\r\n~~~\r\n# B\rEnd."
    assert chunk(text) == ["## A ##\n\nText.\n~~~\n# no\n~~~", "# B\n\nEnd."]


def test_a_long_text_takes_few_counts():
    calls = Counter()

    def count_tokens(text):
        calls["words"] += len(text.split())
        return len(text.split())
    chunks = chunk("One two three four five. " * 4000, 100, count_tokens)
    assert 200 <= len(chunks) <= 400
    # each word is counted once per halving, not once per sentence
    assert calls["words"] < 20_000 * 12
