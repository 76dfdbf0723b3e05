"""The vLLM guest, as far as it can be tested without vLLM: it is never imported unasked, its
absence is one line, its completions become rollouts.
"""
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from data import InputError
from engine import vllm_sampler

# runs and processes of their own
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
BLOCKED = """
import sys
sys.modules["vllm"] = None
import train
from engine import flags
sys.exit(train.main(flags.parse(["--sampler", "vllm", "--run", sys.argv[1]])))
"""


def test_without_vllm_one_line_says_so_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    says = "--sampler vllm: vLLM cannot be imported .*--sampler plain"
    with pytest.raises(InputError, match=says):
        vllm_sampler.require()

    run = tmp_path / "run"
    command = [sys.executable, "-c", BLOCKED, str(run)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "error: --sampler vllm" in ended.stderr
    assert not run.exists()


def test_the_plain_sampler_imports_neither_vllm_nor_its_guest():
    code = ("import sys, train; "
            "sys.exit('vllm' in sys.modules or 'engine.vllm_sampler' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_completion_becomes_a_rollout_with_its_last_token_and_its_log_probs():
    def decode(tokens, skip_special_tokens):
        return " ".join(str(token) for token in tokens if token != 9)

    def lp(x):
        return SimpleNamespace(logprob=x)

    policy = SimpleNamespace(stop_ids=[9], tokenizer=SimpleNamespace(decode=decode))
    logprobs = [{4: lp(-0.5)}, {7: lp(-0.1), 5: lp(-1.5)}, {9: lp(-0.25)}]
    answer = SimpleNamespace(token_ids=(4, 5, 9), logprobs=logprobs)
    assert vllm_sampler.outcome(policy, answer) == ([4, 5, 9], [-0.5, -1.5, -0.25], True, "4 5")

    cut = SimpleNamespace(token_ids=(4,), logprobs=[{4: lp(-0.5)}])
    _, _, finished, _ = vllm_sampler.outcome(policy, cut)
    assert not finished
