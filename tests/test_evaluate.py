"""Numbers from answers: pass@k against counting, votes and errors by hand; interrupted evaluations;
the authors' files; the command.
"""
import json
import math
import subprocess
import sys
import types
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

import evaluate
import solver
from data import InputError, Question, Rollout
from engine import question_sets, statistics
from engine.finished import Finished, model_stamp
from engine.verify import Verifier

ROOT = Path(__file__).resolve().parent.parent
MCQ = {
    "question_id": "m",
    "question_text": "2 + 2 = ?",
    "choices": ["3", "4", "5", "6"],
    "ground_truth": "4"}
FREE = {"question_id": "f", "question_text": "1 / 2 = ?", "ground_truth": "0.5"}


def record(question_id="q", right=(1, 0), given=None, tokens=None, finished=None):
    n = len(right)
    return {
        "question_id": question_id,
        "right": list(right),
        "given": list(given or ["A"] * n),
        "tokens": list(tokens or [3] * n),
        "finished": list(finished or [True] * n)}


# ---------------------------------------------------------------- numbers

def share_of_subsets(n, c, k):
    """Share of the k-subsets of n answers, c of them right, that hold a right one."""
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    return sum(map(any, subsets)) / len(subsets)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                counted = share_of_subsets(n, c, k)
                assert statistics.pass_at_k(n, c, k) == pytest.approx(counted, abs=1e-15)


def test_pass_at_k_of_thousands_of_answers_neither_overflows_nor_cancels():
    assert statistics.pass_at_k(5000, 1, 1) == 1 / 5000
    assert statistics.pass_at_k(5000, 1, 2500) == 0.5
    assert statistics.pass_at_k(5000, 3000, 2500) == 1.0
    for bad in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError):
            statistics.pass_at_k(*bad)


@pytest.mark.parametrize("given, right, expected", [
    ("AAB", (1, 1, 0), 1),
    ("ABB", (1, 0, 0), 0),
    ("AB", (1, 0), 1 / 2),
    ("ABC", (1, 0, 0), 1 / 3),
    ("A", (1,), 1),
    # an empty box is no vote
    ((None, None, "A"), (0, 0, 1), 1),
    ((None, None), (0, 0), 0),
    # right answers are one answer, however written
    (("1/2", "0.5", "3", "3"), (1, 1, 0, 0), 1 / 2),
    # an unknown answer does not vote
    (("0.5", "3", "3"), (1, None, None), 1),
])
def test_majority_vote(given, right, expected):
    assert statistics.majority(given, right) == expected


