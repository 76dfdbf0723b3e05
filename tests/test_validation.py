"""Validation while training: questions nobody trains on, watched with random numbers of their own.

A run with them is, in every other number, the run without them; it keeps its models, and says which
was highest beside the last.
"""
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import evaluate
import train
from config import ROOT, Config
from data import InputError
from engine import flags, log, presets
from engine.metrics import about_tests
from studies import figures

POOL = ROOT / "toy/free/dev-pool.json"
SIZES = dict(docs_per_step=2, questions_per_doc=4, answers_per_question=4, minibatch_rows=8,
             iterations=3, eval_every=9, valid_every=2, save_every=2, show_every=0, threads=1,
             solver_lr=1e-3, generator_lr=1e-3, max_response_tokens=64, device="cpu")
# what may tell the two runs apart
OWN = {"valid_accuracy", "valid_standard_error", "valid_accuracy_anchor", "best_valid_iteration",
       "best_valid_accuracy"}
ASIDE = OWN | {"seconds", "peak_memory_mb", "tokens_sampled", "tokens_tested", "run_id"}


def questions(path, n):
    return json.loads(Path(path).read_text(encoding="utf-8"))[:n]


def write(path, items):
    path.write_text(json.dumps(items), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {"dev": write(folder / "dev.json", questions(presets.TOY["dev"], 16)),
            "test": write(folder / "test.json", questions(presets.TOY["test"], 4)),
            "valid": write(folder / "valid.json", questions(POOL, 12))}


def run_of(folder, asked=None, **settings):
    """A small run -> its folder. asked: {what for: texts of the questions put to the solver}."""
    original = train.solver_role.answer_questions

    def listening(solver, questions, m, seed_words, *rest, **more):
        for question in questions:
            asked.setdefault(seed_words[-1], set()).add(question.question_text)
        return original(solver, questions, m, seed_words, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        if asked is not None:
            patch.setattr(train.solver_role, "answer_questions", listening)
        return train.train(flags.from_flags(SIZES | settings | {"run": str(folder)}))


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
    """-> the run without validation, the one with it, and what the second put to its solver."""
    folder, asked = tmp_path_factory.mktemp("runs"), {}
    without = run_of(folder / "without", **{**files, "valid": None})
    return without, run_of(folder / "with", asked, **files), asked


def lines_of(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").open(encoding="utf-8")]


# ---------------------------------------------------------------- it changes nothing

@pytest.mark.slow
def test_all_other_numbers_are_those_of_the_run_without_it(runs):
    without, watched, _ = runs
    for a, b in zip(lines_of(without), lines_of(watched), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - ASIDE:
            assert a[key] == b[key], key
    drafts = [Path(run, "questions.jsonl").read_bytes() for run in (without, watched)]
    assert drafts[0] == drafts[1]
    for role in ("solver", "generator"):
        a, b = (load_file(f"{run}/{role}/model.safetensors") for run in (without, watched))
        assert all(torch.equal(a[name], b[name]) for name in a)
        # and training did move it
        anchor = load_file(f"{presets.TOY['model']}/model.safetensors")
        assert not all(torch.equal(a[name], anchor[name]) for name in anchor)


@pytest.mark.slow
def test_validation_questions_are_asked_for_validation_alone(runs, files):
    _, watched, asked = runs
    texts = {x["question_text"] for x in questions(files["valid"], 12)}
    assert asked["valid"] == texts
    assert set(asked) == {"dev", "answer", "test", "valid"}
    for stage in ("dev", "answer", "test"):
        assert asked[stage] and not asked[stage] & texts


@pytest.mark.slow
def test_it_is_due_before_the_first_every_so_often_and_after_the_last(runs):
    without, watched, _ = runs
    lines = lines_of(watched)
    assert [x["valid_accuracy"] is not None for x in lines] == [False, True, True]
    assert all(0 <= x["valid_accuracy_anchor"] <= 1 for x in lines)
    assert all(x[key] is None for x in lines_of(without) for key in OWN)


@pytest.mark.slow
def test_the_best_is_the_first_of_the_highest_so_far(runs):
    lines = lines_of(runs[1])
    seen = [(0, lines[0]["valid_accuracy_anchor"])]
    for x in lines:
        if x["valid_accuracy"] is not None:
            seen.append((x["iteration"], x["valid_accuracy"]))
        best = max(seen, key=lambda point: point[1])
        assert (x["best_valid_iteration"], x["best_valid_accuracy"]) == best


# ---------------------------------------------------------------- which questions

def small_flags(files, **more):
    """Flags of a run, before any model is loaded."""
    return flags.from_flags(SIZES | files | more)


def held_out(files, monkeypatch, **more):
    """load_data's second half, and what was said, without a model: every prompt fits."""
    said = []
    words = SimpleNamespace(input_ids=[1])
    role = SimpleNamespace(prompt_ids=lambda text: [1], tokenizer=lambda *_, **__: words)
    monkeypatch.setattr(train, "unreadable", lambda *_: None)
    ear = SimpleNamespace(say=said.append, inputs={})
    _, found = train.load_data(small_flags(files, **more), role, role, ear)
    return found["valid"], [line for line in said if line]


def test_what_is_asked_elsewhere_is_no_validation_question(files, tmp_path, monkeypatch):
    """Of the dev, test and RLVR questions two each, beside three of its own."""
    rlvr = str(ROOT / "toy/free/rlvr.json")
    taken = sum([questions(path, 2) for path in (files["dev"], files["test"], rlvr)], [])
    mixed = [{**x, "question_id": f"v-{i}"} for i, x in enumerate(taken + questions(POOL, 3))]
    path = write(tmp_path / "mixed.json", mixed)
    found, said = held_out({**files, "valid": path}, monkeypatch, rlvr=rlvr, rlvr_per_step=4)
    assert [x.question_id for x in found] == ["v-6", "v-7", "v-8"]
    assert any("3 validation questions" in line and "6 as asked elsewhere" in line for line in said)


def test_a_file_of_dev_questions_alone_is_one_line(files, monkeypatch):
    with pytest.raises(InputError, match="all of its 16 questions are asked elsewhere"):
        held_out({**files, "valid": files["dev"]}, monkeypatch)


def test_the_paper_presets_name_the_authors_file_every_5_and_keep_every_5():
    for name in ("Qwen3-4B-Base", "Qwen3-8B-Base", "OLMo-3-7B-Instruct-SFT"):
        cfg = flags.parse(["--model", name])
        assert cfg.valid == presets.HUB + "benchmarks/combine_2000.json"
        assert (cfg.valid_every, cfg.save_every, cfg.eval_samples) == (5, 5, 1)
    assert flags.parse([]).valid is None
    assert flags.parse(["--model", "Qwen3-8B-Base", "--valid", "none"]).valid is None


def test_it_samples_as_training_and_the_test_as_evaluations_do(monkeypatch):
    seen = {}

    def accuracy(solver, questions, samples, seed_words, cfg, verifier, what):
        seen[what] = (cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k, seed_words)

    monkeypatch.setattr(train, "accuracy", accuracy)
    cfg = Config(temperature=0.9, top_p=1.0, top_k=0, eval_every=1, valid_every=1)
    train.evaluate(None, {"test": ["q"], "valid": ["q"]}, 3, cfg, None)
    assert seen == {"test answers": (0.7, 0.8, 20, (0, 3, "solver", "test")),
                    "valid answers": (0.9, 1.0, 0, (0, 3, "solver", "valid"))}


# ---------------------------------------------------------------- kept models, and going on

@pytest.mark.slow
def test_a_resumed_run_ends_as_one_never_stopped(runs, tmp_path):
    whole, half = runs[1], tmp_path / "half"
    files = json.loads(Path(whole, "config.json").read_text(encoding="utf-8"))
    files = {name: files[name] for name in ("dev", "test", "valid")}
    with pytest.MonkeyPatch.context() as patch:
        # stopped in iteration 3, with the checkpoint of iteration 2
        patch.setattr(train, "save", stopping_after(2))
        with pytest.raises(KeyboardInterrupt):
            run_of(half, **files)
    assert [x["iteration"] for x in lines_of(half)] == [1, 2]
    shutil.rmtree(half / "at-2")
    train.train(flags.parse(["--resume", str(half)]))
    for a, b in zip(lines_of(whole), lines_of(half), strict=True):
        for key in a.keys() - {"seconds", "peak_memory_mb"}:
            assert a[key] == b[key], key


def stopping_after(t):
    """train.save, and Ctrl-C behind the checkpoint of iteration t."""
    original = train.save

    def save(cfg, now, *rest):
        original(cfg, now, *rest)
        if now == t:
            raise KeyboardInterrupt

    return save


@pytest.mark.slow
def test_evaluate_takes_a_kept_model(runs, files, tmp_path, capsys):
    _, watched, _ = runs
    assert sorted(path.name for path in Path(watched).glob("at-*")) == ["at-0", "at-2"]
    report = tmp_path / "x.json"
    evaluate.main([f"{watched}/at-2/solver", f"{watched}/solver", "--questions", files["valid"],
                   "--max_response_tokens", "64", "--json", str(report)])
    found = json.loads(report.read_text(encoding="utf-8"))["sets"][files["valid"]]["models"]
    assert list(found) == [f"{watched}/at-2/solver", f"{watched}/solver"]
    assert all(0 <= x["accuracy"] <= 1 for x in found.values())


def test_a_kept_model_is_in_bf16_where_it_samples_in_bf16(make_policy, tmp_path):
    for dtype, expected in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        policy, _ = make_policy(dtype=dtype)
        for rounded, form in ((True, expected), (False, torch.float32)):
            folder = tmp_path / f"{dtype}-{rounded}"
            policy.save(folder, rounded=rounded)
            stored = load_file(folder / "model.safetensors")
            own = dict(policy.model.named_parameters())
            assert {w.dtype for w in stored.values()} == {form}
            assert all(torch.equal(w, own[name].detach().to(form)) for name, w in stored.items())
            said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            assert str(form).endswith(said["dtype"])
        # what trains is what it was
        assert {p.dtype for p in policy.params} == {torch.float32}


# ---------------------------------------------------------------- what is said

ANCHOR = {"test": [0.4, 0.02], "valid": [0.5, 0.03]}
LAST = {"iteration": 45, "test_accuracy": 0.8, "test_standard_error": 0.02,
        "valid_accuracy": 0.6, "valid_standard_error": 0.03, "best_valid_iteration": 40,
        "best_valid_accuracy": 0.65}


def closing(tmp_path, **changes):
    cfg = Config(
        model="the-anchor", run=str(tmp_path), iterations=45, valid="v.json", save_every=5)
    return list(log.last_words(cfg, LAST | changes, ANCHOR))


def test_the_closing_lines_say_the_last_first_and_the_best_beside_it(tmp_path):
    (tmp_path / "at-40/solver").mkdir(parents=True)
    test, valid, best, *_ = closing(tmp_path)
    assert test.startswith("test accuracy: 40.0 % (+- 3.9) before, 80.0 % (+- 3.9) after 45")
    assert valid == "validation:    50.0 % (+- 5.9) before, 60.0 % (+- 5.9) after 45 iterations"
    assert best == f"best by validation: 65.0 % after 40 iterations, {tmp_path}/at-40/solver"


def test_a_best_that_was_not_kept_says_so_and_the_last_may_be_the_best(tmp_path):
    assert closing(tmp_path)[2].endswith("65.0 % after 40 iterations, not kept (--save_every)")
    best = closing(tmp_path, best_valid_iteration=45)[2]
    assert best == f"best by validation: the last, {tmp_path}/solver"
    best = closing(tmp_path, best_valid_iteration=0)[2]
    assert best == "best by validation: 65.0 % before training, the-anchor"


def test_of_equal_accuracies_the_first_is_the_best():
    book = SimpleNamespace(best=None)
    for t, accuracy in enumerate((0.5, 0.7, 0.7, None, 0.6)):
        log.Log.see_best(book, t, {"accuracy": accuracy})
        log.Log.see_best(book, t, None)
    assert book.best == [1, 0.7]


def test_a_line_of_metrics_without_validation_has_nulls():
    line = about_tests({"test": None, "valid": None}, {"test": None, "valid": None}, [None, None])
    assert OWN <= set(line) and set(line.values()) == {None}


def test_the_column_of_the_terminal_is_there_with_validation_only():
    line = LAST | dict.fromkeys(
        ["dev_accuracy", "valid_share", "solved_share", "mixed_share", "score_mean", "score_std",
         "key_accuracy", "target_share", "generator_grad_norm", "solver_grad_norm"])
    for cfg, there in ((Config(valid="v.json", iterations=1000), True), (Config(), False)):
        cells = log.columns(line, cfg, 5000, 5000)
        assert ("val" in dict(cells)) == there
        assert len(log.header(cells)) <= 100
    assert dict(log.columns(line, Config(valid="v.json"), 1, 1))["val"] == "  60.0"


@pytest.mark.slow
def test_the_page_and_the_figures_show_it(runs):
    import report
    run = runs[1]
    html, _, (summary,) = report.make([run])
    facts = {what: (value, about) for what, value, about in summary["card"]["facts"]}
    assert re.fullmatch(r"[\d.]+ % ± [\d.]+", facts["Validation"][0])
    assert "which is partly luck" in facts["Validation"][1]
    assert summary["charts"]["valid_accuracy"]["x"] == (0, 2, 3)
    assert "Validation accuracy" in html
    assert figures.curves_of_run(run)["valid_accuracy"][0][0] == [0, 2, 3]
    # a run without it has neither
    _, _, (plain,) = report.make([runs[0]])
    assert plain["charts"]["valid_accuracy"] is None
    assert "Validation" not in {fact[0] for fact in plain["card"]["facts"]}


