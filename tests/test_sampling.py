"""Sampling: uniforms, the draw, and rollouts against transformers and recomputed log-probs."""
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper,
                          TopPLogitsWarper)

from engine.packing import pack
from fakes import packed_logps, plain_logps
from sampling import choose, row_seed, sample, signed, uniforms

KINDS = ["tied", "untied", "window", "windows"]
# ragged
PROMPTS = [[7], [8, 9, 10], [11] * 9, [12, 13], [14, 15, 16, 17, 18], [19] * 6, [20, 21]]


# ---------------------------------------------------------------- random numbers

def splitmix64(seed, t):
    """Sebastiano Vigna's generator, after t steps from the seed -> the next number in [0, 1)."""
    bits = 2 ** 64
    z = (seed + (t + 1) * 0x9E3779B97F4A7C15) % bits
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % bits
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % bits
    z = z ^ (z >> 31)
    return (z >> 11) * 2.0 ** -53


def seeds_of(*words):
    return torch.tensor([signed(row_seed(word)) for word in words])


def test_uniforms_are_splitmix64_to_the_last_bit():
    words = range(300)
    t = torch.arange(300) % 7 * 1000
    expected = [splitmix64(row_seed(word), int(n)) for word, n in zip(words, t)]
    assert uniforms(seeds_of(*words), t).tolist() == expected
    # seeds of both signs were among them
    assert {bool(seed < 0) for seed in seeds_of(*words)} == {True, False}


def test_uniforms_are_uniform():
    keys = torch.tensor([signed(row_seed(0, 1, "solver", "dev", i)) for i in range(2000)])
    u = torch.stack([uniforms(keys, torch.full((2000,), t)) for t in range(50)])    # (50, 2000)
    assert u.min() >= 0 and u.max() < 1 and u.dtype == torch.float64
    assert abs(u.mean() - 1 / 2) < 0.005 and abs(u.var() - 1 / 12) < 0.002
    assert len(u.unique()) == u.numel()
    for x in (u.numpy(), u.numpy().T):      # neither next tokens nor next rows follow
        assert abs(np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]) < 0.015


def test_uniforms_have_no_state():
    keys, t = seeds_of("a", "b"), torch.tensor([3, 5])
    before = uniforms(keys, t)
    uniforms(keys.flip(0), t)
    assert torch.equal(uniforms(keys, t), before)
    assert torch.equal(uniforms(keys[1:], t[1:]), before[1:])


def test_row_keys_differ_in_every_word():
    words = list(
        itertools.product((0, 1), (1, 11), ("solver", "generator"), ("dev", "answer"), range(4))
    )
    assert len({row_seed(*w) for w in words}) == len(words)
    assert row_seed(1, 11) != row_seed(11, 1)


# ---------------------------------------------------------------- choosing a token


def test_choose_draws_from_the_softmax():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -30.0])
    # stratified: no luck involved
    u = (torch.arange(20000) + 0.5) / 20000
    for temperature in (0.7, 1.0):
        token, logp = choose(logits.repeat(20000, 1), u, temperature, 1.0, 0)
        p = torch.softmax(logits / temperature, 0)
        assert torch.allclose(token.bincount(minlength=5) / 20000, p, atol=2e-4)
        assert torch.allclose(logp, p.log()[token])


def test_choose_never_takes_a_token_of_probability_zero():
    logits = torch.tensor([-math.inf, 1.0, -math.inf, 0.5, -math.inf, -200.0])
    # the last two are 1 in fp32
    u = torch.tensor([0.0, 1e-300, 0.5, 1 - 1e-9, math.nextafter(1.0, 0.0)], dtype=torch.float64)
    token, logp = choose(logits.repeat(5, 1), u, 1.0, 1.0, 0)
    assert set(token.tolist()) <= {1, 3} and logp.isfinite().all()


def test_temperature_zero_is_greedy():
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    token, logp = choose(logits, torch.rand(6), 0, 1.0, 0)
    assert (token == logits.argmax(1)).all()
    assert torch.allclose(logp, torch.log_softmax(logits, 1).amax(1))


@pytest.mark.parametrize(
    "top_p, top_k", [(0.8, 0), (1.0, 3), (0.8, 20), (0.5, 4), (0.01, 0), (1.0, 100)]
)
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_top_p_and_top_k_keep_what_transformers_keeps(top_p, top_k, spread):
    logits = spread * torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    kept = LogitsProcessorList(
        [TemperatureLogitsWarper(0.7)]
        + ([TopKLogitsWarper(top_k)] if top_k else [])
        + [TopPLogitsWarper(top_p)]
    )
    p = torch.softmax(kept(None, logits), 1)[0]
    u = (torch.arange(20000) + 0.5) / 20000
    token, _ = choose(logits.repeat(20000, 1), u, 0.7, top_p, top_k)
    assert torch.allclose(token.bincount(minlength=40) / 20000, p, atol=2e-4)


# ---------------------------------------------------------------- sampling


