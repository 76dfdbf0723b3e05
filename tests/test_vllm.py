"""The vLLM guest, as far as it can be tested without vLLM: it is never imported unasked, its absence is one line, its completions become rollouts."""
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import vllm_sampler
from data import InputError

ROOT = Path(__file__).resolve().parent.parent


def test_without_vllm_one_line_says_so_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="--sampler vllm: vLLM cannot be imported .*--sampler plain"):
        vllm_sampler.require()
    blocked = "import sys; sys.modules['vllm'] = None; sys.argv = ['train.py', '--sampler', 'vllm', '--run', sys.argv[1]]; import train; sys.exit(train.main())"
    ended = subprocess.run([sys.executable, "-c", blocked, str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and "error: --sampler vllm" in ended.stderr and not (tmp_path / "run").exists()


def test_the_plain_sampler_imports_neither_vllm_nor_its_guest():
    code = "import sys, train; sys.exit('vllm' in sys.modules or 'vllm_sampler' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_completion_becomes_a_rollout_with_its_last_token_and_its_log_probs():
    policy = SimpleNamespace(stop_ids=[9], tokenizer=SimpleNamespace(decode=lambda tokens, skip_special_tokens: " ".join(str(t) for t in tokens if t != 9)))
    lp = lambda x: SimpleNamespace(logprob=x)
    answer = SimpleNamespace(token_ids=(4, 5, 9), logprobs=[{4: lp(-0.5)}, {7: lp(-0.1), 5: lp(-1.5)}, {9: lp(-0.25)}])
    rollout = vllm_sampler.rollout(policy, [1, 2], answer)
    assert (rollout.prompt, rollout.response, rollout.logp, rollout.finished, rollout.text) == ([1, 2], [4, 5, 9], [-0.5, -1.5, -0.25], True, "4 5")
    assert not vllm_sampler.rollout(policy, [1], SimpleNamespace(token_ids=(4,), logprobs=[{4: lp(-0.5)}])).finished
