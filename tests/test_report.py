"""The report says what the run folder says, numbers by hand or by dugrpo, and no text of a run can
become code or break the page.

    python tests/test_report.py FOLDER      writes a made-up run of 100 iterations of 1,024 drafts,
                                            to see how large and fast its page is
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
from engine import page

EVIL = ("</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> "
        "\u2028 \ud800 \x00")
CONFIG = dict(reward="influence", advantage="dugrpo", invalid_score=0.0, seed=0, iterations=3,
              docs_per_step=2, questions_per_doc=4, answers_per_question=4, model="/models/tiny",
              max_chunk_tokens=64)
WORDS = ["light", "bends", "water", "where", "glass", "meets"]


def fake_text(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def fake_draft(rng, t, d, j, words, valid):
    """A line of questions.jsonl as log.py writes it; words: length of its texts."""
    choices = [f"{letter} {fake_text(rng, words // 8)}" for letter in "pqrs"]
    solved = rng.randrange(5) / 4
    s_hat = 0.0 if solved in (0, 1) else rng.gauss(0, 0.05)
    place = {"iteration": t, "slot": [d, j], "doc_id": f"chapter{d % 3}-{(t * 131 + d) % 12000}"}
    draft = place | {
        "status": "valid", "text": None, "tokens": 80,
        "question": f"{rng.choice(['What', 'Why'])} {fake_text(rng, words)}?",
        "choices": choices, "answer": choices[1],
        "solved": solved, "score": s_hat, "s_hat": s_hat, "own_share": 0.1, "overlap": [],
        "answers": [{"text": fake_text(rng, words), "right": True},
                    {"text": fake_text(rng, words), "right": False}]}
    if valid:
        return draft
    empty = dict.fromkeys(draft)
    return empty | place | {"status": "duplicate_choices", "text": fake_text(rng, words)}


def fake_drafts(T, D, n, words, changes):
    """The drafts of T iterations, with their A_gen."""
    rng = random.Random(0)
    drafts = []
    for t in range(1, T + 1):
        of_t = []
        for d in range(D):
            for j in range(n):
                draft = fake_draft(rng, t, d, j, words, valid=rng.random() < 0.8)
                of_t.append(draft | (changes if draft["status"] == "valid" else {}))
        s = torch.tensor([draft["score"] or 0.0 for draft in of_t]).reshape(D, n)
        for draft, A in zip(of_t, dugrpo(s).flatten().tolist()):
            draft["A_gen"] = A
        drafts += of_t
    return drafts


def fake_metrics(t, T):
    last = t == T
    return {"iteration": t, "dev_accuracy": 0.5, "test_accuracy": 0.6 if last else None,
            "test_standard_error": 0.02 if last else None, "test_accuracy_anchor": 0.4,
            "valid_share": 0.8, "solved_share": 0.5, "skipped_steps": 0, "draft_entropy": 0.3,
            "seconds": {"dev": 1.0, "write": 2.0}}


def write_lines(path, items):
    Path(path).write_text("".join(json.dumps(item) + "\n" for item in items))


def write_run(folder, T=3, D=2, n=4, words=8, reward="influence", documents=None, **changes):
    """A made-up run folder -> (its path, its drafts).

    changes: fields of every valid draft that differ.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | dict(reward=reward, iterations=T, docs_per_step=D, questions_per_doc=n,
                           documents=str(documents))
    (folder / "config.json").write_text(json.dumps(config))
    drafts = fake_drafts(T, D, n, words, changes)
    write_lines(folder / "metrics.jsonl", [fake_metrics(t, T) for t in range(1, T + 1)])
    write_lines(folder / "questions.jsonl", drafts)
    return str(folder), drafts


def change_metrics(folder, **changes):
    """Sets fields in every line of a run's metrics.jsonl."""
    path = Path(folder, "metrics.jsonl")
    write_lines(path, [json.loads(line) | changes for line in path.read_text().splitlines()])


def embedded(html):
    """The data of a page, and the page around it."""
    before, rest = html.split('id="data">')
    data, after = rest.split("</script>", 1)
    return json.loads(data), before + after


def make_page(*folders):
    """Run folders -> (data of their page, the page, questions kept at each end)."""
    html, k = report.make(folders)[:2]
    return embedded(html)[0], html, k


