"""What bounds memory changes no number; the tables say what ran, and what did not."""
import json
import random
from dataclasses import replace

import pytest

from tools import memory as bench_memory
from config import Config

# runs and processes of their own
pytestmark = pytest.mark.slow

CFG = Config(device="cpu", dtype="fp32")


def one_answer(cfg, V=4096, response=256):
    policy = bench_memory.tiny_policy(V, cfg, 512)
    lengths = bench_memory.lengths(16, response)
    groups, A = bench_memory.random_groups(policy, cfg, 1, 1, lengths, random.Random(0))
    return policy, groups, A + 1


def test_chunks_of_log_probs_save_memory_and_change_no_gradient():
    chunked = replace(CFG, logp_chunk=32)
    whole = replace(CFG, logp_chunk=256)
    result = bench_memory.compare(*one_answer(CFG), chunked, whole)
    assert result["usual"]["peak"] < 0.5 * result["other"]["peak"]
    assert result["gradients differ by"] < 1e-5 and result["losses differ by"] < 1e-5
    assert abs(result["usual"]["loss"]) > 0.1


def test_the_difference_sees_another_loss():
    policy, groups, A = one_answer(CFG, response=32)
    _, g = bench_memory.measured(policy, groups, A, CFG)
    _, other = bench_memory.measured(policy, groups, 1.01 * A, CFG)
    assert bench_memory.distance(other, g) == pytest.approx(0.01, rel=0.01)
    assert all(p.grad is None for p in policy.params)


def test_the_command_writes_its_tables_and_leaves_out_what_would_not_fit(tmp_path, capsys):
    out = tmp_path / "memory.json"
    sizes = ["--prompts", "32", "--responses", "64,128", "--vocabularies", "512,2048"]
    bench_memory.main([*sizes, "--limit", "0.003", "--json", str(out)])
    report = json.loads(out.read_text())

    # 4 x 4 x 128 x 2048 = 4 MB, above 3
    run = [(x["vocabulary"], x["response"], x["other"] is not None) for x in report["lengths"]]
    assert run == [(512, 64, True), (512, 128, True), (2048, 64, True), (2048, 128, False)]
    assert all(x["gradients differ by"] < 1e-5 for x in report["lengths"][:3])
    assert "(not run)" in capsys.readouterr().out

    packing = report["packing"]
    assert packing["usual"]["passes"] == 1 and packing["other"]["passes"] > 1
    assert packing["gradients differ by"] < 1e-5

    budget = report["budget"]
    assert budget["usual"]["passes"] == 1 and budget["other"]["passes"] == 4
    assert budget["other"]["peak"] < 0.5 * budget["usual"]["peak"]
    assert budget["gradients differ by"] < 1e-5

    kernels = report["kernels"]
    assert len(kernels) == 2 and all("flash" in name for name in kernels)
