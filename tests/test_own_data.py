"""The example data loads, and the task for lm-evaluation-harness asks what solver.py asks."""
import pytest

import solver
from config import ROOT
from engine import readers

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
