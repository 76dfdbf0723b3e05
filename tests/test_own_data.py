"""The example data loads, and the task for lm-evaluation-harness asks what solver.py asks."""
from pathlib import Path

import pytest

import data
import solver

EXAMPLE = Path(data.__file__).resolve().parent / "docs/example"


def test_the_example_notes_and_questions_load():
    documents = data.load_documents(str(EXAMPLE / "notes"))
    assert len(documents) == 7 and documents[0].content.startswith("# Batteries")
    kinds = {bool(question.choices) for question in data.load_questions(str(EXAMPLE / "dev.jsonl"))}
    assert kinds == {True, False}                           # multiple choice and free-form
    assert all(question.choices for question in data.load_questions(str(EXAMPLE / "test.jsonl")))


def test_the_harness_asks_what_the_solver_was_trained_on():
    yaml, jinja2 = pytest.importorskip("yaml"), pytest.importorskip("jinja2")
    task = yaml.safe_load((EXAMPLE / "own_questions.yaml").read_text())
    render = lambda name, question: jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(task[name]).render(vars(question))
    for question in data.load_questions(str(EXAMPLE / "dev.jsonl")) + data.load_questions(str(EXAMPLE / "test.jsonl")):
        assert render("doc_to_text", question) == solver.prompt_text(question)
        assert render("doc_to_target", question) == (question.letter or question.ground_truth)
