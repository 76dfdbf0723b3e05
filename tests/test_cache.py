"""Padded rows with their key-value cache, and the fold: one attention for the query heads that
share keys and values.
"""
import pytest
import torch
from transformers.integrations import sdpa_attention

from engine import attention
from engine.attention import attending, folded
from engine.cache import Running
from fakes import make_model

CPU = torch.device("cpu")


class Copying(Running):
    """Rows with transformers' own attention: the plain way."""
    attend = staticmethod(sdpa_attention.sdpa_attention_forward)


@torch.no_grad()
def states(model, kind=Running, steps=3):
    """Hidden states of ragged rows, after a prefill, steps, and rows that come and go."""
    rows = kind(model, CPU)
    rows.join([[5, 6, 7, 8, 9, 10, 11], [12]], [[(0, 0), (0, 1)], [(1, 0)]])
    found = [rows.hidden]
    for token in range(steps):
        rows.step(torch.tensor([20 + token] * 3))
        found.append(rows.hidden)
    rows.keep([1, 2])
    rows.join([[13, 14]], [[(2, 0)]])
    rows.step(torch.tensor([30, 31, 32]))
    return torch.cat([*found, rows.hidden])


@pytest.mark.parametrize("kind", ["tied", "untied", "window", "windows"])
def test_the_fold_has_the_numbers_of_transformers_own_attention(kind):
    model = make_model(kind)
    assert torch.allclose(states(model), states(model, Copying), atol=1e-5)


def test_a_step_copies_no_keys_for_query_heads(monkeypatch):
    """In a step transformers' way would; a prefill still goes its way."""
    repeat, copied = sdpa_attention.repeat_kv, []

    def repeat_kv(x, n):
        copied.append((x.shape[2], n))
        return repeat(x, n)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", repeat_kv)
    model = make_model()
    states(model)
    prefills = {length for length, _ in copied}
    assert prefills == {7, 2}

    copied.clear()
    states(model, Copying)
    assert {length for length, _ in copied} > prefills


def called(monkeypatch, query_heads, key_heads, tokens=1, **more):
    """-> what transformers' own function was called with, or None."""
    seen = []
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *args, **kw: seen.append(kw))
    query = torch.zeros(2, query_heads, tokens, 8)
    key = torch.zeros(2, key_heads, 5, 8)
    folded(None, query, key, key, torch.ones(2, 1, tokens, 5, dtype=torch.bool), 0.5, **more)
    return seen[0] if seen else None


def test_what_the_fold_is_not_made_for_goes_to_transformers(monkeypatch):
    assert called(monkeypatch, 4, 2) is None
    # no shared heads: the very same call, and so the same bits
    assert called(monkeypatch, 4, 4, dropout=0.0) == {"scaling": 0.5, "dropout": 0.0}
    assert called(monkeypatch, 4, 2, tokens=3) is not None
    for name in ("softcap", "s_aux", "position_bias"):
        assert called(monkeypatch, 4, 2, **{name: 30.0}) == {"scaling": 0.5, name: 30.0}
        assert called(monkeypatch, 4, 2, **{name: None}) is None


def test_a_model_has_its_own_attention_back_even_after_an_error():
    model = make_model()
    with pytest.raises(ZeroDivisionError):
        with attending(model, folded):
            assert model.config._attn_implementation == attention.NAME
            1 / 0
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_looks_nothing_up_by_name_is_left_alone():
    from transformers import FalconConfig, FalconForCausalLM

    model = FalconForCausalLM(FalconConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=4))
    assert not attention.can_attend(model)
    before = model.config._attn_implementation
    with attending(model, folded):
        assert model.config._attn_implementation == before