def test_an_unknown_answer_is_counted_and_left_out():
    result = statistics.summarize([
        record(right=(1, None, 0, 1)),
        record(right=(None,) * 4),
        record(right=(0, 0, 0, 0))])
    assert result["unknown"] == 5 and result["answers"] == 12

    # not 2/4, and the second question is in no mean
    assert result["accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert result["pass@2"] == pytest.approx((1 + 0) / 2)
    # only the last question has four known answers
    assert result["pass@4"] == 0

    everything_unknown = statistics.summarize([record(right=(None, None))])
    assert everything_unknown["accuracy"] is None and everything_unknown["pass@2"] is None


def test_summary_by_hand():
    result = statistics.summarize([
        record(right=(1, 0), given=("B", None), tokens=(4, 9), finished=(True, False)),
        record(right=(1, 1)),
        record(right=(0, 0))])
    assert result["accuracy"] == result["pass@1"] == 0.5
    # std of 1/2, 1, 0 is 1/2
    assert result["accuracy_error"] == pytest.approx(0.5 / math.sqrt(3))
    assert result["pass@2"] == pytest.approx(2 / 3)
    assert result["majority"] == pytest.approx(2 / 3)
    found = (result["no_answer"], result["cut"], result["mean_tokens"])
    assert found == (1 / 6, 1 / 6, 25 / 6)


def test_paired_difference_is_over_the_common_questions_and_cancels_their_difficulty():
    first = [record(str(i), right=(i % 2, i % 2, 0, 0)) for i in range(10)]
    first.append(record("only here", right=(1, 1, 1, 1)))
    second = [record(str(i), right=(i % 2, i % 2, 1, 0)) for i in range(10)]
    second.append(record("only there", right=(0, 0, 0, 0)))

    result = statistics.paired(second, first)
    assert result["questions"] == 10 and result["difference"] == pytest.approx(0.25)
    # .25 more than the .25 that the first has
    assert result["relative"] == pytest.approx(1.0)
    # each model alone has an error of .08
    assert result["error"] == 0 and result["interval"] == [0.25, 0.25]


def rollout_of(i, j):
    """Of 6 questions x 4 answers: two of three have B in a box, the others have none."""
    text = r"\boxed{B}" if (i + j) % 3 else "no box"
    return Rollout([], [1] * (i + 1), [], True, text)


def test_accuracy_of_training_is_that_of_the_summary(make_policy, monkeypatch):
    policy, cfg = make_policy()
    questions, answers = [], []
    for i in range(6):
        questions.append(Question("2 + 2 = ?", ["3", "4", "5", "6"], "4", str(i)))
        answers.append([rollout_of(i, j) for j in range(4)])
    monkeypatch.setattr(solver, "answer_questions", lambda *_, **__: answers)

    with Verifier() as verifier:
        result = evaluate.accuracy(policy, questions, 4, (0,), cfg, verifier)
        r = solver.rewards(questions, answers, verifier).tolist()
    records = [evaluate.record(*row) for row in zip(questions, answers, r)]
    summary = statistics.summarize(records)

    assert result["accuracy"] == summary["accuracy"]
    assert result["standard_error"] == summary["accuracy_error"]
    assert result["tokens"] == 84


def test_a_run_that_asked_otherwise_is_named(tmp_path):
    said = []
    for folder in ("solver", "at-5/solver"):
        (tmp_path / folder).mkdir(parents=True)
    evaluate.say_otherwise(str(tmp_path / "solver"), "plain", said.append)
    (tmp_path / "config.json").write_text('{"prompts": "hard"}')
    for folder in ("solver", "at-5/solver"):
        evaluate.say_otherwise(str(tmp_path / folder), "plain", said.append)
        evaluate.say_otherwise(str(tmp_path / folder), "hard", said.append)
    assert len(said) == 2 and all("--prompts hard, here plain" in line for line in said)


# ---------------------------------------------------------------- interrupted

@pytest.fixture
def world(make_policy, monkeypatch):
    """run(path, ...) evaluates 10 questions x 64 answers, so 3 pieces, with a real sampler.

    .sampled counts the pieces it was asked for.
    """
    policy, cfg = make_policy(eval_temperature=1.0, eval_top_p=1.0)
    questions = []
    for i in range(10):
        choices = ["w1", "w2", "w3", "w4"]
        questions.append(Question(f"w{i} w{i + 1}", choices, "w2", f"q{i}"))
    original = evaluate.sample_answers

    def run(path, die_at=None, stamp="model", samples=64, seed=0, cfg=cfg, questions=questions):
        def counted(*args):
            if len(run.sampled) == die_at:
                raise KeyboardInterrupt
            run.sampled.append(len(args[1]))
            return original(*args)

        run.sampled = []
        monkeypatch.setattr(evaluate, "sample_answers", counted)
        test = question_sets.QuestionSet(
            "set.json", "set.json", samples, 12, None, None, questions)
        with Verifier() as verifier:
            _, records, _ = evaluate.evaluate(
                policy, stamp, test, cfg, seed, Finished(path), verifier)
        return records

    run.cfg = cfg
    run.questions = questions
    return run


@pytest.mark.slow
def test_an_interrupted_evaluation_ends_like_one_never_stopped(world, tmp_path):
    whole = world(None)
    assert world.sampled == [4, 4, 2] and len({tuple(x["texts"]) for x in whole}) == 10

    path = tmp_path / "work.jsonl"
    with pytest.raises(KeyboardInterrupt):
        world(path, die_at=2)
    # killed within a write: its last line is half there
    lines = path.read_bytes()
    path.write_bytes(lines[:-30])

    assert world(path) == whole
    # the first piece is not answered again, the torn one is
    assert world.sampled == [4, 2]
    assert world(path) == whole and world.sampled == []


@pytest.mark.slow
def test_other_models_settings_and_seeds_are_answered_afresh(world, tmp_path):
    path = tmp_path / "work.jsonl"
    world(path)
    other_keys = [replace(question, ground_truth="w3") for question in world.questions]
    changes = [
        dict(stamp="other"),
        dict(seed=1),
        dict(samples=32),
        dict(cfg=replace(world.cfg, eval_temperature=0.5)),
        dict(cfg=replace(world.cfg, max_response_tokens=11)),
        dict(questions=other_keys)]
    for change in changes:
        world(path, **change)
        assert sum(world.sampled) == 10, change
    world(path)
    assert world.sampled == []


@pytest.mark.slow
def test_a_limit_changes_no_answer(world, tmp_path):
    path = tmp_path / "work.jsonl"
    few = world(path, questions=world.questions[:6])
    assert world(path)[:6] == few == world(None)[:6]


def test_a_model_whose_files_change_is_another_model(tmp_path):
    (tmp_path / "model.safetensors").write_text("1")
    before = model_stamp(str(tmp_path))
    assert model_stamp(str(tmp_path)) == before
    (tmp_path / "model.safetensors").write_text("12")
    assert model_stamp(str(tmp_path)) != before
    assert model_stamp("ORG/NAME")[0] == "ORG/NAME"


# ---------------------------------------------------------------- what to answer

def sets_of(*words):
    return question_sets.question_sets(question_sets.read_arguments(["model", *words]))


def test_the_authors_files_come_by_short_name_with_their_samples_and_category(
        tmp_path, monkeypatch):
    asked = []

    def hf_hub_download(repo_id, filename, repo_type):
        asked.append((repo_id, filename, repo_type))
        path = tmp_path / "blob.json"
        path.write_text(json.dumps([MCQ, FREE]))
        return str(path)

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)

    names = ["math500", "aime2024", "gpqa_diamond", "medqa", "MMLU-Pro"]
    sets = sets_of("--questions", *names, "--limit", "1")
    assert asked[0] == ("Siyuc/infuser_train", "benchmarks/math500.json", "dataset")
    assert [x.samples for x in sets] == [4, 32, 5, 1, 1]
    assert {x.max_tokens for x in sets} == {8192}
    inside, outside = "in domain", "out of domain"
    assert [x.group for x in sets] == [inside, inside, inside, outside, inside]
    assert [len(x.questions) for x in sets] == [1] * 5

    assert sets_of("--out_domain", "math500", "--samples", "2")[0].group == outside
    assert sets_of("--questions", "math500", "--samples", "2")[0].samples == 2


