"""The report says what the run folder says, numbers by hand or by dugrpo, and no text of a run can become code or break the page.

    python tests/test_report.py FOLDER       # writes a made-up run of 100 iterations of 1,024 drafts, to see how large and fast its page is
"""
import json
import os
import random
import re
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest
import torch

import report
from data import InputError
from dugrpo import MODES, dugrpo

EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u2028 \ud800 \x00"
CONFIG = dict(reward="influence", advantage="dugrpo", invalid_score=0.0, seed=0, iterations=3, docs_per_step=2, questions_per_doc=4,
              answers_per_question=4, model="/models/tiny", max_chunk_tokens=64)


def fake_draft(rng, t, d, j, words, valid):
    """A line of questions.jsonl as log.py writes it; words: length of its texts."""
    text = lambda n: " ".join(rng.choice(["light", "bends", "water", "where", "glass", "meets"]) for _ in range(n))
    choices, solved = [f"{c} {text(words // 8)}" for c in "pqrs"], rng.randrange(5) / 4
    s_hat = 0.0 if solved in (0, 1) else rng.gauss(0, 0.05)
    row = {"iteration": t, "slot": [d, j], "doc_id": f"chapter{d % 3}-{(t * 131 + d) % 12000}", "status": "valid", "text": None,
           "tokens": 80, "question": f"{rng.choice(['What', 'Why'])} {text(words)}?", "choices": choices, "answer": choices[1],
           "solved": solved, "score": s_hat, "s_hat": s_hat, "own_share": 0.1, "overlap": [],
           "answers": [{"text": text(words), "right": True}, {"text": text(words), "right": False}]}
    return row if valid else {key: None for key in row} | {key: row[key] for key in ("iteration", "slot", "doc_id")} | {
        "status": "duplicate_choices", "text": text(words)}


def write_run(folder, T=3, D=2, n=4, words=8, reward="influence", documents=None, **changes):
    """A made-up run folder -> (its path, its drafts). changes: fields of every valid draft that differ."""
    rng, folder = random.Random(0), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | dict(reward=reward, iterations=T, docs_per_step=D, questions_per_doc=n, documents=str(documents))
    (folder / "config.json").write_text(json.dumps(config))
    drafts = [fake_draft(rng, t, d, j, words, valid=rng.random() < 0.8) for t in range(1, T + 1) for d in range(D) for j in range(n)]
    drafts = [row | (changes if row["status"] == "valid" else {}) for row in drafts]
    for t in range(1, T + 1):
        s = torch.tensor([row["score"] or 0.0 for row in drafts if row["iteration"] == t]).reshape(D, n)
        for row, A in zip((row for row in drafts if row["iteration"] == t), dugrpo(s).flatten().tolist()):
            row["A_gen"] = A
    metrics = [{"iteration": t, "dev_accuracy": 0.5, "test_accuracy": 0.6 if t == T else None,
                "test_standard_error": 0.02 if t == T else None, "test_accuracy_anchor": 0.4, "valid_share": 0.8, "solved_share": 0.5,
                "skipped_steps": 0, "draft_entropy": 0.3, "seconds": {"dev": 1.0, "write": 2.0}} for t in range(1, T + 1)]
    for name, rows in [("metrics", metrics), ("questions", drafts)]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder), drafts


def embedded(html):
    """The data of a page, and the page around it."""
    before, rest = html.split('id="data">')
    data, after = rest.split("</script>", 1)
    return json.loads(data), before + after


def make_page(*folders):
    loaded = [report.load_run(folder) for folder in folders]
    html, k = report.page(loaded, report.aligned([report.summary(run, name) for run, name in zip(loaded, report.names_of(folders))]))
    return embedded(html)[0], html, k


# ---------------------------------------------------------------- the numbers

def test_the_advantages_shown_are_those_the_run_recorded(tmp_path):
    folder, drafts = write_run(tmp_path / "run", T=3, D=5, n=8)
    data, _, _ = make_page(folder)
    recorded, shown = {(row["question"], row["iteration"]): row["A_gen"] for row in drafts if row["status"] == "valid"}, 0
    for t, lists in data["runs"][0]["questions"].items():
        for x in lists["most"] + lists["least"]:
            assert x["A"]["dugrpo"] == pytest.approx(recorded[x["question"], int(t)], abs=1e-4)
            shown += 1
    assert shown == 3 * 16