def valid(draft):
    return draft["status"] == "valid"


def scores_at(drafts, t):
    return [draft["score"] for draft in drafts if draft["iteration"] == t and valid(draft)]


# ---------------------------------------------------------------- the numbers

def test_the_advantages_shown_are_those_the_run_recorded(tmp_path):
    folder, drafts = write_run(tmp_path / "run", T=3, D=5, n=8)
    data, _, _ = make_page(folder)
    recorded = {}
    for draft in filter(valid, drafts):
        recorded[draft["question"], draft["iteration"]] = draft["A_gen"]
    shown = 0
    for t, lists in data["runs"][0]["questions"].items():
        for x in lists["most"] + lists["least"]:
            assert x["A"]["dugrpo"] == pytest.approx(recorded[x["question"], int(t)], abs=1e-4)
            shown += 1
    assert shown == 3 * 16


def test_an_invalid_draft_counts_with_its_own_score():
    """Two drafts of one document, one invalid at -1: under "none" the valid one, at -.5, is a
    quarter above their mean of -.75.
    """
    drafts = [{"slot": [0, 0], "status": "valid", "score": -0.5},
              {"slot": [0, 1], "status": "truncated", "score": None}]
    s = page.grid(drafts, {"invalid_score": -1.0})
    assert s.tolist() == [[-0.5, -1.0]]
    assert dugrpo(s, "none").tolist() == [[0.25, -0.25]]


def test_a_grid_with_a_hole_is_no_grid():
    drafts = [{"slot": [0, 0], "status": "valid", "score": 1.0},
              {"slot": [1, 1], "status": "valid", "score": 2.0}]
    assert page.grid(drafts, {}) is None


def test_most_and_least_useful_are_the_ends_of_the_ranking(tmp_path):
    folder, drafts = write_run(tmp_path / "run", D=6, n=8)
    data, _, _ = make_page(folder)
    for t in (1, 2, 3):
        scores = sorted(scores_at(drafts, t), reverse=True)
        lists = data["runs"][0]["questions"][str(t)]
        assert [x["score"] for x in lists["most"]] == pytest.approx(scores[:8], rel=1e-4)
        assert [x["score"] for x in lists["least"]] == pytest.approx(scores[::-1][:8], rel=1e-4)


def test_no_question_stands_at_both_ends(tmp_path):
    folder, drafts = write_run(tmp_path / "run", T=1, D=1, n=6)
    lists = make_page(folder)[0]["runs"][0]["questions"]["1"]
    most = {x["question"] for x in lists["most"]}
    least = {x["question"] for x in lists["least"]}
    assert len(lists["most"]) + len(lists["least"]) == sum(map(valid, drafts))
    assert not most & least


def test_shares_of_a_stack_add_up(tmp_path):
    folder, drafts = write_run(tmp_path / "run")
    charts = make_page(folder)[0]["runs"][0]["charts"]
    for key in ("kinds", "difficulty"):
        for column in zip(*charts[key]["parts"].values()):
            assert sum(column) == pytest.approx(1, abs=1e-4)
    invalid = [(8 - len(scores_at(drafts, t))) / 8 for t in (1, 2, 3)]
    assert charts["invalid"]["parts"] == {"duplicate choices": invalid}


def test_quantiles_of_five_scores(tmp_path):
    """Of 0, 1, 2, 3, 4 the median is 2 and the middle half reaches from 1 to 3."""
    drafts = [{"status": "valid", "score": float(s), "solved": 0.5} for s in range(5)]
    charts = page.score_charts({}, {1: drafts})
    over_time = charts["score_quantiles"]
    by_solved = charts["score_by_solved"]
    assert over_time["y"] == (2.0,) and over_time["bands"][1] == [[1.0], [3.0]]
    assert by_solved["x"] == (0.5,) and by_solved["y"] == (2.0,)


def test_test_accuracy_starts_at_the_anchor_and_is_never_interpolated(tmp_path):
    data, _, _ = make_page(write_run(tmp_path / "run")[0])
    chart = data["runs"][0]["charts"]["test_accuracy"]
    assert chart == {"x": [0, 3], "y": [0.4, 0.6], "bars": [0, pytest.approx(1.96 * 0.02)]}


# ---------------------------------------------------------------- the card