def generated(policy, prompt, limit):
    """What model.generate continues a prompt with, greedily, cut behind the first stop token."""
    out = policy.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt)),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=policy.stop_ids,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_rollouts_equal_generate(make_policy, kind):
    policy, cfg = make_policy(kind, max_response_tokens=14)
    free = [generated(policy, prompt, 14) for prompt in PROMPTS]
    # so that rows end at different lengths
    policy.stop_ids += [free[1][2], free[2][5], free[4][0]]
    expected = [generated(policy, prompt, 14) for prompt in PROMPTS]
    assert len({len(x) for x in expected}) >= 3
    for rows_at_once in (1, 3, 4, 100):
        for row, response in zip(
            sample(
                policy, PROMPTS, 2, ("k",), replace(cfg, rows_at_once=rows_at_once), temperature=0
            ),
            expected,
        ):
            for rollout in row:
                assert rollout.response == response
                assert rollout.finished == (response[-1] in policy.stop_ids)
                assert len(rollout.logp) == len(response)


def test_a_refill_smaller_than_the_queue_changes_nothing(make_policy):
    policy, cfg = make_policy(rows_at_once=4, max_response_tokens=10)
    prompts = PROMPTS * 3
    # rows leave one by one
    policy.stop_ids += list(range(6, 16))
    expected = [generated(policy, prompt, 10) for prompt in prompts]
    assert [
        row[0].response for row in sample(policy, prompts, 1, ("k",), cfg, temperature=0)
    ] == expected


def facts(rollouts):
    return [[(x.prompt, x.response, x.finished, x.text) for x in row] for row in rollouts]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tied", "window", "windows"])
def test_sampled_rollouts_do_not_depend_on_rows_at_once(make_policy, kind):
    policy, cfg = make_policy(kind, max_response_tokens=20)
    policy.stop_ids += list(range(6, 12))
    whole = sample(policy, PROMPTS, 3, (0, 1, "solver", "dev"), cfg)
    # and they are samples, not one answer
    assert len({tuple(x.response) for row in whole for x in row}) > 15
    for rows_at_once in (1, 2, 5, 9):
        part = sample(
            policy, PROMPTS, 3, (0, 1, "solver", "dev"), replace(cfg, rows_at_once=rows_at_once)
        )
        assert facts(part) == facts(whole)
        assert all(
            np.allclose(a.logp, b.logp, atol=1e-5)
            for x, y in zip(part, whole)
            for a, b in zip(x, y)
        )


def test_a_row_does_not_depend_on_the_prompts_beside_it(make_policy):
    """A row's draws belong to its place; its neighbours, longer or shorter, do not matter."""
    policy, cfg = make_policy(max_response_tokens=15)
    long, short = [[9] * 30] * 3, [[9]] * 3
    alone = facts(sample(policy, PROMPTS[:2], 2, ("k",), cfg))
    assert facts(sample(policy, PROMPTS[:2] + long, 2, ("k",), cfg))[:2] == alone
    assert facts(sample(policy, PROMPTS[:2] + short + long, 2, ("k",), cfg))[:2] == alone
    assert facts(sample(policy, PROMPTS[:2], 2, ("another",), cfg)) != alone


def test_sampling_touches_no_random_state(make_policy):
    policy, cfg = make_policy()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = facts(sample(policy, PROMPTS, 2, ("k",), cfg))
    assert (
        torch.equal(torch.get_rng_state(), torch_state)
        and (np.random.get_state()[1] == numpy_state).all()
    )
    assert facts(sample(policy, PROMPTS, 2, ("k",), cfg)) == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature, tolerance", [(0.7, 1e-4), (1.0, 1e-5)])
def test_rollout_logps_equal_recomputed_ones(make_policy, kind, temperature, tolerance):
    policy, cfg = make_policy(kind, temperature=temperature, max_response_tokens=20)
    policy.stop_ids += list(range(6, 12))
    rollouts = sample(policy, PROMPTS, 4, ("k",), cfg)
    for g, group in enumerate(rollouts):
        again = packed_logps(policy, pack(group, g, 3), temperature, cfg)
        plain = torch.cat(plain_logps(policy.model, group, temperature))
        sampler = torch.tensor([lp for x in group for lp in x.logp])
        assert torch.allclose(again, sampler, atol=tolerance) and torch.allclose(
            plain, sampler, atol=tolerance
        )


def test_the_text_of_a_rollout_has_no_special_tokens(make_policy):
    policy, cfg = make_policy()
    policy.stop_ids += list(range(6, 20))
    x = sample(policy, [[8]], 1, ("k",), cfg)[0][0]
    assert (
        x.text == policy.tokenizer.decode(x.response, skip_special_tokens=True)
        and "<" not in x.text
    )


def test_grad_checkpoint_leaves_sampling_alone(make_policy):
    plain, cfg = make_policy()
    saving, _ = make_policy(grad_checkpoint=True)
    assert facts(sample(saving, PROMPTS, 2, ("k",), cfg)) == facts(
        sample(plain, PROMPTS, 2, ("k",), cfg)
    )
