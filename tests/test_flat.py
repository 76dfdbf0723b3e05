"""Rows end to end in a flat cache, CUDA's way to sample, on a CPU: the kernel's place is taken by a
loop over rows (attention.varlen). What comes out is held against padded rows.
"""
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn

import fakes
import sampling
from engine import attention, flat
from engine.cache import Running, rows_that_fit, sent, token_bytes
from engine.flat import FIRST, MOST, Flat, places
from engine.masks import windows_of
from fakes import make_model
from sampling import choose, sample, uniforms

KINDS = ["tied", "untied", "window", "windows"]
PROMPTS = [[7], [8, 9, 10], [11] * 9, [12, 13], [14, 15, 16, 17, 18], [19] * 6, [20, 21]]
CPU = torch.device("cpu")


@pytest.fixture
def end_to_end(monkeypatch):
    """end_to_end(tokens that the cache holds, spare tokens of a row) -> `sample` uses the flat
    cache, and the list to which it adds what happens.
    """
    def use(room=math.inf, first=FIRST, most=MOST):
        happened = []

        class Watched(Flat):
            def lay_out(self, *new):
                super().lay_out(*new)
                happened.append(("laid out", self.spare))

            def give_way(self):
                leaving = super().give_way()
                if leaving:
                    happened.append(("gave way", len(leaving)))
                return leaving

        monkeypatch.setattr(flat, "FIRST", first)
        monkeypatch.setattr(flat, "MOST", most)
        monkeypatch.setattr(sampling, "rows_for", lambda policy, model: Watched(
            model, policy.device, attention.varlen, room))
        return happened
    return use


def facts(rollouts):
    return [[(x.prompt, x.response, x.finished, x.text) for x in row] for row in rollouts]


def logps(rollouts):
    return torch.tensor([lp for row in rollouts for x in row for lp in x.logp])


# ---------------------------------------------------------------- the same rollouts

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows, temperature", [
    pytest.param(5, 0, marks=pytest.mark.slow), (5, 1.0),
    pytest.param(100, 1.0, marks=pytest.mark.slow)])
def test_rollouts_are_those_of_padded_rows(make_policy, end_to_end, kind, rows, temperature):
    policy, cfg = make_policy(kind, max_response_tokens=20, rows_at_once=rows)
    policy.stop_ids += list(range(6, 12))
    padded = sample(policy, PROMPTS, 3, ("k",), cfg, temperature)
    happened = end_to_end(first=3, most=6)
    end = sample(policy, PROMPTS, 3, ("k",), cfg, temperature)
    assert facts(end) == facts(padded)
    assert torch.allclose(logps(end), logps(padded), atol=1e-5)
    # the room doubled, and no further than it may
    assert {spare for what, spare in happened if what == "laid out"} == {3, 6}


@pytest.mark.slow
@pytest.mark.parametrize("kind, room", [("tied", 1), ("tied", 90), ("windows", 40)])
def test_rows_that_give_way_go_on_as_if_nothing_had_happened(make_policy, end_to_end, kind, room):
    policy, cfg = make_policy(kind, max_response_tokens=20)
    policy.stop_ids += list(range(6, 9))
    padded = sample(policy, PROMPTS, 3, ("k",), cfg)
    happened = end_to_end(room=room, first=2, most=4)
    end = sample(policy, PROMPTS, 3, ("k",), cfg)
    assert facts(end) == facts(padded)
    assert torch.allclose(logps(end), logps(padded), atol=1e-5)
    assert "gave way" in {what for what, _ in happened}


def test_a_full_cache_lets_no_prompt_join(make_policy):
    policy, cfg = make_policy()
    rows = Flat(policy.model, CPU, attention.varlen, room=1000 + 4 * MOST)
    assert rows.most_rows(cfg, 10) == (1000 + 4 * MOST) // (10 + MOST)
    rows.join([[5] * 500], [[(0, 0), (0, 1)]])
    assert rows.most_rows(cfg, 10) == 2 + 2 * MOST // (10 + MOST) == 3
    assert rows.most_rows(replace(cfg, rows_at_once=2), 10) == 2


# ---------------------------------------------------------------- the parts

def test_places_lie_end_to_end():
    assert places([4, 0], [2, 1]).tolist() == [4, 5, 0]


