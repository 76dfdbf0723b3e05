"""Reliability is measured on noise whose size is known, and each split really is of disjoint halves."""
import json

import numpy as np
import pytest
import torch

import noise
import reality
from data import InputError
from dugrpo import center
from fakes import make_groups
from influence import dev_gradient
from test_reality import FREE, make_world, run                      # run: a fixture

R = torch.tensor([[1., 0, 0, 1, 1, 1], [1., 1, 1, 0, 0, 1], [0., 1, 0, 1, 1, 0]])
GROUPS = make_groups([[4, 3, 5, 2, 6, 3], [3, 3, 4, 2, 5, 4], [5, 2, 3, 4, 3, 3]], seed=4)


def make_sample():
    dev = make_groups([[3, 4, 2, 5, 3, 3], [4, 2, 3, 3, 5, 2]], seed=5)
    A_dev = center(torch.tensor([[1., 0, 1, 0, 0, 1], [0., 1, 0, 1, 1, 0]]))
    return reality.Sample(dev, A_dev, [None] * 3, [0, 2, 2], GROUPS, center(R), [0, 1, 2], 3)


# ---------------------------------------------------------------- halves

def test_advantages_of_a_half_are_those_of_its_own_rewards():
    answers, A = noise.part(GROUPS, center(R), [0, 1, 2])
    assert [len(group) for group in answers] == [3, 3, 3] and answers[1][2] is GROUPS[1][2]
    assert torch.allclose(A, center(R[:, :3])) and (A[1] == 0).all()                       # 1, 1, 1: flat, though the whole row is not


def test_the_halves_of_the_answers_are_disjoint_and_scored_by_the_method(make_policy, monkeypatch):
    solver, cfg = make_policy()
    world, sample = make_world(solver, cfg), make_sample()
    s1, s2 = noise.split_answers(world, sample, 2, ([0, 1, 2], [3, 4, 5]))
    for s, some, dev in ((s1, [0, 1], [0, 1, 2]), (s2, [3, 4], [3, 4, 5])):
        g_dev = dev_gradient(solver, [[g[i] for i in dev] for g in sample.dev_answers], center(sample.A_dev[:, dev]), cfg)
        theirs = reality.scores(solver, [[g[i] for i in some] for g in GROUPS], center(R[:, some]), g_dev, cfg)
        assert s.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    assert s1[1] == 0 and s2[1] == 0 and s1[0] != 0                                         # [1, 1] and [0, 0] are flat, [1, 0] is not


def test_the_halves_of_the_dev_set_are_disjoint_questions(make_policy, monkeypatch):
    solver, cfg = make_policy()
    world, sample, seen = make_world(solver, cfg), make_sample(), []
    monkeypatch.setattr(noise, "score", lambda world, answers, A, dev_answers, A_dev: seen.append((answers, dev_answers)))
    noise.split_dev(world, sample, 1, 4, seed=0)
    prompts = [[group[0].prompt for group in dev] for _, dev in seen]
    assert sorted(sum(prompts, [])) == sorted(group[0].prompt for group in sample.dev_answers)
    assert all(len(group) == 4 for answers, dev in seen for group in answers + dev) and seen[0][0] == seen[1][0]
    assert len(world.dev) == len(FREE)


# ---------------------------------------------------------------- reliability

