"""Predicted against real: the real step is AdamW's, what is measured is the dev set, and nothing
stays changed.
"""
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from studies import reality, sources
import train
from data import InputError, Question
from engine.flags import from_flags
from engine.readers import load_questions
from engine.verify import Verifier
from fakes import advantages, distance, make_groups
from influence import Gamma, dev_gradient, influence_scores, second_moment
from policy import mean_length, update
from solver import given_answer

# runs and processes of their own
pytestmark = pytest.mark.slow

DEV = make_groups([[4, 6, 3], [5, 2, 4]], seed=1)
A_DEV = advantages(DEV, seed=1)
ANSWERS = make_groups([[5, 3, 6], [4, 4, 7], [2, 6, 3], [3, 5, 5]], seed=2)
A_SOL = advantages(ANSWERS, seed=2)
FREE = [Question(f"w{i} ?", [], "w5") for i in range(2)]


def make_world(solver, cfg):
    return reality.World(cfg, solver, None, [], FREE, 0)


def make_sample():
    return reality.Sample(DEV, A_DEV, [None] * 4, [0, 0, 1, 1], ANSWERS, A_SOL, [0, 1, 2, 3], 2)


def plant(solver, questions, prompts):
    """Trees that stand on the prompts of DEV."""
    prompts = [group[0].prompt for group in DEV]
    return [reality.expected.Tree(q, prompt) for q, prompt in zip(questions, prompts)]


@pytest.fixture
def measure(make_policy, monkeypatch):
    """The solver warm, and a dev set whose answers are DEV."""
    solver, cfg = make_policy(minibatch_rows=6)
    groups = make_groups([[4, 5, 3]] * 4, seed=3)
    update(solver, groups, advantages(groups, seed=3), cfg)

    monkeypatch.setattr(reality.expected, "plant", plant)
    monkeypatch.setattr(reality, "answered", lambda *_: (DEV, A_DEV))
    world = make_world(solver, cfg)
    sample = make_sample()
    return reality.Measure(world, sample, reality.Objective(world, sample))


def everything(solver):
    """Copies of weights, moments and step counts."""
    tensors = [*solver.params]
    for state in solver.optimizer.state.values():
        tensors += [state["step"], state["exp_avg"], state["exp_avg_sq"]]
    return [tensor.detach().clone() for tensor in tensors]


# ---------------------------------------------------------------- the step

@pytest.mark.parametrize("cold", [False, True])
def test_the_real_step_is_the_learning_rate_times_gamma(measure, cold):
    solver, cfg, sample = measure.world.solver, measure.world.cfg, measure.sample
    if cold:
        solver.optimizer.state.clear()

    denominator = reality.question_denominator(sample)
    g = reality.gradient(solver, sample.answers, sample.A_sol, [1], denominator, cfg)
    before = [p.detach().clone() for p in solver.params]
    expected = []
    for p, part in zip(solver.params, g):
        v, k = second_moment(solver.optimizer, p)
        expected.append(Gamma(part, v, k, cfg.beta2, cfg.adam_eps))

    with reality.after(solver, lambda: reality.step_along(solver, g), 0.01):
        moved = [(a - p.detach()) / 0.01 for p, a in zip(solver.params, before)]
    assert distance(moved, expected) < 1e-3


def test_weights_and_adamw_come_back_bit_for_bit_even_after_an_error(measure):
    solver = measure.world.solver
    optimizer = solver.optimizer
    before = everything(solver)
    measure.along([0], 3.0, 0.1)
    for q in (1, 2):
        measure.trainer(q, 0.1)

    ones = [torch.ones_like(p) for p in solver.params]
    step = partial(reality.step_along, solver, ones)
    with pytest.raises(RuntimeError), reality.after(solver, step, 0.1):
        assert not torch.equal(before[0], solver.params[0])
        raise RuntimeError

    with reality.without_history(solver):
        assert second_moment(solver.optimizer, solver.params[0])[1] == 0
        measure.along([0], 3.0, 0.1)

    assert solver.optimizer is optimizer
    assert all(map(torch.equal, before, everything(solver)))
    assert all(p.grad is None for p in solver.params)


def test_the_shares_of_a_mini_batch_add_up_to_its_gradient(measure):
    def gradient(chosen):
        return reality.gradient(measure.world.solver, ANSWERS, A_SOL, chosen, 7.0,
                                measure.world.cfg)

    shares = [gradient([q]) for q in (0, 2, 3)]
    assert distance([sum(parts) for parts in zip(*shares)], gradient([0, 2, 3])) < 1e-5


