"""Reliability is measured on noise whose size is known, and each split really is of disjoint
halves.
"""
import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from studies import noise, reality
from data import InputError
from dugrpo import center
from fakes import make_groups
from influence import dev_gradient
import test_reality
from test_reality import FREE, make_world

# runs and processes of their own
pytestmark = pytest.mark.slow

# a fixture: a run of the embedded world
run = test_reality.run

R = torch.tensor([[1., 0, 0, 1, 1, 1], [1., 1, 1, 0, 0, 1], [0., 1, 0, 1, 1, 0]])
GROUPS = make_groups([[4, 3, 5, 2, 6, 3], [3, 3, 4, 2, 5, 4], [5, 2, 3, 4, 3, 3]], seed=4)


def make_sample():
    dev = make_groups([[3, 4, 2, 5, 3, 3], [4, 2, 3, 3, 5, 2]], seed=5)
    A_dev = center(torch.tensor([[1., 0, 1, 0, 0, 1], [0., 1, 0, 1, 1, 0]]))
    return reality.Sample(dev, A_dev, [None] * 3, [0, 2, 2], GROUPS, center(R), [0, 1, 2], 3)


# ---------------------------------------------------------------- halves

def test_advantages_of_a_half_are_those_of_its_own_rewards():
    answers, A = noise.part(GROUPS, center(R), [0, 1, 2])
    assert [len(group) for group in answers] == [3, 3, 3]
    assert answers[1][2] is GROUPS[1][2]
    assert torch.allclose(A, center(R[:, :3]))
    # 1, 1, 1: flat, though the whole group is not
    assert (A[1] == 0).all()


def chosen(groups, places):
    """Some answers of every group."""
    some = []
    for group in groups:
        some.append([group[i] for i in places])
    return some


def test_the_halves_of_the_answers_are_disjoint_and_scored_by_the_method(make_policy):
    solver, cfg = make_policy()
    world = make_world(solver, cfg)
    sample = make_sample()
    s1, s2 = noise.split_answers(world, sample, 2, ([0, 1, 2], [3, 4, 5]))

    for s, some, dev in ((s1, [0, 1], [0, 1, 2]), (s2, [3, 4], [3, 4, 5])):
        dev_answers = chosen(sample.dev_answers, dev)
        g_dev = dev_gradient(solver, dev_answers, center(sample.A_dev[:, dev]), cfg)
        theirs = reality.scores(solver, chosen(GROUPS, some), center(R[:, some]), g_dev, cfg)
        assert s.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    # [1, 1] and [0, 0] are flat, [1, 0] is not
    assert s1[1] == 0 and s2[1] == 0 and s1[0] != 0


def test_the_halves_of_the_dev_set_are_disjoint_questions(make_policy, monkeypatch):
    solver, cfg = make_policy()
    world = make_world(solver, cfg)
    sample = make_sample()
    seen = []

    def score(world, answers, A, dev_answers, A_dev):
        seen.append((answers, dev_answers))

    monkeypatch.setattr(noise, "score", score)
    noise.split_dev(world, sample, 1, 4, seed=0)
    (answers_1, dev_1), (answers_2, dev_2) = seen

    prompts = [group[0].prompt for group in dev_1 + dev_2]
    assert sorted(prompts) == sorted(group[0].prompt for group in sample.dev_answers)
    assert all(len(group) == 4 for group in answers_1 + dev_1 + answers_2 + dev_2)
    assert answers_1 == answers_2
    assert len(world.dev) == len(FREE)


# ---------------------------------------------------------------- reliability