def test_an_invalid_draft_counts_with_its_own_score():
    """Two drafts of one document, one invalid at -1: under "none" the valid one is half a point above their mean of -.75."""
    rows = [{"slot": [0, 0], "status": "valid", "score": -0.5}, {"slot": [0, 1], "status": "truncated", "score": None}]
    s = report.grid(rows, {"invalid_score": -1.0})
    assert s.tolist() == [[-0.5, -1.0]]
    assert dugrpo(s, "none").tolist() == [[0.25, -0.25]]


def test_a_grid_with_a_hole_is_no_grid():
    assert report.grid([{"slot": [0, 0], "status": "valid", "score": 1.0}, {"slot": [1, 1], "status": "valid", "score": 2.0}], {}) is None


def test_most_and_least_useful_are_the_ends_of_the_ranking(tmp_path):
    folder, drafts = write_run(tmp_path / "run", D=6, n=8)
    data, _, _ = make_page(folder)
    for t in (1, 2, 3):
        scores = sorted((row["score"] for row in drafts if row["iteration"] == t and row["status"] == "valid"), reverse=True)
        lists = data["runs"][0]["questions"][str(t)]
        assert [x["score"] for x in lists["most"]] == pytest.approx(scores[:8], rel=1e-4)
        assert [x["score"] for x in lists["least"]] == pytest.approx(scores[::-1][:8], rel=1e-4)


def test_no_question_stands_at_both_ends(tmp_path):
    folder, drafts = write_run(tmp_path / "run", T=1, D=1, n=6)
    lists = make_page(folder)[0]["runs"][0]["questions"]["1"]
    assert len(lists["most"]) + len(lists["least"]) == sum(row["status"] == "valid" for row in drafts)
    assert not {x["question"] for x in lists["most"]} & {x["question"] for x in lists["least"]}


def test_shares_of_a_stack_add_up(tmp_path):
    folder, drafts = write_run(tmp_path / "run")
    charts = make_page(folder)[0]["runs"][0]["charts"]
    for key in ("groups", "difficulty"):
        for column in zip(*charts[key]["parts"].values()):
            assert sum(column) == pytest.approx(1, abs=1e-4)
    invalid = [sum(row["status"] != "valid" for row in drafts if row["iteration"] == t) / 8 for t in (1, 2, 3)]
    assert charts["invalid"]["parts"] == {"duplicate choices": invalid}


def test_quantiles_of_five_scores(tmp_path):
    """Of 0, 1, 2, 3, 4 the median is 2 and the middle half reaches from 1 to 3."""
    rows = {1: [{"status": "valid", "score": float(s), "solved": 0.5} for s in range(5)]}
    charts = report.score_charts({}, rows)
    assert charts["score_quantiles"]["y"] == (2.0,) and charts["score_quantiles"]["bands"][1] == [[1.0], [3.0]]
    assert charts["score_by_solved"]["x"] == (0.5,) and charts["score_by_solved"]["y"] == (2.0,)


def test_test_accuracy_starts_at_the_anchor_and_is_never_interpolated(tmp_path):
    chart = make_page(write_run(tmp_path / "run")[0])[0]["runs"][0]["charts"]["test_accuracy"]
    assert chart == {"x": [0, 3], "y": [0.4, 0.6], "bars": [0, pytest.approx(1.96 * 0.02)]}


# ---------------------------------------------------------------- what a run may lack

def test_a_fixed_generator_was_paid_nothing(tmp_path):
    folder, _ = write_run(tmp_path / "run", reward="fixed", score=None, s_hat=None)
    data, _, _ = make_page(folder)
    run, (solver, curriculum, paid, *_) = data["runs"][0], data["sections"]
    assert not run["scored"] and "score_mean" in [panel[0] for panel in paid["missing"]]
    lists = run["questions"]["1"]
    assert all(x["A"] == {} and x["score"] is None for x in lists["most"])
    solved = [x["solved"] for x in lists["most"] + lists["least"][::-1]]
    assert solved == sorted(solved, reverse=True)


def test_what_is_always_zero_or_not_recorded_is_named_not_drawn(tmp_path):
    health = make_page(write_run(tmp_path / "run")[0])[0]["sections"][3]
    named = {kind: [panel[0] for panel in health[kind]] for kind in ("draw", "zero", "missing")}
    assert named["zero"] == ["skipped_steps"] and "valid_share" in named["draw"] and "mixed_share" in named["missing"]


