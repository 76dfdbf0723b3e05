"""The example data loads, and the task for lm-evaluation-harness asks what solver.py asks."""
import json
import re
import subprocess
import sys

import pytest

import solver
from config import ROOT
from data import Question
from engine import readers, summary
from engine.layouts import ANSWER, CHOICES, POINTER, QUESTION, folded_name
from engine.texts import READERS

EXAMPLE = ROOT / "docs/example"


def questions_in(name):
    return readers.load_questions(str(EXAMPLE / name))


def test_the_example_notes_and_questions_load():
    documents = readers.load_documents(str(EXAMPLE / "notes"))
    assert len(documents) == 7 and documents[0].content.startswith("# Batteries")

    # multiple choice and free-form
    kinds = {bool(question.choices) for question in questions_in("dev.jsonl")}
    assert kinds == {True, False}
    assert all(question.choices for question in questions_in("test.jsonl"))


def test_the_harness_asks_what_the_solver_was_trained_on():
    yaml = pytest.importorskip("yaml")
    jinja2 = pytest.importorskip("jinja2")
    task = yaml.safe_load((EXAMPLE / "own_questions.yaml").read_text())
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    prompt = environment.from_string(task["doc_to_text"])
    target = environment.from_string(task["doc_to_target"])

    for question in questions_in("dev.jsonl") + questions_in("test.jsonl"):
        assert prompt.render(vars(question)) == solver.prompt_text(question)
        assert target.render(vars(question)) == (question.letter or question.ground_truth)


def test_the_page_names_every_suffix_of_notes():
    page = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
    assert [suffix for suffix in READERS if f"`{suffix}`" not in page] == []


def test_the_fields_that_the_page_names_are_known_to_the_reader():
    page = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
    rows = page.split("| layout |")[1].split("\n\n")[0].split("\n")[2:]
    known = set(map(folded_name, (*QUESTION, *CHOICES, *ANSWER, *POINTER)))
    for row in rows:
        named = set(map(folded_name, re.findall(r"`([\w ]+)`", row)))
        assert named & known, row


def test_show_data_shows_three_examples_of_each_file_and_needs_no_model():
    words = ["--show_data", "--model", "NOBODY/HAS-THIS", "--documents", str(EXAMPLE / "notes"),
             "--dev", str(EXAMPLE / "dev.jsonl")]
    shown = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True,
                           text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "documents: 7 from" in shown.stdout and "dev: 6 from" in shown.stdout
    assert len(re.findall(r"^    \[.*\]$", shown.stdout, re.M)) == 6
    assert "<- the key" in shown.stdout


def test_show_data_reads_questions_as_the_run_does(tmp_path):
    """A run's questions.jsonl: its valid drafts."""
    rows = [{"status": "no_json", "question": None, "choices": None, "answer": None},
            {"status": "valid", "question": "2 + 2 = ?", "choices": ["3", "4"], "answer": "4"}]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--show_data", "--preset", "toy", "--train_on", "file", "--questions", str(path)]
    shown = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True,
                           text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "questions: 1 from" in shown.stdout and "2 + 2 = ?" in shown.stdout


def test_test_questions_that_are_asked_elsewhere_are_counted():
    def asked(*texts):
        return [Question(text, ["3", "4"], "4") for text in texts]

    said = summary.asked_twice(asked("2 + 2 = ?", "What is 4?"), asked("what is 4"), "t.json")
    assert said.startswith("t.json: 1 of 2 test questions")
    assert summary.asked_twice(asked("2 + 2 = ?"), asked("2 + 3 = ?"), "t.json") is None
