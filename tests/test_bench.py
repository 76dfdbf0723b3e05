"""The benchmark compares the speed of equal computations: that they are equal is shown here, on two layers. No speed is tested."""
import json
from argparse import Namespace

import pytest
import torch

import bench
from fakes import gradients
from policy import batch_loss, micro_batches

ARGS = Namespace(rows=8)


@pytest.fixture(params=["tied", "untied"])
def world(request, make_policy):
    policy, cfg = make_policy(request.param)
    return bench.make_world(policy, cfg, Q=5, m=4, lengths=dict(prompt=(3, 9), answer=(1, 8)))


def test_the_plain_scores_are_our_scores(world):
    stage = bench.influence_stage(world, ARGS)
    ours, plain = stage.variants["ours"](), stage.variants["plain"]()
    assert ours.abs().min() > 0 and torch.allclose(ours, plain, atol=1e-5)
    assert stage.difference({"ours": ours, "plain": plain, "bare": None}) < 1e-5
    assert all(p.grad is None for p in world.policy.params)


def test_the_padded_loss_has_the_gradient_of_the_packed_one(world):
    group, A, params = world.answers[0], world.A[:1], world.policy.params
    packed = sum(batch_loss(world.policy, rows, A, 7.0, world.cfg)[0] for rows in micro_batches(world.policy, [(0, group)], world.cfg))
    for a, b in zip(gradients(bench.padded_loss(world, group, A[0], 7.0), params), gradients(packed, params)):
        assert torch.allclose(a, b, atol=1e-5)


def test_greedy_rollouts_are_the_same_tokens(world):
    variants = bench.rollout_stage(world, ARGS, temperature=0, mean=6, limit=12).variants
    ours = variants["ours"]()
    assert len({len(response) for response in ours}) > 1                    # ragged
    assert variants["generate"]() == ours


def test_drawn_rollouts_have_the_same_ragged_lengths(world):
    stage = bench.rollout_stage(world, ARGS, mean=6, limit=12)
    results = {name: run() for name, run in stage.variants.items()}
    lengths = [len(response) for response in results["ours"]]
    assert stage.difference(results) == 0 and sum(lengths) == stage.tokens
    assert min(lengths) < 4 and max(lengths) > 8


def test_peak_bytes_counts_what_is_alive_together():
    def run():
        a = torch.zeros(1000)
        del a
        b = torch.zeros(500)
        return b + 1                                                        # two of 2,000 bytes live, after one of 4,000
    assert 4000 <= bench.peak_bytes(run) < 4200


def test_the_command_writes_every_number_it_prints(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "Policy", lambda *_: world.policy)
    bench.main(["--questions", "3", "--answers", "4", "--repeats", "2", "--rows", "8", "--json", str(tmp_path / "bench.json")])
    report = json.loads((tmp_path / "bench.json").read_text())
    assert list(report) == ["machine", "settings", "stages", "memory"] and list(report["stages"]) == ["influence", "rollouts"]
    assert all(len(seconds) == 2 for stage in report["stages"].values() for seconds in stage["seconds"].values())
    printed = capsys.readouterr().out
    assert all(f"{ratio['value']:.2f}" in printed for stage in report["stages"].values() for ratio in stage["ratios"])