def test_a_run_from_before_score_was_recorded_is_ranked_by_s_hat(tmp_path):
    folder, drafts = write_run(tmp_path / "run")
    new = ("score", "answers", "tokens", "own_share", "overlap")
    old = [{key: value for key, value in row.items() if key not in new} for row in drafts]
    (tmp_path / "run" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    x = make_page(folder)[0]["runs"][0]["questions"]["2"]["most"][0]
    assert x["score"] == pytest.approx(max(row["s_hat"] for row in drafts if row["iteration"] == 2 and row["s_hat"] is not None), rel=1e-4)
    assert x["answers"] == [] and x["tokens"] is None


def test_skills_are_told_in_the_embedded_world_only(tmp_path):
    question = dict(question="What is 2 plus 3?", choices=["4", "5", "6", "7"], answer="5")
    folder, _ = write_run(tmp_path / "toy", **question)
    assert make_page(folder)[0]["runs"][0]["by"] == "document"
    path = Path(folder, "metrics.jsonl")
    path.write_text("".join(json.dumps(json.loads(line) | {"key_accuracy": 1.0}) + "\n" for line in path.read_text().splitlines()))
    run = make_page(folder)[0]["runs"][0]
    assert run["by"] == "skill" and list(run["charts"]["groups"]["parts"]) == ["plus"]
    assert run["questions"]["1"]["most"][0]["truth"] == ["plus", True]


def test_documents_are_shown_once_and_their_loss_is_said(tmp_path):
    path = tmp_path / "documents.json"
    folder, drafts = write_run(tmp_path / "run", documents=path)
    assert "no such file" in make_page(folder)[0]["runs"][0]["notes"][0]
    names = sorted({row["doc_id"] for row in drafts}) + ["unread-1"]
    path.write_text(json.dumps([{"doc_id": name, "content": f"text of {name}"} for name in names]))
    data, html, _ = make_page(folder)
    name = drafts[0]["doc_id"]
    assert data["runs"][0]["documents"][name] == f"text of {name}" and html.count(f"text of {name}\"") == 1
    assert "unread-1" not in data["runs"][0]["documents"] and data["runs"][0]["notes"] == []


def test_a_killed_run_is_read_up_to_its_last_whole_iteration(tmp_path):
    folder, drafts = write_run(tmp_path / "run")
    with open(f"{folder}/questions.jsonl", "a") as f:
        f.write(json.dumps(drafts[0] | {"iteration": 4}) + "\n" + json.dumps(drafts[0])[:50])
    with open(f"{folder}/metrics.jsonl", "a") as f:
        f.write('{"iteration": 4, "dev_acc')
    run = make_page(folder)[0]["runs"][0]
    assert run["t"] == [1, 2, 3]
    assert len(run["notes"]) == 4 and "metrics.jsonl is cut short" in run["notes"][0] and "1 drafts of an unfinished" in run["notes"][3]


@pytest.mark.parametrize("name, content, message", [
    ("config.json", None, "config.json: cannot be read"), ("config.json", "{", "config.json: expected a JSON object"),
    ("config.json", "[1]", "config.json: expected a JSON object"), ("metrics.jsonl", None, "metrics.jsonl: cannot be read"),
    ("metrics.jsonl", "", "no finished iteration"),
    ("metrics.jsonl", '{"iteration": 1}\nnonsense\n{"iteration": 2}\n', "line 2: broken JSON"),
    ("metrics.jsonl", '{"dev_accuracy": 1}\n', "line 1: expected an object with iteration"),
    ("questions.jsonl", '{"iteration": 1}\n', "line 1: expected an object with iteration, slot"),
])
def test_a_broken_folder_is_one_clear_line(tmp_path, name, content, message):
    folder, _ = write_run(tmp_path / "run")
    Path(folder, name).unlink() if content is None else Path(folder, name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        report.main([folder])
    assert "\n" not in str(error.value) and not Path(folder, "report.html").exists()


def test_a_mistyped_folder_ends_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(report.__file__, run_name="__main__")
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and printed.startswith("error: ") and printed.count("\n") == 1


# ---------------------------------------------------------------- the page

def test_no_text_of_a_model_can_leave_its_place(tmp_path):
    path = tmp_path / "documents.json"
    folder, drafts = write_run(tmp_path / "run", question=EVIL, choices=[EVIL, "b", "c", EVIL + "!"], answer=EVIL, documents=path,
                               answers=[{"text": EVIL, "right": False}], doc_id=EVIL[:40])
    path.write_text(json.dumps([{"doc_id": EVIL[:40], "content": EVIL.replace("\ud800", "")}]))
    loaded = [report.load_run(folder)]
    html, _ = report.page(loaded, [report.summary(loaded[0], EVIL)])
    data, around = embedded(html)
    html.encode("utf-8")                                                    # no half surrogate pair is left
    shown = EVIL.replace("\ud800", "?")
    assert data["runs"][0]["name"] == shown and data["runs"][0]["questions"]["1"]["most"][0]["question"] == shown
    assert "alert" not in around
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(|href|src=|https?://(?!www\.w3\.org/2000/svg)", around)


def test_values_that_are_not_finite_become_nothing():
    assert report.clean({"a": [float("nan"), float("inf"), 0.1234567, "x\ud800"], 1: True}) == {"a": [None, None, 0.12346, "x?"], "1": True}


def test_long_texts_are_cut_and_a_large_run_keeps_fewer_questions(tmp_path, monkeypatch):
    folder, _ = write_run(tmp_path / "run", D=6, n=8, words=600)
    data, html, k = make_page(folder)
    longest = report.LONGEST["question"]
    assert k == 8 and all(x["question"][longest:].startswith(" [... ") for x in data["runs"][0]["questions"]["1"]["most"])
    monkeypatch.setattr(report, "LIMIT", 0.6 * len(html))
    smaller, html, k = make_page(folder)
    assert k == 4 and len(smaller["runs"][0]["questions"]["1"]["most"]) == 4 and len(html) < 0.7 * report.LIMIT / 0.6 + 20000


def test_runs_of_one_name_are_told_apart_and_their_stacks_aligned(tmp_path):
    one, _ = write_run(tmp_path / "a" / "run")
    two, _ = write_run(tmp_path / "b" / "run", T=5, D=3)
    runs = make_page(one, two)[0]["runs"]
    assert runs[0]["name"] != runs[1]["name"]
    assert list(runs[0]["charts"]["groups"]["parts"]) == list(runs[1]["charts"]["groups"]["parts"]) == ["chapter0", "chapter1", "chapter2"]
    assert runs[0]["charts"]["groups"]["parts"]["chapter2"] == [0, 0, 0]


def test_the_command_writes_page_and_figures(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    keys = ("test_accuracy", "difficulty", "score_by_solved")
    three = [panel for _, _, panels in report.SECTIONS for panel in panels if panel[0] in keys]
    monkeypatch.setattr(report, "SECTIONS", [("Three of the charts", "Drawing all takes a while.", three)])
    one, two = write_run(tmp_path / "one")[0], write_run(tmp_path / "two", T=1)[0]
    report.main([one, two, "--figures", str(tmp_path / "figures")])
    figures = os.listdir(tmp_path / "figures")
    names = ["difficulty-1", "difficulty-2", "score_by_solved", "test_accuracy"]
    assert sorted(figures) == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    printed = capsys.readouterr().out
    assert f"{one}/report.html: " in printed and "4 charts" in printed
    assert os.listdir(tmp_path / "one").count("report.html") == 1 and not list(tmp_path.glob("one/*.part"))


def test_every_chart_has_a_title_and_says_what_it_means():
    panels = [panel for _, _, panels in report.SECTIONS for panel in panels]
    assert len({panel[0] for panel in panels}) == len(panels) > 30
    assert all(unit in ("%", "s", "+", "") and title and caption.endswith(".") for _, unit, title, caption in panels)
    assert set(MODES) == {"dugrpo", "group_std", "batch_std", "none"}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    text = "Light bends where water meets glass. " * 100
    texts = [{"doc_id": f"chapter{c}-{i}", "content": f"{c} {i} {text}"} for c in range(3) for i in range(12000)]
    (folder / "documents.json").write_text(json.dumps(texts))
    write_run(folder / "run", T=100, D=128, n=8, words=100, documents=folder / "documents.json")
