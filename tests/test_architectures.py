"""What transformers ships, in small random form, is exact or refused in words: some of the table
of docs/models.md, which tools/architectures.py makes of all.
"""
import pytest

from config import ROOT
from tools import architectures

EXACT = ["llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma3_text", "olmo3", "phi3", "gpt2",
         "gpt_neox", "smollm3", "deepseek_v3", "afmoe"]
REFUSED = {
    "granite": "it scales its logits, by 0.25 behind its head",
    "gemma2": "it caps its logits, at 30 (final_logit_softcapping)",
    "mamba": "recurrent layers (mamba)", "lfm2": "layers of kind conv",
    "llama4_text": "layers of kind chunked_attention", "bart": "does not take positions",
    "bert": "not what its head makes", "gpt_oss": "scaled_dot_product_attention",
    "gemma4_text": "per-layer attribute"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXACT)
def test_what_is_taken_computes_its_own_log_probs(kind):
    verdict, words = architectures.judged(kind)
    assert verdict == "exact" and float(words) <= 1e-5


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_refused_in_words(kind):
    verdict, words = architectures.judged(kind)
    assert verdict == "refused" and REFUSED[kind] in words


@pytest.mark.parametrize("kind", ["granite", "gemma2", "cohere"])
def test_the_measure_sees_what_the_trial_refuses(kind, monkeypatch):
    monkeypatch.setattr("policy.check_model", lambda policy, _: setattr(policy, "flat", False))
    verdict, words = architectures.judged(kind)
    assert verdict == "WRONG" and float(words.removeprefix("off by ")) > 1e-3


def test_the_page_has_every_architecture_once_and_no_wrong_one():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    table = page.split(architectures.START)[1].split(architectures.END)[0]
    assert "WRONG" not in table
    named = []
    for line in table.splitlines():
        if line.startswith("| ") and "architectures" not in line:
            named += line.rstrip(" |").rsplit("| ", 1)[1].split(", ")
    assert len(named) == len(set(named)) >= 170
    assert set(EXACT) | set(REFUSED) <= set(named)