def test_the_trainers_step_without_momentum_and_decay_is_the_share(measure):
    """policy.update on one question divides by B Tbar with the question's own Tbar; with that Tbar
    the two steps are one.
    """
    measure.world.cfg = replace(measure.world.cfg, beta1=0.0, weight_decay=0.0, grad_clip=1e9)
    trainer = measure.trainer(2, 0.01)

    Tbar = mean_length([ANSWERS[2]])
    share = measure.along([2], measure.world.cfg.minibatch_rows * Tbar, 0.01)
    assert trainer["loss"] == pytest.approx(share["loss"], rel=1e-3)
    assert abs(share["loss"]) > 1e-4


# ---------------------------------------------------------------- the objective

def loss_gradient(objective, world):
    return objective.layout.gradient(
        world.solver, world.cfg, lambda logp: objective.parts(logp)["loss"])


def test_the_gradient_of_the_measured_loss_is_g_dev(measure):
    world = measure.world
    ours = loss_gradient(measure.objective, world)
    assert distance(ours, dev_gradient(world.solver, DEV, A_DEV, world.cfg)) < 1e-4


def test_a_flat_dev_question_changes_nothing(measure, monkeypatch):
    world = measure.world
    A = A_DEV.clone()
    A[1] = 0
    monkeypatch.setattr(reality, "answered", lambda *_: (DEV, A))
    objective = reality.Objective(world, replace(make_sample(), A_dev=A))
    ours = loss_gradient(objective, world)
    assert distance(ours, dev_gradient(world.solver, DEV, A, world.cfg)) < 1e-4


def test_a_small_real_step_does_what_the_dot_product_says(measure):
    """To first order the loss falls by lr <g_dev, Gamma>: measured over a real step of AdamW."""
    world, sample = measure.world, measure.sample
    g_dev = dev_gradient(world.solver, DEV, A_DEV, world.cfg)
    dots = reality.scores(world.solver, ANSWERS, A_SOL, g_dev, world.cfg, "preconditioned_dot")
    largest = float(dots.abs().max())
    for q in range(4):
        gain = measure.along([q], reality.question_denominator(sample), 1e-4)
        slope = gain["loss"] / 1e-4
        assert slope == pytest.approx(float(dots[q]), rel=0.05, abs=0.05 * largest)
        # here the second answers are the first
        assert gain["fresh"] == pytest.approx(gain["loss"])


# ---------------------------------------------------------------- the predictions

def inner(a, b):
    """Inner product of two lists of tensors."""
    return sum(float((x * y).sum()) for x, y in zip(a, b))


def test_the_other_directions_are_what_they_are_called(measure):
    """first_moment: one step of torch's AdamW with the run's beta1. frozen: g_q over the root of
    the bias-corrected history.
    """
    world, sample = measure.world, measure.sample
    solver, cfg = world.solver, world.cfg
    denominator = reality.question_denominator(sample)
    g = reality.gradient(solver, ANSWERS, A_SOL, [1], denominator, cfg)
    g_dev = dev_gradient(solver, DEV, A_DEV, cfg)
    ours = reality.other_predictions(solver, g, g_dev, cfg)

    before = [p.detach().clone() for p in solver.params]
    dots = []
    for gradient in (g, [torch.zeros_like(p) for p in solver.params]):
        step = partial(reality.step_along, solver, gradient)
        with reality.after(solver, step, 0.01, beta1=cfg.beta1):
            moved = [(a - p.detach()) / 0.01 for a, p in zip(before, solver.params)]
            dots.append(inner(moved, g_dev))
    assert ours["first_moment_dot"] == pytest.approx(dots[0] - dots[1], rel=1e-3)

    frozen = []
    for part, p in zip(g, solver.params):
        v, k = second_moment(solver.optimizer, p)
        frozen.append(part / ((v / (1 - cfg.beta2 ** k)).sqrt() + cfg.adam_eps))
    assert ours["frozen_dot"] == pytest.approx(inner(frozen, g_dev), rel=1e-4)
    assert ours["frozen_cosine"] == pytest.approx(reality.cosine(frozen, g_dev), rel=1e-4)


def test_without_a_history_there_is_nothing_to_freeze_and_the_first_moment_is_gamma(measure):
    world, sample = measure.world, measure.sample
    with reality.without_history(world.solver):
        g_dev = dev_gradient(world.solver, DEV, A_DEV, world.cfg)
        found = reality.predictions(world, sample, [0, 3], g_dev)
    assert not any(name.startswith("frozen") for name in found)
    for kind in ("cosine", "dot"):
        gamma = found[f"preconditioned_{kind}"]
        assert found[f"first_moment_{kind}"] == pytest.approx(gamma, rel=1e-4)