def plain_attention(q, k, v, before, behind):
    """(L, H, D), (keys, K, D) -> (L, H, D), one head at a time; the last query is at the last key.
    """
    L, H, D = q.shape
    n, K = k.shape[:2]
    out = torch.zeros_like(q)
    for h in range(H):
        own = h // (H // K)
        for i in range(L):
            place = n - L + i
            low = 0 if before < 0 else max(0, place - before)
            high = n if behind < 0 else place + behind + 1
            scores = k[low:high, own] @ q[i, h] / math.sqrt(D)
            out[i, h] = scores.softmax(0) @ v[low:high, own]
    return out


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (2, 0)])
def test_the_loop_over_rows_is_attention_by_hand(window):
    g = torch.Generator().manual_seed(0)
    q = torch.randn(9, 6, 8, generator=g)
    k, v = torch.randn(2, 30, 2, 8, generator=g)
    # three rows: 2, 4 and 3 queries; stretches of 10 places, of which 5, 4 and 9 count
    cu_q, cu_k = torch.tensor([0, 2, 6, 9]), torch.tensor([0, 10, 20, 30])
    out = attention.varlen(q, k, v, cu_q, cu_k, 4, 9, window_size=window,
                           seqused_k=torch.tensor([5, 4, 9]))
    parts = [plain_attention(q[0:2], k[0:5], v[0:5], *window),
             plain_attention(q[2:6], k[10:14], v[10:14], *window),
             plain_attention(q[6:9], k[20:29], v[20:29], *window)]
    assert torch.allclose(out, torch.cat(parts), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_torchs_kernel_takes_what_it_is_given(kind):
    """Without memory: torch checks names, shapes and types, and computes nothing.

    What the kernel asks for beyond that, from its source: int32, contiguous, 16 bits.
    """
    meta = torch.device("meta")
    model = make_model(kind).to(meta, torch.bfloat16)
    told = []

    def kernel(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, **more):
        for x in (cu_seq_q, cu_seq_k, more.get("seqused_k")):
            assert x is None or x.dtype == torch.int32 and x.is_contiguous()
        assert all(x.stride(-1) == 1 and x.dtype == torch.bfloat16 for x in (q, k, v))
        told.append((len(q), len(k), max_q, max_k, more.get("window_size")))
        return varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, **more)

    rows = Flat(model, meta, kernel, math.inf)
    rows.join([[5, 6, 7], [8]], [[(0, 0), (0, 1)], [(1, 0)]])
    rows.step(torch.zeros(3, dtype=torch.long, device=meta))
    assert rows.hidden.shape == (3, 32)

    back = [-1 if window is None else window - 1 for window in windows_of(model)]
    prefill = [(4, 4, 3, 3, (n, 0)) for n in back]
    # 3 + 3 + 1 tokens, and room for more
    step = [(3, 7 + 3 * FIRST, 1, 4, None)] * len(back)
    assert told == prefill + step


@torch.no_grad()
@pytest.mark.parametrize("draw", [(0, 1.0, 0), (0.7, 1.0, 0), (0.7, 0.8, 20)])
def test_a_step_asks_the_device_for_nothing(draw):
    """A device without memory has no numbers to give: whoever asks for one fails."""
    meta = torch.device("meta")
    model = make_model().to(meta)
    with pytest.raises(RuntimeError):
        torch.zeros(1, device=meta).item()

    rows = Flat(model, meta, varlen_attn, math.inf)
    rows.join([[5, 6, 7], [8]], [[(0, 0), (0, 1)], [(1, 0)]])
    for staying in ([0, 1, 2], [0, 2], [1]):
        rows.keep(staying)
        u = uniforms(sent([1] * len(rows.rows), meta), sent([0] * len(rows.rows), meta))
        token, logp = choose(model.get_output_embeddings()(rows.hidden), u, *draw)
        assert token.shape == logp.shape == (len(rows.rows),)
        rows.step(token)
    rows.lay_out()


def test_windows_are_those_of_the_masks():
    assert [windows_of(make_model(kind)) for kind in KINDS] == [
        [None, None], [None, None], [4, None], [4, 4]]


# ---------------------------------------------------------------- who takes it

def test_every_fake_takes_the_flat_cache(make_policy):
    assert all(make_policy(kind)[0].flat for kind in KINDS)


def test_a_model_with_more_to_its_attention_is_sampled_from_with_padded_rows(make_policy, tmp_path):
    """Gemma2 caps its scores, of which the kernel knows nothing."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=fakes.V, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, final_logit_softcapping=None,
        eos_token_id=fakes.EOS, bos_token_id=None, pad_token_id=0, initializer_range=0.2)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma2")
    fakes.make_tokenizer().save_pretrained(tmp_path / "gemma2")
    policy, cfg = make_policy("gemma2")
    assert not policy.flat
    assert isinstance(flat.rows_for(policy, policy.model), Running)


def test_on_a_cpu_rows_are_padded(make_policy):
    policy, _ = make_policy()
    assert not flat.has_kernel(policy.model.bfloat16(), CPU)
    assert isinstance(flat.rows_for(policy, policy.model), Running)


# ---------------------------------------------------------------- how many rows

def test_a_token_takes_the_bytes_of_its_keys_and_values(make_policy):
    policy, _ = make_policy()
    rows = Running(policy.model, CPU)
    with torch.no_grad():
        rows.join([[5] * 10], [[(0, 0)]])
    held = sum(x.nbytes for layer in rows.cache.layers for x in (layer.keys, layer.values))
    assert held == 10 * token_bytes(policy.model.config, 4)


def test_rows_are_as_many_as_two_gigabytes_hold(make_policy):
    _, cfg = make_policy(max_prompt_tokens=1024, max_response_tokens=384)
    # SmolLM2-135M: 30 layers of 3 heads of 64, in fp32
    assert rows_that_fit(cfg, 2 * 30 * 3 * 64 * 4) == 32
    assert rows_that_fit(cfg, 10) == 256 and rows_that_fit(cfg, 10 ** 9) == 1