def card_of(*folders):
    """Run folders -> (the facts of the first run as {what: (value, about it)}, its verdicts).

    Of two facts of one name the last.
    """
    card = make_page(*folders)[0]["runs"][0]["card"]
    return {what: (value, about) for what, value, about in card["facts"]}, card["verdicts"]


def lines_of(folder, name):
    return [json.loads(line) for line in Path(folder, name).read_text().splitlines()]


def test_the_card_says_the_result_its_interval_and_the_anchor(tmp_path):
    """.6 with standard error .02 is 60.0 % ± 3.9; .4 has the same error, since .4 x .6 = .6 x .4;
    their difference has 1.96 sqrt(2) x 2.0 = 5.5 points.
    """
    facts, verdicts = card_of(write_run(tmp_path / "run")[0])
    value, about = facts["Result"]
    assert value == "60.0 % ± 3.9" and "after 3 iterations" in about
    assert "half of a 95 % interval" in about and "1.96 standard errors" in about
    assert facts["Baseline"] == ("40.0 % ± 3.9", "the anchor, before training")
    assert verdicts[0].startswith("The result is 20.0 ± 5.5 points above the anchor, more than")


def test_the_error_of_the_anchor_is_that_of_its_answers(tmp_path):
    """61 and 37 of 101 questions right: the standard error is std / sqrt(101) of the 0s and 1s."""
    folder, _ = write_run(tmp_path / "run")
    after = torch.tensor([1.0] * 61 + [0.0] * 40, dtype=torch.float64)
    before = torch.tensor([1.0] * 37 + [0.0] * 64, dtype=torch.float64)
    change_metrics(folder, test_accuracy=61 / 101, test_accuracy_anchor=37 / 101,
                   test_standard_error=float(after.std()) / 101 ** 0.5)
    accuracy, error, t = page.anchor_test(page.load_run(folder))
    assert (accuracy, t) == (37 / 101, 0)
    assert error == pytest.approx(float(before.std()) / 101 ** 0.5, rel=1e-12)


def test_a_difference_within_its_interval_is_called_chance(tmp_path):
    folder, _ = write_run(tmp_path / "run")
    change_metrics(folder, test_accuracy_anchor=0.62)
    _, verdicts = card_of(folder)
    assert "2.0 ± 5.5 points below the anchor, no more than chance in the test" in verdicts[0]


def test_beside_another_run_that_run_is_a_baseline_too(tmp_path):
    one, _ = write_run(tmp_path / "one")
    two, _ = write_run(tmp_path / "two", T=2)
    change_metrics(two, test_accuracy=0.5, test_standard_error=0.02)
    facts, verdicts = card_of(one, two)
    assert facts["Baseline"] == ("50.0 % ± 3.9", "two, after 2 iterations")
    assert "20.0 ± 5.5 points above the anchor" in verdicts[0]
    assert "10.0 ± 5.5 points above two" in verdicts[0]
    assert "10.0 ± 5.5 points below one" in card_of(two, one)[1][0]


def test_a_run_without_tests_and_counts_claims_nothing(tmp_path):
    folder, _ = write_run(tmp_path / "run")
    change_metrics(folder, test_accuracy=None, test_standard_error=None, test_accuracy_anchor=None)
    facts, verdicts = card_of(folder)
    assert facts["Cost"][1] == "tokens were not counted"
    assert facts["Result"][0] == facts["Baseline"][0] == "unknown"
    assert verdicts[0].startswith("Nothing was tested")


def test_cost_and_memory_are_those_of_the_log(tmp_path):
    folder, _ = write_run(tmp_path / "run")
    change_metrics(folder, tokens_sampled=1000, tokens_trained=250, peak_memory_mb=1234.5,
                   seconds={"dev": 30.0, "write": 30.0})
    facts, _ = card_of(folder)
    log = lines_of(folder, "metrics.jsonl")
    sampled = sum(line["tokens_sampled"] for line in log)
    seconds = sum(sum(line["seconds"].values()) for line in log)
    assert (sampled, seconds) == (3000, 180)
    assert facts["Cost"] == ("3 min", f"{sampled:,} tokens sampled, 750 trained on")
    assert "1,234 MB" in facts["Machine"][1]