def halves(noise_std, n=4000, items=1, seed=0):
    """(n,) true scores of variance 1 seen twice through noise, each the mean of `items` looks."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n)
    return [true + noise_std * rng.normal(size=(items, n)).mean(0) for _ in range(2)]


def test_reliability_is_the_share_of_variance_that_is_not_noise():
    assert noise.reliability([halves(1.0)])["r"][0] == pytest.approx(1 / 2, abs=0.04)       # 1 / (1 + 1)
    assert noise.reliability([halves(0.5)])["r"][0] == pytest.approx(4 / 5, abs=0.03)       # 1 / (1 + 1/4)


def test_spearman_brown_predicts_what_twice_the_answers_give():
    one, two = (noise.reliability([halves(1.0, items=items)]) for items in (1, 2))
    assert one["doubled"][0] == pytest.approx(two["r"][0], abs=0.04)
    assert one["r"][1] < one["r"][0] < one["r"][2]


def test_several_ways_of_halving_are_averaged():
    a, b = halves(0.5, n=50), halves(3.0, n=50, seed=1)
    assert noise.reliability([a, b])["r"][0] == pytest.approx((noise.reliability([a])["r"][0] + noise.reliability([b])["r"][0]) / 2)


# ---------------------------------------------------------------- normalisations

def test_scores_go_to_their_documents_and_the_rest_is_invalid():
    assert noise.grid(make_sample(), [0.1, 0.2, 0.3], 3, -1.0).tolist() == [[0.1, -1, -1], [-1, -1, -1], [0.2, 0.3, -1]]


def two_kinds(D=60, n=8, seed=0):
    """Half of the documents differ by 1 in what their drafts are worth, half by 0.02; noise of 0.1 on every score, drawn twice."""
    g = torch.Generator().manual_seed(seed)
    true = torch.randn(D, n, generator=g, dtype=torch.float64) * torch.tensor([1.0, 0.02], dtype=torch.float64).repeat(D // 2)[:, None]
    return [true + 0.1 * torch.randn(D, n, generator=g, dtype=torch.float64) for _ in range(2)]


def test_dugrpo_keeps_noise_small_that_grpo_blows_up():
    """The reason for DuGRPO, on documents half of which hold nothing but noise: GRPO gives them half of the update."""
    out = noise.normalisations(*two_kinds())
    assert out["group_std"]["low_share"][0] == pytest.approx(0.5, abs=0.001)
    assert out["dugrpo"]["low_share"][0] < 0.1 and out["none"]["low_share"][0] < 0.05
    assert out["group_std"]["repeated"][0] < 0.65 and out["dugrpo"]["repeated"][0] > 0.85
    assert out["thirds"][0]["repeated"][0] < 0.3 and out["thirds"][2]["repeated"][0] > 0.9
    assert sum(out["dugrpo"]["share"]) == pytest.approx(1)


def test_a_document_that_is_flat_in_a_half_is_counted_and_left_out():
    s1, s2 = two_kinds(D=8)
    s1[3] = 0.5
    out = noise.normalisations(s1, s2)
    assert out["documents"] == 8 and out["flat"] == 1 and len(out["sigma"]) == 7 == len(out["none"]["share"])


def test_without_any_advantage_it_says_so():
    with pytest.raises(InputError, match="all of the 8 documents are flat"):
        noise.normalisations(torch.zeros(8, 4), torch.rand(8, 4))


def test_repeated_is_a_cosine():
    A = np.random.default_rng(0).normal(size=(5, 4))
    assert noise.repeated(A, 3 * A) == pytest.approx(1) and noise.repeated(A, -A) == pytest.approx(-1)


# ---------------------------------------------------------------- on a run

def test_the_command_reports_every_split_and_draws_it(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    noise.main([str(run), "--questions", "6", "--answers", "2,4", "--dev", "3,6,99", "--splits", "1",
                "--json", str(tmp_path / "out.json"), "--figure", str(tmp_path / "out.svg")])
    report = json.loads((tmp_path / "out.json").read_text())
    sizes = {what: list(rows) for what, rows in report["reliability"].items()}
    assert sizes == {"answers": ["2", "4"], "both": ["2", "4"], "dev": ["3", "6"]}
    pairs = [pair for rows in report["scores"].values() for pairs in rows.values() for pair in pairs]
    assert len(pairs) == 6 and all(len(s) == report["questions"] for pair in pairs for s in pair)
    assert "dugrpo" in capsys.readouterr().out and (tmp_path / "out.svg").read_text().startswith("<?xml")
