"""Numbers from answers: pass@k against counting, votes and errors by hand; interrupted evaluations; the authors' files; the command."""
import json
import math
import sys
import types
from dataclasses import replace
from itertools import combinations

import pytest

import evaluate
import solver
from data import InputError, Question, Rollout
from verify import Verifier

MCQ = {"question_id": "m", "question_text": "2 + 2 = ?", "choices": ["3", "4", "5", "6"], "ground_truth": "4"}
FREE = {"question_id": "f", "question_text": "1 / 2 = ?", "ground_truth": "0.5"}


def record(question_id="q", right=(1, 0), given=None, tokens=None, finished=None):
    n = len(right)
    return {"question_id": question_id, "right": list(right), "given": list(given or ["A"] * n), "tokens": list(tokens or [3] * n),
            "finished": list(finished or [True] * n)}


# ---------------------------------------------------------------- numbers

def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([True] * c + [False] * (n - c), k))
                assert evaluate.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_of_thousands_of_answers_neither_overflows_nor_cancels():
    assert evaluate.pass_at_k(5000, 1, 1) == 1 / 5000
    assert evaluate.pass_at_k(5000, 1, 2500) == 0.5
    assert evaluate.pass_at_k(5000, 3000, 2500) == 1.0
    for bad in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError):
            evaluate.pass_at_k(*bad)


@pytest.mark.parametrize("given, right, expected", [
    ("AAB", (1, 1, 0), 1), ("ABB", (1, 0, 0), 0), ("AB", (1, 0), 1 / 2), ("ABC", (1, 0, 0), 1 / 3), ("A", (1,), 1),
    ((None, None, "A"), (0, 0, 1), 1),                          # an empty box is no vote
    ((None, None), (0, 0), 0),
    (("1/2", "0.5", "3", "3"), (1, 1, 0, 0), 1 / 2),            # right answers are one answer, however written
    (("0.5", "3", "3"), (1, None, None), 1),                    # an unknown answer does not vote
])
def test_majority_vote(given, right, expected):
    assert evaluate.majority(given, right) == expected


def test_an_unknown_answer_is_counted_and_left_out():
    result = evaluate.summarize([record(right=(1, None, 0, 1)), record(right=(None,) * 4), record(right=(0, 0, 0, 0))])
    assert result["unknown"] == 5 and result["answers"] == 12
    assert result["accuracy"] == pytest.approx((2 / 3 + 0) / 2)                 # not 2/4, and the second question is in no mean
    assert result["pass@2"] == pytest.approx((1 + 0) / 2)
    assert result["pass@4"] == 0                                # only the last question has four known answers
    everything_unknown = evaluate.summarize([record(right=(None, None))])
    assert everything_unknown["accuracy"] is None and everything_unknown["pass@2"] is None


def test_summary_by_hand():
    result = evaluate.summarize([record(right=(1, 0), given=("B", None), tokens=(4, 9), finished=(True, False)), record(right=(1, 1)),
                                 record(right=(0, 0))])
    assert result["accuracy"] == result["pass@1"] == 0.5
    assert result["accuracy_error"] == pytest.approx(0.5 / math.sqrt(3))        # std of 1/2, 1, 0 is 1/2
    assert result["pass@2"] == pytest.approx(2 / 3) and result["majority"] == pytest.approx(2 / 3)
    assert (result["no_answer"], result["cut"], result["mean_tokens"]) == (1 / 6, 1 / 6, 25 / 6)


def test_paired_difference_is_over_the_common_questions_and_cancels_their_difficulty():
    first = [record(str(i), right=(i % 2, i % 2, 0, 0)) for i in range(10)] + [record("only here", right=(1, 1, 1, 1))]
    second = [record(str(i), right=(i % 2, i % 2, 1, 0)) for i in range(10)] + [record("only there", right=(0, 0, 0, 0))]
    result = evaluate.paired(second, first)
    assert result["questions"] == 10 and result["difference"] == pytest.approx(0.25)
    assert result["error"] == 0 and result["interval"] == [0.25, 0.25]          # each model alone has an error of .08