@pytest.mark.parametrize("fields, value, about", [
    (dict(threads=1, dtype="fp32", device="cpu"), "1 thread", "fp32, device cpu"),
    (dict(threads=0, dtype="bf16", device="cuda"), "all cores", "bf16, device cuda"),
    (dict(threads=2, hardware="8 x H200"), "8 x H200", "?, device ?"),
])
def test_the_machine_is_what_the_run_recorded(tmp_path, fields, value, about):
    folder, _ = write_run(tmp_path / "run")
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    assert card_of(folder)[0]["Machine"] == (value, about)


def test_what_the_generator_earns_is_recomputed_from_its_drafts(tmp_path):
    folder, _ = write_run(tmp_path / "run", T=10, D=6, n=8)
    drafts = lines_of(folder, "questions.jsonl")
    means = []
    for ends in ((1, 2), (9, 10)):
        scores = scores_at(drafts, ends[0]) + scores_at(drafts, ends[1])
        means.append(sum(scores) / len(scores))
    _, verdicts = card_of(folder)
    first, last, change = (f"{x:+.3f}".replace("-", "−") for x in (*means, means[1] - means[0]))
    assert f"is {last} in the last fifth" in verdicts[1]
    assert f"{first} in the first, a change of {change} ±" in verdicts[1]


def test_a_document_is_one_draw_of_the_mean_score():
    """Where each has as many questions, the error is std / sqrt(G) of the documents' means."""
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centre, error = page.clustered(scores.tolist())
    assert centre == pytest.approx(float(scores.mean()))
    assert error == pytest.approx(float(scores.mean(dim=1).std()) / 7 ** 0.5)


@pytest.mark.parametrize("config, pay", [
    ({}, 0.0), ({"reward": "azr", "invalid_score": -1.0}, -1.0),
    # azr's own -1, spice's -0.1, and one score for all terms
    ({"reward": "influence + 0.5 azr + spice", "invalid_score": None}, -0.6),
    ({"reward": "influence + azr", "invalid_score": -2.0}, -2.0)])
def test_an_invalid_draft_shows_what_it_was_paid(config, pay):
    assert page.score_of({"status": "no_json"}, config) == pytest.approx(pay)


@pytest.mark.parametrize("fields, verdict", [
    (dict(reward="fixed"), "not paid and did not move"),
    (dict(train_on="dev"), "trained on its answers to the dev questions"),
    (dict(train_on="file"), "trained on the questions of a file"),
])
def test_a_generator_that_earns_nothing_is_not_judged_by_its_pay(tmp_path, fields, verdict):
    folder, _ = write_run(tmp_path / "run")
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    assert verdict in card_of(folder)[1][1]


def test_a_healthy_run_is_called_so_with_its_numbers(tmp_path):
    folder, _ = write_run(tmp_path / "run")
    change_metrics(folder, mixed_share=0.75)
    assert card_of(folder)[1][2] == ("No warning sign in iteration 3: 80.0 % of drafts are valid, "
                                     "75.0 % of questions have a gradient.")


@pytest.mark.parametrize("fields, sign", [
    (dict(valid_share=0.1), "only 10.0 % of the drafts are valid"),
    (dict(mixed_share=0.0), "only 0.0 % of the questions have a gradient"),
    (dict(overlap_test_share=0.25), "25.0 % of the questions overlap with the test set"),
    (dict(answer_cut_share=0.5), "50.0 % of the answers are cut"),
    (dict(skipped_steps=3), "3 steps were skipped"),
])
def test_a_warning_sign_is_named_with_its_number(tmp_path, fields, sign):
    folder, _ = write_run(tmp_path / "run")
    change_metrics(folder, **fields)
    verdict = card_of(folder)[1][2]
    assert verdict.startswith("To look at in iteration 3: ") and sign in verdict


# ---------------------------------------------------------------- what a chart means in this run

def repeat(folder, question_of):
    """Gives every valid draft of a run the question question_of(draft)."""
    drafts = lines_of(folder, "questions.jsonl")
    for draft in filter(valid, drafts):
        draft["question"] = question_of(draft)
    write_lines(Path(folder, "questions.jsonl"), drafts)
    return drafts