def one_set(group, accuracy, error, difference):
    """A set's part of the report, of a model a and a model b that is better by the difference."""
    against = {"difference": difference, "error": error}
    models = {
        "a": {"accuracy": accuracy, "accuracy_error": error},
        "b": {"accuracy": accuracy + difference, "accuracy_error": error,
              "against_first": against}}
    return {"category": None, "group": group, "models": models}


def test_a_group_gives_each_set_the_same_weight():
    sets = {
        "x": one_set("in domain", 0.2, 0.03, 0.1),
        "y": one_set("in domain", 0.6, 0.04, 0.2),
        "z": one_set(None, 0.9, 0.1, 0.0)}
    means = statistics.group_means(sets, ["a", "b"], {})
    assert list(means) == ["in domain"] and means["in domain"]["sets"] == ["x", "y"]
    expected = pytest.approx({"accuracy": 0.4, "accuracy_error": 0.025})
    assert means["in domain"]["a"] == expected
    assert means["in domain"]["b"]["against_first"]["difference"] == pytest.approx(0.15)


@pytest.mark.parametrize("words, fragment", [
    (["--questions", "missing.json"], "missing.json: no such file"),
    ([], "no questions"),
    (["--questions", "a", "a"], "named twice"),
    (["--questions", "a", "--samples", "0"], "--samples 0"),
    (["--questions", "a", "--temperature", "-1"], "--temperature -1.0: expected 0, or"),
    (["--questions", "a", "--json", "no/such/folder.json"], "its folder does not exist"),
])
def test_wrong_input_is_one_line(words, fragment):
    with pytest.raises(InputError, match=fragment) as caught:
        sets_of(*words)
    assert len(str(caught.value).splitlines()) == 1


# ---------------------------------------------------------------- the command

