"""Hybrid RLVR's other way: problems with their answers as documents that the generator reads."""
import json
from collections import Counter

import pytest

import extensions
import train
from config import ROOT, Config
from data import Document, InputError, Question
from engine import flags, page, presets
from engine.pools import chunks

PROBLEMS = [Question(f"What is {i} plus 1?", [], str(i + 1), f"p-{i}") for i in range(4)]
NOTES = [Document(f"n-{i}", "A note.") for i in range(6)]
DEV = [Question("what is 0 PLUS 1", [], "1", "d-0")]


def study(say=print, most=99, **fields):
    """A study whose rlvr_documents file holds PROBLEMS, without those that are known."""
    def questions_of(name, load=None, known=()):
        texts = {x.question_text.lower().strip("?") for x in known}
        new = [x for x in PROBLEMS if x.question_text.lower().strip("?") not in texts]
        return new if name == "rlvr_documents" else []

    cfg = Config(rlvr_documents="p.json", max_prompt_tokens=most, **fields)
    return extensions.study_of(
        cfg, NOTES, DEV, questions_of, lambda document: len(document.content.split()), say)


# ---------------------------------------------------------------- what is read

def test_a_problem_of_many_options_shows_them_before_its_answer():
    document, = chunks([Question("2 + 2 = ?", ["3", "4"], "4", "q")], 0)
    assert document == Document("q", "## Problem\n2 + 2 = ?\n- 3\n- 4\n\n## Answer\n4")


def test_as_released_each_problem_comes_about_as_often_as_every_other():
    """10,000 documents of 1,039 problems: 9 or 10 times each."""
    problems = [Question("?", [], "1", f"p-{i}") for i in range(1039)]
    made = chunks(problems, 10000)
    counts = Counter(document.doc_id for document in made)
    assert len(made) == 10000 and len(counts) == 1039 and set(counts.values()) == {9, 10}


def test_they_are_documents_beside_the_others_and_no_dev_question_is_among_them():
    said = []
    found = study(said.append, docs_per_step=9)
    # of four problems one is a dev question, whatever its case and punctuation
    assert Counter(document.doc_id[0] for document in found.documents(1)) == {"n": 6, "p": 3}
    assert [x.question_id for x in found.read] == ["p-1", "p-2", "p-3"]
    assert said == ["3 documents of 3 problems beside 6 others, 0 left out as too long"]
    # what the generator has read is no validation question
    assert found.all_asked() == DEV + found.read


def test_the_solver_is_given_none_of_them_and_everything_else_is_the_main_recipe():
    found = study()
    assert type(found) is extensions.MainRecipe and found.problems(1) == []


def test_more_of_them_than_problems_and_several_in_one():
    found = study(rlvr_chunks=12, rlvr_per_chunk=2, docs_per_step=18)
    made = [x for x in found.documents(1) if x.doc_id.startswith("p")]
    assert len(made) == 12 and all(x.content.count("## Answer") == 2 for x in made)


def test_what_does_not_fit_is_left_out_and_said():
    said = []
    # of three problems two are in one document, of 20 words, and the third alone, of 10
    found = study(said.append, most=15, rlvr_per_chunk=2)
    assert said == ["1 documents of 3 problems beside 6 others, 1 left out as too long"]
    assert [x.doc_id for x in found.pool[6:]] == ["p-3"]
    with pytest.raises(InputError, match="none of the 3 documents of problems fits"):
        study(most=3)


@pytest.mark.parametrize("words, complaint", [
    (["--rlvr_documents", "p.json", "--train_on", "dev"], "none unless train_on is generated"),
    (["--rlvr_documents", "p.json", "--seed_questions", "4"], "none unless train_on is generated"),
    (["--rlvr_documents", "p.json", "--open_book"], "none beside open_book"),
    (["--rlvr_chunks", "5"], "rlvr_chunks = 5: expected 0 without rlvr_documents"),
    (["--rlvr_per_chunk", "2"], "rlvr_per_chunk = 2: expected 1 without rlvr_documents"),
    (["--rlvr_documents", "p.json", "--rlvr_chunks", "2000000"], "at most 1,000,000")])
def test_settings_that_would_do_nothing_are_refused(words, complaint):
    with pytest.raises(InputError) as caught:
        flags.parse(words)
    assert complaint in str(caught.value)


def test_the_page_shows_what_was_read(tmp_path):
    (tmp_path / "notes.json").write_text(json.dumps([{"doc_id": "n", "content": "A note."}]))
    items = [{"question_id": "p", "question_text": "1 + 1 = ?", "ground_truth": "2"}]
    (tmp_path / "problems.json").write_text(json.dumps(items))
    config = dict(documents=str(tmp_path / "notes.json"), rlvr_chunks=5, rlvr_per_chunk=1)
    config["rlvr_documents"] = str(tmp_path / "problems.json")
    texts, missing = page.load_texts(str(tmp_path), config)
    assert missing is None
    assert texts == {"n": "A note.", "p": "## Problem\n1 + 1 = ?\n\n## Answer\n2"}


# ---------------------------------------------------------------- in the loop

def toy_run(tmp_path, name, **changes):
    """Two iterations of the embedded world's free anchor -> lines of metrics and of questions."""
    sizes = dict(preset="toy-free", iterations=2, docs_per_step=6, questions_per_doc=4,
                 answers_per_question=4, minibatch_rows=16, eval_every=9, threads=1, show_every=0,
                 device="cpu", run=str(tmp_path / name))
    sizes["dev"] = str(tmp_path / "dev.json")
    questions = json.loads((ROOT / "toy/free/dev-mixed.json").read_text(encoding="utf-8"))[:24]
    (tmp_path / "dev.json").write_text(json.dumps(questions), encoding="utf-8")
    train.train(flags.from_flags(sizes | {"test": None} | changes))
    return [[json.loads(line) for line in (tmp_path / name / file).open(encoding="utf-8")]
            for file in ("metrics.jsonl", "questions.jsonl")]


@pytest.mark.slow
def test_both_ways_run_alone_and_side_by_side(tmp_path):
    pool = str(ROOT / "toy/free/rlvr.json")
    read = dict(rlvr_documents=pool, rlvr_chunks=600, rlvr_per_chunk=3)
    direct = dict(rlvr=pool, rlvr_per_step=6, unboxed_penalty=0.5)
    ids = {x["question_id"] for x in json.loads((ROOT / "toy/free/rlvr.json").read_text())}
    seen = {}
    for name, changes in (("read", read), ("direct", direct), ("both", read | direct)):
        metrics, drafts = toy_run(tmp_path, name, **changes)
        shares = [x["rlvr_solved_share"] for x in metrics]
        of_problems = [x for x in drafts if set(x["doc_id"].split("+")) <= ids]
        assert len(metrics) == 2 and all(x["solver_grad_norm"] > 0 for x in metrics)
        # the direct path answers problems, the other drafts from them
        assert all(share is not None for share in shares) == ("rlvr" in changes)
        assert bool(of_problems) == ("rlvr_documents" in changes)
        assert len(of_problems) < len(drafts)
        seen[name] = [x for x in drafts if x["iteration"] == 1]
    # in the first iteration the problems beside them change no draft and no score
    assert seen["read"] == seen["both"] != seen["direct"]


@pytest.mark.slow
def test_without_them_the_documents_are_those_of_always(tmp_path):
    metrics, drafts = toy_run(tmp_path, "plain")
    known = {x["doc_id"] for x in json.loads(open(presets.TOY["documents"]).read())}
    assert {x["doc_id"] for x in drafts} <= known and metrics[0]["rlvr_solved_share"] is None