def test_the_methods_score_is_the_one_training_pays(measure):
    world, sample = measure.world, measure.sample
    g_dev = dev_gradient(world.solver, DEV, A_DEV, world.cfg)
    found = reality.predictions(world, sample, [0, 1, 2, 3], g_dev, g_exact=g_dev)
    paid, _ = influence_scores(world.solver, ANSWERS, A_SOL, g_dev, world.cfg)
    assert found["preconditioned_cosine"] == paid.tolist()
    assert found["exact_dev_cosine"] == found["preconditioned_cosine"]
    assert found["exact_dev_dot"] == found["preconditioned_dot"]


# ---------------------------------------------------------------- the statistics

def test_ranks_share_ties():
    assert reality.ranks_of(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_agreement_on_a_table_done_by_hand():
    """y = x^3 keeps ranks but is no straight line; one of five signs differs. Pearson by numpy."""
    x = [-2.0, -1.0, 0.5, 1.0, 2.0]
    y = [-8.0, -1.0, -0.1, 1.0, 8.0]
    result = reality.agreement(x, y)
    assert result["spearman"][0] == pytest.approx(1)
    assert result["sign"][0] == pytest.approx(0.8)
    assert result["pearson"][0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert result["sign"][1] < 0.8 < result["sign"][2]


def test_the_lead_of_a_better_prediction_is_the_difference_of_the_correlations():
    rng = np.random.default_rng(1)
    real = rng.normal(size=80)
    good = real + 0.1 * rng.normal(size=80)
    bad = real + 3 * rng.normal(size=80)

    def spearman(x):
        return reality.agreement(x, real)["spearman"][0]

    value, low, high = reality.lead(good, bad, real)
    assert value == pytest.approx(spearman(good) - spearman(bad))
    assert 0 < low < value < high
    assert reality.lead(good, good, real) == [0, 0, 0]


def test_an_interval_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        x = rng.normal(size=60)
        y = 0.5 * x + rng.normal(size=60) * 0.75 ** 0.5
        _, low, high = reality.agreement(x, y)["pearson"]
        covered += low < 0.5 < high
    assert 87 <= covered <= 99


# ---------------------------------------------------------------- on a run

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the embedded world, two iterations long, stopped after the first for a copy of its
    folder.
    """
    folder = tmp_path_factory.mktemp("run")
    dev = json.loads(Path(from_flags({}).dev).read_text())[:12]
    (folder / "dev.json").write_text(json.dumps(dev))
    cfg = from_flags(dict(
        dev=str(folder / "dev.json"), docs_per_step=2, questions_per_doc=4, answers_per_question=4,
        minibatch_rows=8, iterations=1, eval_every=9, device="cpu", threads=1,
        run=str(folder / "run")))
    train.train(replace(cfg, test=None))
    return folder / "run"


def test_it_samples_and_scores_what_training_does_next(run, tmp_path):
    """questions.jsonl of the resumed run has the very scores, though no model has been told."""
    world = reality.load(run)
    sample = reality.draw(world, world.cfg.answers_per_question, 1)
    g_dev = dev_gradient(world.solver, sample.dev_answers, sample.A_dev, world.cfg)
    ours = reality.scores(world.solver, sample.answers, sample.A_sol, g_dev, world.cfg)

    shutil.copytree(run, tmp_path / "next")
    train.train(from_flags({"resume": str(tmp_path / "next"), "iterations": 2}))
    lines = (tmp_path / "next/questions.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    theirs = [x for x in logged if x["iteration"] == 2 and x["s_hat"] is not None]

    asked = [question.question_text for question in sample.questions]
    assert [x["question"] for x in theirs] == asked[:len(theirs)]
    assert [x["s_hat"] for x in theirs] == pytest.approx(ours[:len(theirs)].tolist(), abs=1e-5)
    assert any(x["s_hat"] for x in theirs)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_reports_every_state_and_draws_it(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    before = contents(run)
    json_file = tmp_path / "out.json"
    figure = tmp_path / "out.svg"
    reality.main([str(run), "--questions", "4", "--states", "warm,cold,anchor", "--sizes", "1,10",
                  "--batches", "2", "--dev", "4",
                  "--json", str(json_file), "--figure", str(figure)])

    states = json.loads(json_file.read_text())["runs"][0]["states"]
    assert list(states) == ["warm", "cold", "anchor"]
    assert [state["iteration"] for state in states.values()] == [1, 1, 0]
    for name, state in states.items():
        warm = name == "warm"
        assert state["exact"] and 0.9 < state["before"]["mass"] <= 1
        steps = ["gamma 1", "gamma 10"] + ["trainer 1"] * warm
        assert list(state["agreement"]) == steps
        assert len(state["batches"]["loss"]["batch"]) == 2
        assert ("frozen_cosine" in state["predicted"]) == warm

    printed = capsys.readouterr().out
    for name in states:
        assert f"{run.name}, {name}" in printed or f"{run}, {name}" in printed
    assert str(run) not in json_file.read_text()
    assert figure.read_text().startswith("<?xml")
    assert contents(run) == before


@pytest.mark.parametrize("config, said", [
    (None, "no config.json"), ("[", "expected the JSON"), ("[1]", "expected the JSON")])
def test_a_folder_that_is_no_run_is_one_line(tmp_path, config, said):
    if config:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match=said):
        reality.load(tmp_path)


def test_a_run_without_a_checkpoint_is_one_line(run, tmp_path):
    shutil.copy(run / "config.json", tmp_path)
    with pytest.raises(InputError, match="no whole checkpoint"):
        reality.load(tmp_path)


# ---------------------------------------------------------------- questions of several sources

@pytest.fixture
def toy_questions():
    return load_questions(from_flags({}).test)


def test_predictions_of_a_source_are_the_scores_and_a_wrong_key_is_wrong(run, toy_questions):
    world = reality.load(run)
    with Verifier() as verifier:
        asked = sources.from_file(world, "toy", toy_questions, 4, verifier)
        sample = sources.sample_of(world, asked, verifier)
    assert [one.right for one in asked] == [True, True, False, False]
    truth = {question.question_text: question for question in toy_questions}
    for one in asked:
        true = truth[one.question.question_text]
        assert (one.question.ground_truth == true.ground_truth) == one.right
        assert one.question.ground_truth in true.choices
        letters = [given_answer(one.question, answer.text) for answer in one.answers]
        assert one.r.tolist() == [float(letter == one.question.letter) for letter in letters]
        assert 0 < one.r.mean() < 1

    g_dev = dev_gradient(world.solver, sample.dev_answers, sample.A_dev, world.cfg)
    for name in ("preconditioned_cosine", "cosine", "preconditioned_dot", "dot"):
        scores = reality.scores(
            world.solver, sample.answers, sample.A_sol, g_dev, world.cfg, name)
        for q in range(4):
            predicted = sources.predictions(world, sample, q, g_dev, {"other": g_dev})
            assert predicted["other"] == predicted[reality.METHOD]
            assert predicted[name] == pytest.approx(float(scores[q]), rel=1e-3, abs=1e-6)
            assert predicted["solved"] == float(asked[q].r.mean())


def test_a_study_of_sources_goes_on_where_it_was_stopped(run, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\n<!-- end of results -->\nafter\n")
    file = tmp_path / "found.json"
    words = [str(run), "--from", f"toy={from_flags({}).dev}", "--each", "2", "--dev", "4",
             "--steps", "gamma", "--often", "16", "--json", str(file), "--page", str(page)]
    # stopped before the second question
    steps = sources.steps
    taken = []

    def stopped(measure, q, names):
        if taken:
            raise KeyboardInterrupt
        taken.append(q)
        return steps(measure, q, names)

    monkeypatch.setattr(sources, "steps", stopped)
    with pytest.raises(KeyboardInterrupt):
        sources.main(words)
    first = json.loads(file.read_text())["questions"]
    assert list(first) == ["toy/0"]

    monkeypatch.setattr(sources, "steps", steps)
    sources.main(words)
    found = json.loads(file.read_text())["questions"]
    assert found["toy/0"] == first["toy/0"]
    assert [x["right"] for x in found.values()][:2] == [True, False]
    assert set(x["source"] for x in found.values()) <= {"toy", "generated"}
    written = page.read_text()
    assert written.startswith("before") and written.endswith("after\n")
    assert "| preconditioned_cosine |" in written and "Step gamma" in written
    assert "| exact |" in written and "| often |" in written

    # another answer to the same question: neither the same gradient nor an unrelated one
    alike = json.loads(file.read_text())["with_exact"]
    assert set(alike) == {"g_dev", "often"} and 0 < alike["g_dev"] != alike["often"] < 1

    with pytest.raises(InputError, match="holds another study"):
        sources.main([*words, "--each", "3"])
    # the run went on, or the file of questions is another of the same name
    for change in ({"iteration": 7}, {"questions": {"toy/0": {"question": {}}}}):
        (tmp_path / "other.json").write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(InputError, match="has changed since"):
            sources.main([*words[:-3], str(tmp_path / "other.json")])
    with pytest.raises(InputError, match="expected NAME=FILE"):
        sources.main([str(run), "--from", "toy", "--json", str(file)])