def test_accuracy_of_training_is_that_of_the_summary(make_policy, monkeypatch):
    policy, cfg = make_policy()
    questions = [Question("2 + 2 = ?", ["3", "4", "5", "6"], "4", str(i)) for i in range(6)]
    answers = [[Rollout([], [1] * (i + 1), [], True, r"\boxed{B}" if (i + j) % 3 else "no box") for j in range(4)] for i in range(6)]
    monkeypatch.setattr(solver, "answer_questions", lambda *_, **__: answers)
    with Verifier() as verifier:
        result = evaluate.accuracy(policy, questions, 4, (0,), cfg, verifier)
        r = solver.rewards(questions, answers, verifier).tolist()
    summary = evaluate.summarize([evaluate.record(*row) for row in zip(questions, answers, r)])
    assert result["accuracy"] == summary["accuracy"] and result["standard_error"] == summary["accuracy_error"]
    assert result["unboxed"] == summary["no_answer"] and result["tokens"] == 84


# ---------------------------------------------------------------- interrupted

@pytest.fixture
def world(make_policy, monkeypatch):
    """run(path, ...) evaluates 10 questions x 64 answers, so 3 pieces, with a real sampler; .sampled counts the pieces it was asked for."""
    policy, cfg = make_policy(eval_temperature=1.0, eval_top_p=1.0)
    questions = [Question(f"w{i} w{i + 1}", ["w1", "w2", "w3", "w4"], "w2", f"q{i}") for i in range(10)]
    original = evaluate.sample_answers

    def run(path, die_at=None, stamp="model", samples=64, seed=0, cfg=cfg, questions=questions):
        def counted(*args):
            if len(run.sampled) == die_at:
                raise KeyboardInterrupt
            run.sampled.append(len(args[1]))
            return original(*args)
        run.sampled = []
        monkeypatch.setattr(evaluate, "sample_answers", counted)
        test = evaluate.QuestionSet("set.json", "set.json", samples, 12, None, None, questions)
        with Verifier() as verifier:
            return evaluate.evaluate(policy, stamp, test, cfg, seed, evaluate.Finished(path), verifier)[0]
    run.cfg, run.questions = cfg, questions
    return run


def test_an_interrupted_evaluation_ends_like_one_never_stopped(world, tmp_path):
    whole = world(None)
    assert world.sampled == [4, 4, 2] and len({tuple(x["texts"]) for x in whole}) == 10
    path = tmp_path / "work.jsonl"
    with pytest.raises(KeyboardInterrupt):
        world(path, die_at=2)
    lines = path.read_bytes()
    path.write_bytes(lines[:-30])                               # killed within a write: its last line is half there
    assert world(path) == whole
    assert world.sampled == [4, 2]                              # the first piece is not answered again, the torn one is
    assert world(path) == whole and world.sampled == []


def test_other_models_settings_and_seeds_are_answered_afresh(world, tmp_path):
    path = tmp_path / "work.jsonl"
    world(path)
    for change in (dict(stamp="other"), dict(seed=1), dict(samples=32), dict(cfg=replace(world.cfg, eval_temperature=0.5)),
                   dict(cfg=replace(world.cfg, max_response_tokens=11)),
                   dict(questions=[replace(q, ground_truth="w3") for q in world.questions])):
        world(path, **change)
        assert sum(world.sampled) == 10, change
    world(path)
    assert world.sampled == []


def test_a_limit_changes_no_answer(world, tmp_path):
    path = tmp_path / "work.jsonl"
    few = world(path, questions=world.questions[:6])
    assert world(path)[:6] == few == world(None)[:6]


def test_a_model_whose_files_change_is_another_model(tmp_path):
    (tmp_path / "model.safetensors").write_text("1")
    before = evaluate.model_stamp(str(tmp_path))
    assert evaluate.model_stamp(str(tmp_path)) == before
    (tmp_path / "model.safetensors").write_text("12")
    assert evaluate.model_stamp(str(tmp_path)) != before
    assert evaluate.model_stamp("ORG/NAME")[0] == "ORG/NAME"


# ---------------------------------------------------------------- what to answer

def arguments(*words):
    return evaluate.read_arguments(["model", *words])


