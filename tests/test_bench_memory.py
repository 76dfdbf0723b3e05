"""What bounds memory changes no number; the tables say what ran, and what did not."""
import json
from dataclasses import replace

import pytest

import bench_memory
from config import Config

CFG = Config(device="cpu", dtype="fp32")


def one_answer(cfg, V=4096, response=256):
    policy = bench_memory.tiny_policy(V, cfg, 512)
    groups, A = bench_memory.random_groups(policy, cfg, 1, 1, bench_memory.lengths(16, response), bench_memory.random.Random(0))
    return policy, groups, A + 1


def test_chunks_of_log_probs_save_memory_and_change_no_gradient():
    result = bench_memory.compare(*one_answer(CFG), replace(CFG, logp_chunk=32), replace(CFG, logp_chunk=256))
    assert result["usual"]["peak"] < 0.5 * result["other"]["peak"]
    assert result["gradients differ by"] < 1e-5 and result["losses differ by"] < 1e-5 and abs(result["usual"]["loss"]) > 0.1


def test_the_difference_sees_another_loss():
    policy, groups, A = one_answer(CFG, response=32)
    _, g = bench_memory.one_pass(policy, groups, A, CFG)
    _, other = bench_memory.one_pass(policy, groups, 1.01 * A, CFG)
    assert bench_memory.distance(other, g) == pytest.approx(0.01, rel=0.01)
    assert all(p.grad is None for p in policy.params)


def test_the_command_writes_its_tables_and_leaves_out_what_would_not_fit(tmp_path, capsys):
    out = tmp_path / "memory.json"
    bench_memory.main(["--prompts", "32", "--responses", "64,128", "--vocabularies", "512,2048", "--limit", "0.003", "--json", str(out)])
    report = json.loads(out.read_text())
    assert [(x["vocabulary"], x["response"], x["other"] is not None) for x in report["lengths"]] == [
        (512, 64, True), (512, 128, True), (2048, 64, True), (2048, 128, False)]        # 4 x 4 x 128 x 2048 = 4 MB, above 3
    assert all(x["gradients differ by"] < 1e-5 for x in report["lengths"][:3])
    assert "(not run)" in capsys.readouterr().out
    assert report["packing"]["usual"]["passes"] == 1 and report["packing"]["other"]["passes"] > 1
    assert report["budget"]["usual"]["passes"] == 1 and report["budget"]["other"]["passes"] == 4
    assert report["budget"]["other"]["peak"] < 0.5 * report["budget"]["usual"]["peak"]
    assert report["packing"]["gradients differ by"] < 1e-5 and report["budget"]["gradients differ by"] < 1e-5
    assert len(report["kernels"]) == 2 and all("flash" in name for name in report["kernels"])