# Runs the script as the command line does, where importing torch is an error.
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("words, code, fragment", [
    ("evaluate.py --help", 0, "--out_domain"),
    ("evaluate.py toy/anchor --qestions toy/test.json", 2, "--qestions"),
    ("evaluate.py toy/anchor --questions missing.json", 2, "missing.json: no such file"),
    ("evaluate.py toy/anchor {run} --questions toy/test.json", 2, "did you mean {run}/solver?"),
    ("warmup.py --help", 0, "--demos"),
    ("warmup.py --modle toy/anchor --demos a --out b", 2, "--model"),
    ("warmup.py --model toy/anchor --demos missing.json --out b", 2, "no such file"),
    ("warmup.py --model {run} --demos a --out b", 2, "did you mean {run}/solver?"),
])
def test_what_needs_no_model_is_answered_before_torch_is_imported(
        tmp_path, words, code, fragment):
    run = tmp_path / "run"
    (run / "solver").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"docs_per_step": 8}))

    command = [sys.executable, "-c", WITHOUT_TORCH, *words.format(run=run).split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert fragment.format(run=run) in done.stdout + done.stderr


def test_a_run_in_place_of_the_second_model_is_told_before_the_first_is_loaded(
        tmp_path, monkeypatch):
    (tmp_path / "run/solver").mkdir(parents=True)
    (tmp_path / "run/config.json").write_text(json.dumps({"docs_per_step": 8}))
    (tmp_path / "set.json").write_text(json.dumps([MCQ]))
    loaded = []
    monkeypatch.setattr(evaluate, "Policy", lambda *args: loaded.append(args))
    words = [str(ROOT / "toy/anchor"), str(tmp_path / "run")]
    with pytest.raises(InputError, match="did you mean"):
        evaluate.main([*words, "--questions", str(tmp_path / "set.json")])
    assert loaded == []


@pytest.mark.slow
def test_the_command_compares_models_on_mixed_files(make_policy, tmp_path, monkeypatch, capsys):
    make_policy()
    models = [str(tmp_path / "tied"), str(tmp_path / "copy")]
    (tmp_path / "copy").symlink_to(tmp_path / "tied")
    inside = [MCQ | {"question_id": str(i)} for i in range(3)] + [FREE]
    (tmp_path / "in.json").write_text(json.dumps(inside))
    (tmp_path / "out.json").write_text(json.dumps([FREE]))

    # "tied" knows fractions, "copy" everything
    def answer_of(policy, question):
        if not question.choices:
            return r"\boxed{\frac{1}{2}}"
        return r"\boxed{B}" if policy.name.endswith("copy") else "?"

    def answer_questions(policy, questions, n, *_, **__):
        answers = []
        for question in questions:
            text = answer_of(policy, question)
            answers.append([Rollout([], [1, 2], [], True, text) for _ in range(n)])
        return answers

    original = evaluate.Policy

    def named_policy(role, path, *args):
        policy = original(role, path, *args)
        policy.name = path
        return policy

    monkeypatch.setattr(solver, "answer_questions", answer_questions)
    monkeypatch.setattr(evaluate, "Policy", named_policy)
    evaluate.main([
        *models, "--in_domain", str(tmp_path / "in.json"),
        "--out_domain", str(tmp_path / "out.json"), "--samples", "2",
        "--json", str(tmp_path / "result.json")])

    report = json.loads((tmp_path / "result.json").read_text())
    printed = capsys.readouterr().out
    in_domain = report["sets"][str(tmp_path / "in.json")]["models"]
    tied, copy = (in_domain[model] for model in models)
    assert (tied["accuracy"], tied["no_answer"]) == (0.25, 0.75)
    assert (copy["accuracy"], copy["pass@2"]) == (1.0, 1.0)
    assert copy["against_first"]["difference"] == 0.75 and "+75.0 points" in printed

    # 1, 0, 0, 0: a standard error of 1/4 in the file, half of a 95 % interval on the terminal
    assert tied["accuracy_error"] == 0.25 and "25.0 +- 49.0 %" in printed
    assert printed.count("half of a 95 % interval") == 1

    out_domain = report["groups"]["out of domain"]
    assert out_domain[models[0]]["accuracy"] == 1.0 and "out of domain" in printed
    lines = (tmp_path / "result.answers.jsonl").read_text().splitlines()
    assert len(lines) == 10 and all(json.loads(line)["texts"] for line in lines)