def test_the_authors_files_come_by_short_name_with_their_samples_and_category(tmp_path, monkeypatch):
    asked = []

    def hf_hub_download(repo_id, filename, repo_type):
        asked.append((repo_id, filename, repo_type))
        path = tmp_path / "blob.json"
        path.write_text(json.dumps([MCQ, FREE]))
        return str(path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download))
    sets = evaluate.question_sets(arguments("--questions", "math500", "aime2024", "gpqa_diamond", "medqa", "mmlu_pro", "--limit", "1"))
    assert asked[0] == ("Siyuc/infuser_train", "benchmarks/math500.json", "dataset")
    assert [x.samples for x in sets] == [4, 32, 5, 1, 1] and {x.max_tokens for x in sets} == {8192}
    assert [x.group for x in sets] == ["in domain", "in domain", "in domain", "out of domain", "in domain"]
    assert [len(x.questions) for x in sets] == [1] * 5
    assert evaluate.question_sets(arguments("--out_domain", "math500", "--samples", "2"))[0].group == "out of domain"
    assert evaluate.question_sets(arguments("--questions", "math500", "--samples", "2"))[0].samples == 2


def test_a_group_gives_each_set_the_same_weight():
    def one(group, accuracy, error, difference):
        models = {"a": {"accuracy": accuracy, "accuracy_error": error}, "b": {"accuracy": accuracy + difference, "accuracy_error": error,
                  "against_first": {"difference": difference, "error": error}}}
        return {"category": None, "group": group, "models": models}
    sets = {"x": one("in domain", 0.2, 0.03, 0.1), "y": one("in domain", 0.6, 0.04, 0.2), "z": one(None, 0.9, 0.1, 0.0)}
    means = evaluate.group_means(sets, ["a", "b"])
    assert list(means) == ["in domain"] and means["in domain"]["sets"] == ["x", "y"]
    assert means["in domain"]["a"] == pytest.approx({"accuracy": 0.4, "accuracy_error": 0.025})
    assert means["in domain"]["b"]["against_first"]["difference"] == pytest.approx(0.15)


@pytest.mark.parametrize("words, fragment", [
    (["--questions", "missing.json"], "missing.json: no such file"), ([], "no questions"), (["--questions", "a", "a"], "named twice"),
    (["--questions", "a", "--samples", "0"], "--samples 0"), (["--questions", "a", "--temperature", "-1"], "a temperature of 0 or more"),
    (["--questions", "a", "--json", "no/such/folder.json"], "its folder does not exist"),
])
def test_wrong_input_is_one_line(words, fragment):
    with pytest.raises(InputError, match=fragment) as caught:
        evaluate.question_sets(arguments(*words))
    assert len(str(caught.value).splitlines()) == 1


# ---------------------------------------------------------------- the command

def test_the_command_compares_models_on_mixed_files(make_policy, tmp_path, monkeypatch, capsys):
    make_policy()
    models = [str(tmp_path / "tied"), str(tmp_path / "copy")]
    (tmp_path / "copy").symlink_to(tmp_path / "tied")
    (tmp_path / "in.json").write_text(json.dumps([MCQ | {"question_id": str(i)} for i in range(3)] + [FREE]))
    (tmp_path / "out.json").write_text(json.dumps([FREE]))

    def answer_questions(policy, questions, n, *_, **__):       # "tied" knows fractions, "copy" everything
        def text(question):
            return r"\boxed{\frac{1}{2}}" if not question.choices else r"\boxed{B}" if policy.name.endswith("copy") else "?"
        return [[Rollout([], [1, 2], [], True, text(question)) for _ in range(n)] for question in questions]
    monkeypatch.setattr(solver, "answer_questions", answer_questions)
    original = evaluate.Policy

    def named_policy(role, path, *args):
        policy = original(role, path, *args)
        policy.name = path
        return policy
    monkeypatch.setattr(evaluate, "Policy", named_policy)
    evaluate.main([*models, "--in_domain", str(tmp_path / "in.json"), "--out_domain", str(tmp_path / "out.json"), "--samples", "2",
                   "--json", str(tmp_path / "result.json")])
    report, printed = json.loads((tmp_path / "result.json").read_text()), capsys.readouterr().out
    tied, copy = (report["sets"][str(tmp_path / "in.json")]["models"][model] for model in models)
    assert (tied["accuracy"], tied["no_answer"], copy["accuracy"], copy["pass@2"]) == (0.25, 0.75, 1.0, 1.0)
    assert copy["against_first"]["difference"] == 0.75 and "+75.0 points" in printed
    assert report["groups"]["out of domain"][models[0]]["accuracy"] == 1.0 and "out of domain" in printed
    lines = (tmp_path / "result.answers.jsonl").read_text().splitlines()
    assert len(lines) == 10 and all(json.loads(line)["texts"] for line in lines)