def test_repeats_within_documents_are_no_alarm_and_those_across_are(tmp_path):
    folder, _ = write_run(tmp_path / "run", D=4, n=8)
    drafts = repeat(folder, lambda draft: f"What of note {draft['slot'][0]}?")
    n = len(scores_at(drafts, 3))
    run = make_page(folder)[0]["runs"][0]
    said = f"{n} questions say 4 different things: {100 * (1 - 4 / n):.1f} % repeat"
    assert said in run["remarks"]["duplicate_share"]
    assert f"4 documents it would be {100 * (1 - 4 / n):.1f} %" in run["remarks"]["duplicate_share"]
    assert "No warning sign" in run["card"]["verdicts"][2]

    repeat(folder, lambda draft: "What?")
    run = make_page(folder)[0]["runs"][0]
    assert f"1 different things: {100 * (1 - 1 / n):.1f} %" in run["remarks"]["duplicate_share"]
    assert "different documents get the same questions" in run["card"]["verdicts"][2]


def test_guessing_and_overlaps_are_counted_over_all_questions(tmp_path):
    folder, drafts = write_run(tmp_path / "run", overlap=["test"])
    remarks = make_page(folder)[0]["runs"][0]["remarks"]
    n = sum(map(valid, drafts))
    assert remarks["solved_share"] == "Guessing among the choices would give 25.0 %."
    assert remarks["overlap_test_share"] == f"Here {n} of {n} questions in all."


def test_of_own_documents_nobody_says_that_the_generator_chooses_them(tmp_path):
    folder, _ = write_run(tmp_path / "run", T=5, D=3)
    run = make_page(folder)[0]["runs"][0]
    assert run["by"] == "document"
    assert "nobody chooses" in run["remarks"]["kinds"]
    assert "the generator moves" not in run["remarks"]["kinds"]


# ---------------------------------------------------------------- a question stands once

def test_a_question_stands_once_with_its_best_score_and_how_often_it_was_written(tmp_path):
    folder, _ = write_run(tmp_path / "run", T=1, D=4, n=8)
    drafts = repeat(folder, lambda draft: f"{'What' if draft['slot'][1] % 2 else 'what'}, "
                                          f"of {draft['slot'][0]}?")
    lists = make_page(folder)[0]["runs"][0]["questions"]["1"]
    for name in ("most", "least"):
        texts = [x["question"].lower() for x in lists[name]]
        assert len(texts) == len(set(texts))

    d = lists["most"][0]["question"].split()[-1][0]
    scores = [draft["score"] for draft in drafts if valid(draft) and draft["slot"][0] == int(d)]
    best = lists["most"][0]
    assert best["times"] == len(scores)
    assert best["range"] == pytest.approx([min(scores), max(scores)], rel=1e-4)
    assert best["score"] == pytest.approx(max(scores), rel=1e-4)


# ---------------------------------------------------------------- what a run may lack

def test_a_fixed_generator_was_paid_nothing(tmp_path):
    folder, _ = write_run(tmp_path / "run", reward="fixed", score=None, s_hat=None)
    data, _, _ = make_page(folder)
    run = data["runs"][0]
    paid = data["sections"][2]
    assert not run["scored"] and "score_mean" in [panel[0] for panel in paid["missing"]]
    lists = run["questions"]["1"]
    assert all(x["A"] == {} and x["score"] is None for x in lists["most"])
    solved = [x["solved"] for x in lists["most"] + lists["least"][::-1]]
    assert solved == sorted(solved, reverse=True)


def test_what_is_always_zero_or_not_recorded_is_named_not_drawn(tmp_path):
    health = make_page(write_run(tmp_path / "run")[0])[0]["sections"][3]
    assert [panel[0] for panel in health["zero"]] == ["skipped_steps"]
    assert "valid_share" in [panel[0] for panel in health["draw"]]
    assert "mixed_share" in [panel[0] for panel in health["missing"]]


def test_a_run_from_before_score_was_recorded_is_ranked_by_s_hat(tmp_path):
    folder, drafts = write_run(tmp_path / "run")
    best = max(scores_at(drafts, 2))
    for draft in drafts:
        for name in ("score", "answers", "tokens", "own_share", "overlap"):
            del draft[name]
    write_lines(tmp_path / "run" / "questions.jsonl", drafts)
    x = make_page(folder)[0]["runs"][0]["questions"]["2"]["most"][0]
    assert x["score"] == pytest.approx(best, rel=1e-4)
    assert x["answers"] == [] and x["tokens"] is None