def halves(noise_std, n=4000, items=1, seed=0):
    """(n,) true scores of variance 1 seen twice through noise, each the mean of `items` looks."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n)
    return [true + noise_std * rng.normal(size=(items, n)).mean(0) for _ in range(2)]


def r_of(*pairs):
    return noise.reliability(pairs)["r"][0]


def test_reliability_is_the_share_of_variance_that_is_not_noise():
    # 1 / (1 + 1) and 1 / (1 + 1/4)
    assert r_of(halves(1.0)) == pytest.approx(1 / 2, abs=0.04)
    assert r_of(halves(0.5)) == pytest.approx(4 / 5, abs=0.03)


def test_spearman_brown_predicts_what_twice_the_answers_give():
    one = noise.reliability([halves(1.0, items=1)])
    two = noise.reliability([halves(1.0, items=2)])
    assert one["doubled"][0] == pytest.approx(two["r"][0], abs=0.04)
    assert one["r"][1] < one["r"][0] < one["r"][2]


def test_several_ways_of_halving_are_averaged():
    a = halves(0.5, n=50)
    b = halves(3.0, n=50, seed=1)
    assert r_of(a, b) == pytest.approx((r_of(a) + r_of(b)) / 2)


# ---------------------------------------------------------------- normalisations

def test_scores_go_to_their_documents_and_the_rest_is_invalid():
    grid = noise.grid(make_sample(), [0.1, 0.2, 0.3], 3, -1.0)
    assert grid.tolist() == [[0.1, -1, -1], [-1, -1, -1], [0.2, 0.3, -1]]


def test_a_run_paid_otherwise_is_measured_by_the_invalid_score_of_influence(run, monkeypatch):
    """azr's -1 in both halves would be a signal that two independent scores share."""
    def load(*args, **more):
        world = loaded(*args, **more)
        world.cfg = replace(world.cfg, invalid_score=-1.0)
        return world

    def watched(sample, scores, n, invalid_score):
        seen.append(invalid_score)
        return grid(sample, scores, n, invalid_score)

    seen, loaded, grid = [], reality.load, noise.grid
    monkeypatch.setattr(reality, "load", load)
    monkeypatch.setattr(noise, "grid", watched)
    noise.main([str(run), "--questions", "6", "--answers", "2", "--dev", "3", "--splits", "1"])
    assert seen == [0.0, 0.0]


def two_kinds(D=60, n=8, seed=0):
    """Half of the documents differ by 1 in what their drafts are worth, half by 0.02; noise of 0.1
    on every score, drawn twice.
    """
    g = torch.Generator().manual_seed(seed)
    true = torch.randn(D, n, generator=g, dtype=torch.float64)
    true *= torch.tensor([1.0, 0.02], dtype=torch.float64).repeat(D // 2)[:, None]
    return [true + 0.1 * torch.randn(D, n, generator=g, dtype=torch.float64) for _ in range(2)]


def test_dugrpo_keeps_noise_small_that_grpo_blows_up():
    """The reason for DuGRPO, on documents half of which hold nothing but noise: GRPO gives them
    half of the update.
    """
    out = noise.normalisations(*two_kinds())
    assert out["group_std"]["low_share"][0] == pytest.approx(0.5, abs=0.001)
    assert out["dugrpo"]["low_share"][0] < 0.1
    assert out["none"]["low_share"][0] < 0.05
    assert out["group_std"]["repeated"][0] < 0.65
    assert out["dugrpo"]["repeated"][0] > 0.85
    assert out["thirds"][0]["repeated"][0] < 0.3
    assert out["thirds"][2]["repeated"][0] > 0.9
    assert sum(out["dugrpo"]["share"]) == pytest.approx(1)


def test_a_document_that_is_flat_in_a_half_is_counted_and_left_out():
    s1, s2 = two_kinds(D=8)
    s1[3] = 0.5
    out = noise.normalisations(s1, s2)
    assert out["documents"] == 8 and out["flat"] == 1
    assert len(out["sigma"]) == 7 == len(out["none"]["share"])


def test_without_any_advantage_it_says_so():
    with pytest.raises(InputError, match="all of the 8 documents are flat"):
        noise.normalisations(torch.zeros(8, 4), torch.rand(8, 4))


def test_repeated_is_a_cosine():
    A = np.random.default_rng(0).normal(size=(5, 4))
    assert noise.repeated(A, 3 * A) == pytest.approx(1)
    assert noise.repeated(A, -A) == pytest.approx(-1)


# ---------------------------------------------------------------- on a run

def test_the_command_reports_every_split_and_draws_it(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    json_file = tmp_path / "out.json"
    figure = tmp_path / "out.svg"
    noise.main([str(run), "--questions", "6", "--answers", "2,4", "--dev", "3,6,99",
                "--splits", "1", "--json", str(json_file), "--figure", str(figure)])

    report = json.loads(json_file.read_text())
    sizes = {split: list(by_size) for split, by_size in report["reliability"].items()}
    assert sizes == {"answers": ["2", "4"], "both": ["2", "4"], "dev": ["3", "6"]}
    pairs = []
    for by_size in report["scores"].values():
        pairs += chain.from_iterable(by_size.values())
    assert len(pairs) == 6
    assert all(len(s) == report["questions"] for s in chain.from_iterable(pairs))
    assert "dugrpo" in capsys.readouterr().out
    assert figure.read_text().startswith("<?xml")