def test_skills_are_told_in_the_embedded_world_only(tmp_path):
    question = dict(question="What is 2 plus 3?", choices=["4", "5", "6", "7"], answer="5")
    folder, _ = write_run(tmp_path / "toy", **question)
    assert make_page(folder)[0]["runs"][0]["by"] == "document"
    change_metrics(folder, key_accuracy=1.0)
    run = make_page(folder)[0]["runs"][0]
    assert run["by"] == "skill" and list(run["charts"]["kinds"]["parts"]) == ["plus"]
    assert run["questions"]["1"]["most"][0]["truth"] == ["plus", True]


def test_documents_are_shown_once_and_their_loss_is_said(tmp_path):
    path = tmp_path / "documents.json"
    folder, drafts = write_run(tmp_path / "run", documents=path)
    assert "no such file" in make_page(folder)[0]["runs"][0]["notes"][0]
    names = sorted({draft["doc_id"] for draft in drafts}) + ["unread-1"]
    path.write_text(json.dumps([{"doc_id": name, "content": f"text of {name}"} for name in names]))
    data, html, _ = make_page(folder)
    run = data["runs"][0]
    name = drafts[0]["doc_id"]
    assert run["documents"][name] == f"text of {name}" and html.count(f"text of {name}\"") == 1
    assert "unread-1" not in run["documents"] and run["notes"] == []


def test_a_killed_run_is_read_up_to_its_last_whole_iteration(tmp_path):
    folder, drafts = write_run(tmp_path / "run")
    with open(f"{folder}/questions.jsonl", "a") as f:
        f.write(json.dumps(drafts[0] | {"iteration": 4}) + "\n" + json.dumps(drafts[0])[:50])
    with open(f"{folder}/metrics.jsonl", "a") as f:
        f.write('{"iteration": 4, "dev_acc')
    run = make_page(folder)[0]["runs"][0]
    notes = run["notes"]
    assert run["t"] == [1, 2, 3]
    assert len(notes) == 4
    assert "metrics.jsonl is cut short" in notes[0] and "1 drafts of an unfinished" in notes[3]


@pytest.mark.parametrize("name, content, message", [
    ("config.json", None, "config.json: cannot be read"),
    ("config.json", "{", "config.json: expected a JSON object"),
    ("config.json", "[1]", "config.json: expected a JSON object"),
    ("metrics.jsonl", None, "metrics.jsonl: cannot be read"),
    ("metrics.jsonl", "", "no finished iteration"),
    ("metrics.jsonl", '{"iteration": 1}\nnonsense\n{"iteration": 2}\n', "line 2: broken JSON"),
    ("metrics.jsonl", '{"dev_accuracy": 1}\n', "line 1: expected an object with iteration"),
    ("questions.jsonl", '{"iteration": 1}\n', "line 1: expected an object with iteration, slot"),
])
def test_a_broken_folder_is_one_clear_line(tmp_path, name, content, message):
    folder, _ = write_run(tmp_path / "run")
    Path(folder, name).unlink()
    if content is not None:
        Path(folder, name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        report.main([folder])
    assert "\n" not in str(error.value) and not Path(folder, "report.html").exists()


def test_a_mistyped_folder_ends_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(report.__file__, run_name="__main__")
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed.startswith("error: ") and printed.count("\n") == 1


# ---------------------------------------------------------------- the page

def test_no_text_of_a_model_can_leave_its_place(tmp_path):
    path = tmp_path / "documents.json"
    folder, drafts = write_run(
        tmp_path / "run", documents=path, doc_id=EVIL[:40], question=EVIL, answer=EVIL,
        choices=[EVIL, "b", "c", EVIL + "!"], answers=[{"text": EVIL, "right": False}])
    path.write_text(json.dumps([{"doc_id": EVIL[:40], "content": EVIL.replace("\ud800", "")}]))
    html, _, _ = report.make([folder], names=[EVIL])
    data, around = embedded(html)
    # no half surrogate pair is left
    html.encode("utf-8")
    shown = EVIL.replace("\ud800", "?")
    run = data["runs"][0]
    assert run["name"] == shown and run["questions"]["1"]["most"][0]["question"] == shown
    assert "alert" not in around
    ways_out = (r"innerHTML|insertAdjacent|document\.write|eval\(|href|src=|"
                r"https?://(?!www\.w3\.org/2000/svg)")
    assert not re.search(ways_out, around)


def test_values_that_are_not_finite_become_nothing():
    given = {"a": [float("nan"), float("inf"), 0.1234567, "x\ud800"], 1: True}
    assert page.clean(given) == {"a": [None, None, 0.12346, "x?"], "1": True}


def test_long_texts_are_cut_and_a_large_run_keeps_fewer_questions(tmp_path, monkeypatch):
    folder, _ = write_run(tmp_path / "run", D=6, n=8, words=600)
    data, html, k = make_page(folder)
    most = data["runs"][0]["questions"]["1"]["most"]
    longest = page.LONGEST["question"]
    assert k == 8 and all(x["question"][longest:].startswith(" [... ") for x in most)

    monkeypatch.setattr(page, "LIMIT", 0.6 * len(html))
    smaller, html, k = make_page(folder)
    assert k == 4 and len(smaller["runs"][0]["questions"]["1"]["most"]) == 4
    assert len(html) < 0.7 * page.LIMIT / 0.6 + 20000


def test_runs_of_one_name_are_told_apart_and_their_stacks_aligned(tmp_path):
    one, _ = write_run(tmp_path / "a" / "run")
    two, _ = write_run(tmp_path / "b" / "run", T=5, D=3)
    runs = make_page(one, two)[0]["runs"]
    parts = [run["charts"]["kinds"]["parts"] for run in runs]
    assert runs[0]["name"] != runs[1]["name"]
    assert list(parts[0]) == list(parts[1]) == ["chapter0", "chapter1", "chapter2"]
    assert parts[0]["chapter2"] == [0, 0, 0]


@pytest.mark.slow
def test_the_command_writes_page_and_figures(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    names = ("test_accuracy", "difficulty", "score_by_solved")
    three = [panel for panel in all_panels() if panel[0] in names]
    sections = [("Three of the charts", "Drawing all takes a while.", three)]
    monkeypatch.setattr(report, "SECTIONS", sections)
    one = write_run(tmp_path / "one")[0]
    two = write_run(tmp_path / "two", T=1)[0]
    report.main([one, two, "--figures", str(tmp_path / "figures")])
    figures = os.listdir(tmp_path / "figures")
    names = ["difficulty-1", "difficulty-2", "score_by_solved", "test_accuracy"]
    wanted = [f"{name}.png" for name in names] + [f"{name}.svg" for name in names]
    assert sorted(figures) == sorted(wanted)
    printed = capsys.readouterr().out
    assert f"open {one}/compare.html in a browser: " in printed and "4 charts" in printed
    assert os.listdir(tmp_path / "one").count("compare.html") == 1
    assert not list(tmp_path.glob("one/*.part"))


def all_panels():
    panels = []
    for _, _, some in report.SECTIONS:
        panels += some
    return panels


def test_every_chart_has_a_title_and_says_what_it_means():
    panels = all_panels()
    assert len({panel[0] for panel in panels}) == len(panels) > 30
    for _, unit, title, caption in panels:
        assert unit in ("%", "s", "+", "") and title and caption.endswith(".")
    assert set(MODES) == {"dugrpo", "group_std", "batch_std", "none"}


def test_the_page_explains_its_words_and_says_choices(tmp_path):
    data, html, _ = make_page(write_run(tmp_path / "run")[0])
    words = [word for word, _ in data["glossary"]]
    for word in ("s_hat", "Gamma", "v'", "A_gen", "dev", "valid", "mixed", "key", "target"):
        assert word in words
    assert all(text for _, text in data["glossary"])
    assert "its choices" in html and "options" not in html
    # one convention for every error on the page, and no other
    assert "half of a 95 % interval" in html and "standard error)" not in html


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    text = "Light bends where water meets glass. " * 100
    texts = []
    for c in range(3):
        for i in range(12000):
            texts.append({"doc_id": f"chapter{c}-{i}", "content": f"{c} {i} {text}"})
    (folder / "documents.json").write_text(json.dumps(texts))
    write_run(folder / "run", T=100, D=128, n=8, words=100, documents=folder / "documents.json")
