"""The policy: sampling, packed log-probs, the loss and the update against transformers, torch and plain loops."""
import doctest
import itertools
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import fakes
import policy as policy_module
from data import InputError, Rollout
from fakes import END, EOS, V, advantages, distance, gradients, make_groups, packed_logps, plain_logps, plain_loss
from policy import (answers_per_row, batch_loss, chat_ids, chat_stop_ids, chat_text, choose, load_model, micro_batches, pack,
                    row_key, row_logps, sample, token_loss, uniforms, update)

KINDS = ["tied", "untied", "window", "windows"]
PROMPTS = [[7], [8, 9, 10], [11] * 9, [12, 13], [14, 15, 16, 17, 18], [19] * 6, [20, 21]]        # ragged


def test_doctests():
    assert doctest.testmod(policy_module).failed == 0


# ---------------------------------------------------------------- the loss

@pytest.mark.parametrize("A, golden", [(1.0, [-.5, -.8, -1, -1.2, -1.2, -1.2]), (-1.0, [.8, .8, 1, 1.2, 1.5, 3.0])])
def test_token_loss_golden_numbers(A, golden):
    logp, zero = torch.tensor([.5, .8, 1, 1.2, 1.5, 3.5]).log(), torch.zeros(6)
    assert torch.allclose(token_loss(logp, zero, zero, torch.full((6,), A)), torch.tensor(golden))


def test_token_loss_is_weighted_by_the_sampler_ratio_up_to_two():
    off = torch.tensor([math.log(.5), 0.0, math.log(1.5), math.log(7), 50.0])                    # log of trainer over sampler
    loss = token_loss(torch.zeros(5), torch.zeros(5), -off, torch.ones(5))
    assert torch.allclose(loss, -torch.tensor([.5, 1, 1.5, 2, 2]))


def test_token_loss_stays_finite_for_absurd_ratios():
    logp = torch.tensor([500.0, -500.0], requires_grad=True)
    loss = token_loss(logp, torch.zeros(2), torch.tensor([-900.0, 900.0]), torch.tensor([1.0, -1.0]))
    loss.sum().backward()
    assert loss.isfinite().all() and logp.grad.isfinite().all()


def test_token_loss_moves_no_token_past_its_clip():
    """The gradient: A rho inside the clip, zero once moving further would earn nothing, and none through w."""
    rho = torch.tensor([.5, .9, 1.0, 1.1, 1.5, 3.5])
    for A, alive in ((1.0, [1, 1, 1, 1, 0, 0]), (-1.0, [0, 1, 1, 1, 1, 0])):
        logp = rho.log().requires_grad_()
        token_loss(logp, torch.zeros(6), torch.zeros(6), torch.full((6,), A)).sum().backward()
        assert torch.allclose(logp.grad, -A * rho * torch.tensor(alive))


# ---------------------------------------------------------------- random numbers

def test_uniforms_are_uniform():
    keys = np.array([row_key(0, 1, "solver", "dev", i) for i in range(2000)], dtype=np.uint64)
    u = np.stack([uniforms(keys, np.full(2000, t)) for t in range(50)])                          # (50, 2000)
    assert u.min() >= 0 and u.max() < 1 and u.dtype == np.float64
    assert abs(u.mean() - 1 / 2) < 0.005 and abs(u.var() - 1 / 12) < 0.002
    assert len(np.unique(u)) == u.size
    for x in (u, u.T):      # neither next tokens nor next rows follow
        assert abs(np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]) < 0.015


def test_uniforms_have_no_state():
    keys, t = np.array([row_key("a"), row_key("b")], dtype=np.uint64), np.array([3, 5])
    before = uniforms(keys, t)
    uniforms(keys[::-1].copy(), t)
    assert (uniforms(keys, t) == before).all()
    assert uniforms(keys[1:], t[1:]) == before[1:]


def test_row_keys_differ_in_every_word():
    words = list(itertools.product((0, 1), (1, 11), ("solver", "generator"), ("dev", "answer"), range(4)))
    assert len({row_key(*w) for w in words}) == len(words)
    assert row_key(1, 11) != row_key(11, 1)


# ---------------------------------------------------------------- choosing a token

def test_choose_draws_from_the_softmax():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -30.0])
    u = (torch.arange(20000) + 0.5) / 20000                                                      # stratified: no luck involved
    for temperature in (0.7, 1.0):
        token, logp = choose(logits.repeat(20000, 1), u, temperature, 1.0, 0)
        p = torch.softmax(logits / temperature, 0)
        assert torch.allclose(token.bincount(minlength=5) / 20000, p, atol=2e-4)
        assert torch.allclose(logp, p.log()[token])


def test_choose_never_takes_a_token_of_probability_zero():
    logits = torch.tensor([-math.inf, 1.0, -math.inf, 0.5, -math.inf, -200.0])
    u = torch.tensor([0.0, 1e-300, 0.5, 1 - 1e-9, math.nextafter(1.0, 0.0)], dtype=torch.float64)     # the last two are 1 in fp32
    token, logp = choose(logits.repeat(5, 1), u, 1.0, 1.0, 0)
    assert set(token.tolist()) <= {1, 3} and logp.isfinite().all()


def test_temperature_zero_is_greedy():
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    token, logp = choose(logits, torch.rand(6), 0, 1.0, 0)
    assert (token == logits.argmax(1)).all()
    assert torch.allclose(logp, torch.log_softmax(logits, 1).amax(1))


@pytest.mark.parametrize("top_p, top_k", [(0.8, 0), (1.0, 3), (0.8, 20), (0.5, 4), (0.01, 0), (1.0, 100)])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_top_p_and_top_k_keep_what_transformers_keeps(top_p, top_k, spread):
    logits = spread * torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    kept = LogitsProcessorList([TemperatureLogitsWarper(0.7)] + ([TopKLogitsWarper(top_k)] if top_k else []) + [TopPLogitsWarper(top_p)])
    p = torch.softmax(kept(None, logits), 1)[0]
    u = (torch.arange(20000) + 0.5) / 20000
    token, _ = choose(logits.repeat(20000, 1), u, 0.7, top_p, top_k)
    assert torch.allclose(token.bincount(minlength=40) / 20000, p, atol=2e-4)


# ---------------------------------------------------------------- sampling

def generated(policy, prompt, limit):
    """What model.generate continues a prompt with, greedily, cut behind the first stop token."""
    out = policy.model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=limit,
                                eos_token_id=policy.stop_ids, pad_token_id=0)
    return out[0, len(prompt):].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_rollouts_equal_generate(make_policy, kind):
    policy, cfg = make_policy(kind, max_response_tokens=14)
    free = [generated(policy, prompt, 14) for prompt in PROMPTS]
    policy.stop_ids += [free[1][2], free[2][5], free[4][0]]                                      # so that rows end at different lengths
    expected = [generated(policy, prompt, 14) for prompt in PROMPTS]
    assert len({len(x) for x in expected}) >= 3
    for rows_at_once in (1, 3, 4, 100):
        for row, response in zip(sample(policy, PROMPTS, 2, ("k",), replace(cfg, rows_at_once=rows_at_once), temperature=0), expected):
            for rollout in row:
                assert rollout.response == response
                assert rollout.finished == (response[-1] in policy.stop_ids)
                assert len(rollout.logp) == len(response)


def test_a_refill_smaller_than_the_queue_changes_nothing(make_policy):
    policy, cfg = make_policy(rows_at_once=4, max_response_tokens=10)
    prompts = PROMPTS * 3
    policy.stop_ids += list(range(6, 16))                                                        # rows leave one by one
    expected = [generated(policy, prompt, 10) for prompt in prompts]
    assert [row[0].response for row in sample(policy, prompts, 1, ("k",), cfg, temperature=0)] == expected


def facts(rollouts):
    return [[(x.prompt, x.response, x.finished, x.text) for x in row] for row in rollouts]


@pytest.mark.parametrize("kind", ["tied", "window", "windows"])
def test_sampled_rollouts_do_not_depend_on_rows_at_once(make_policy, kind):
    policy, cfg = make_policy(kind, max_response_tokens=20)
    policy.stop_ids += list(range(6, 12))
    whole = sample(policy, PROMPTS, 3, (0, 1, "solver", "dev"), cfg)
    assert len({tuple(x.response) for row in whole for x in row}) > 15                           # and they are samples, not one answer
    for rows_at_once in (1, 2, 5, 9):
        part = sample(policy, PROMPTS, 3, (0, 1, "solver", "dev"), replace(cfg, rows_at_once=rows_at_once))
        assert facts(part) == facts(whole)
        assert all(np.allclose(a.logp, b.logp, atol=1e-5) for x, y in zip(part, whole) for a, b in zip(x, y))


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
    assert torch.equal(torch.get_rng_state(), torch_state) and (np.random.get_state()[1] == numpy_state).all()
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
        assert torch.allclose(again, sampler, atol=tolerance) and torch.allclose(plain, sampler, atol=tolerance)


def test_the_text_of_a_rollout_has_no_special_tokens(make_policy):
    policy, cfg = make_policy()
    policy.stop_ids += list(range(6, 20))
    x = sample(policy, [[8]], 1, ("k",), cfg)[0][0]
    assert x.text == policy.tokenizer.decode(x.response, skip_special_tokens=True) and "<" not in x.text


# ---------------------------------------------------------------- packed rows

LENGTHS = [[5, 1, 9, 3], [1, 1, 2, 1], [4, 12, 2, 7]]          # with one-token answers; longer than the window of 4


@pytest.mark.parametrize("words", [1, 2, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_equal_one_padded_row_per_answer(make_policy, kind, words):
    policy, cfg = make_policy(kind)
    groups = make_groups(LENGTHS, prompts=[3, 8, 1], words=words)
    plain = torch.cat([lp for group in groups for lp in plain_logps(policy.model, group, 0.7)])
    for k in (1, 2, 3, 4):
        rows = [row for g, group in enumerate(groups) for row in pack(group, g, k)]
        assert sorted(i for row in rows for i, _ in row.answers) == list(range(12))
        for chunk in (1000, 4):
            assert torch.allclose(packed_logps(policy, rows, 0.7, replace(cfg, logp_chunk=chunk)), plain, atol=2e-5)


def test_what_answers_begin_with_stands_in_a_row_once():
    """Prompt P; answers ab., ab., abc., b. -- one of them twice, one the beginning of another, one on its own."""
    group = [Rollout([50, 51], response, [], True, "") for response in ([7, 8, EOS], [6, 7, EOS], [6, 7, 9, EOS], [6, 7, EOS])]
    row, = pack(group, 0, 4)
    assert row.ids == [50, 51, 6, 7, 9, 7, 8] and row.positions == [0, 1, 2, 3, 4, 2, 3]
    assert row.ends == [7, 7, 5, 5, 5, 7, 7]
    assert [i for i, _ in row.answers] == [1, 3, 2, 0] or [i for i, _ in row.answers] == [3, 1, 2, 0]
    tokens = [token for _, rollout in row.answers for token in rollout.response]
    assert [row.targets[s] for s in row.spread] == tokens and len(row.targets) == 8 == len(set(zip(row.sources, row.targets)))


def test_a_token_sees_its_ancestors_and_itself():
    """The mask against a walk up each answer."""
    for row in (row for k in (1, 2, 4) for row in pack(make_groups([[5, 7, 6, 6]], words=2)[0], 0, k)):
        L, seen = len(row.ids), torch.zeros(len(row.ids), len(row.ids), dtype=torch.bool)
        at = 0
        for _, rollout in row.answers:
            path = list(range(len(rollout.prompt)))
            for i, place in enumerate(row.sources[s] for s in row.spread[at:at + len(rollout.response)]):
                path = path + [place] if i else path
                seen[place, path] = True
            at += len(rollout.response)
        seen[:len(rollout.prompt), :len(rollout.prompt)] = torch.ones(len(rollout.prompt), len(rollout.prompt)).tril().bool()
        ends = torch.tensor(row.ends)
        assert torch.equal(seen, (torch.arange(L)[:, None] < ends).tril())


def test_answers_share_a_row_when_the_prompt_is_long_and_go_alone_when_it_is_short(make_policy):
    policy, _ = make_policy()
    assert answers_per_row(policy, 100, [3] * 4, [0] * 4, 10000) == 4
    assert answers_per_row(policy, 1, [200] * 4, [0] * 4, 10000) == 1
    assert answers_per_row(policy, 1, [200] * 4, [0, 190, 190, 190], 10000) == 4                 # unless they begin alike
    assert answers_per_row(policy, 100, [3] * 4, [0] * 4, 107) in (1, 2)                         # what fits; one alone always may


def test_every_answer_is_in_one_micro_batch_within_the_budget(make_policy):
    policy, cfg = make_policy()
    groups = list(enumerate(make_groups(LENGTHS * 3)))
    for budget in (1, 30, 60, 10000):
        batches = micro_batches(policy, groups, replace(cfg, tokens_at_once=budget))
        assert sorted(i for rows in batches for row in rows for i, _ in row.answers) == list(range(36))
        assert all(len(rows) * max(len(row.ids) for row in rows) <= budget or len(rows) == 1 for rows in batches)


def batch_gradient(policy, groups, A, cfg):
    loss = sum(batch_loss(policy, rows, A, 50.0, cfg)[0] for rows in micro_batches(policy, list(enumerate(groups)), cfg))
    return gradients(loss, policy.params)


@pytest.mark.parametrize("words", [2, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_what_only_saves_memory_leaves_the_gradient_alone(make_policy, kind, words, monkeypatch):
    policy, cfg = make_policy(kind)
    groups = make_groups(LENGTHS, words=words)
    A = advantages(groups)
    whole = batch_gradient(policy, groups, A, cfg)
    for tokens_at_once, logp_chunk in ((1, 1000), (40, 1000), (10000, 1), (10000, 7), (40, 3)):
        change = replace(cfg, tokens_at_once=tokens_at_once, logp_chunk=logp_chunk)
        assert distance(batch_gradient(policy, groups, A, change), whole) < 1e-5
    for k in (1, 2, 3, 4):
        monkeypatch.setattr(policy_module, "answers_per_row", lambda *_: k)
        assert distance(batch_gradient(policy, groups, A, cfg), whole) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_a_plain_loop(make_policy, kind):
    policy, cfg = make_policy(kind)
    groups = make_groups(LENGTHS)
    A = advantages(groups)
    plain = sum(plain_loss(policy.model, group, A[g], None, 50.0, cfg) for g, group in enumerate(groups))
    assert distance(batch_gradient(policy, groups, A, cfg), gradients(plain, policy.params)) < 1e-5


def test_grad_checkpoint_recomputes_and_changes_no_gradient(make_policy):
    plain, cfg = make_policy()
    saving, _ = make_policy(grad_checkpoint=True)
    groups = make_groups(LENGTHS)
    A = advantages(groups)
    calls = []
    saving.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    again = batch_gradient(saving, groups, A, cfg)
    passes = len(micro_batches(saving, list(enumerate(groups)), cfg))
    assert len(calls) == 2 * passes                                                              # once forward, once again in backward
    assert distance(again, batch_gradient(plain, groups, A, cfg)) < 1e-6


def test_grad_checkpoint_leaves_sampling_alone(make_policy):
    plain, cfg = make_policy()
    saving, _ = make_policy(grad_checkpoint=True)
    assert facts(sample(saving, PROMPTS, 2, ("k",), cfg)) == facts(sample(plain, PROMPTS, 2, ("k",), cfg))


# ---------------------------------------------------------------- the update

def weights(policy):
    return [p.detach().clone() for p in policy.params]


def hand_written_update(policy, groups, A, cfg):
    """The update as the paper has it, without packing or micro-batches; -> the gradient norms."""
    kept = [g for g in range(len(groups)) if A[g].any()]
    lengths = [len(x.response) for g in kept for x in groups[g]]
    denominator = cfg.minibatch_rows * sum(lengths) / len(lengths)                               # B Tbar
    with torch.no_grad():
        old = {g: plain_logps(policy.model, groups[g], cfg.temperature) for g in kept}           # before the first step
    optimizer = torch.optim.AdamW(policy.params, lr=policy.lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.adam_eps,
                                  weight_decay=cfg.weight_decay)
    size, norms = cfg.minibatch_rows // len(groups[0]), []
    for start in range(0, len(kept), size):
        optimizer.zero_grad()
        sum(plain_loss(policy.model, groups[g], A[g], old[g], denominator, cfg) for g in kept[start:start + size]).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(policy.params, cfg.grad_clip)))
        optimizer.step()
    return norms


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("minibatch_rows", [4, 8, 32], ids=["three_steps", "a_short_last_one", "one_short_step"])
@pytest.mark.parametrize("grad_clip", [1e9, 0.05], ids=["free", "clipped"])
def test_update_equals_a_hand_written_loop(make_policy, kind, minibatch_rows, grad_clip):
    ours, cfg = make_policy(kind, lr=0.02, minibatch_rows=minibatch_rows, grad_clip=grad_clip, adam_eps=1e-3, tokens_at_once=60)
    plain, _ = make_policy(kind, lr=0.02)
    groups = make_groups(LENGTHS[:2] + [[40, 41, 42, 43]] + LENGTHS[2:])
    A = 3 * advantages(groups)
    A[2] = 0                                                                                     # flat, and long: must not enter Tbar
    before = weights(ours)
    result = update(ours, groups, A, cfg)
    norms = hand_written_update(plain, groups, A, cfg)
    moved = [a - b for a, b in zip(weights(ours), before)]
    assert distance(moved, [a - b for a, b in zip(weights(plain), before)]) < 1e-4
    assert result["grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert (result["steps"], result["rows"], result["tokens"]) == (len(norms), 12, sum(map(sum, LENGTHS)))
    assert all(p.grad is None for p in ours.params)


def test_later_mini_batches_feel_the_clip(make_policy):
    """With a large step rho leaves the clip, so logp_old must be from before the first step, not the present one."""
    ours, cfg = make_policy(lr=0.05, minibatch_rows=4)
    naive, _ = make_policy(lr=0.05)
    groups = make_groups([[6] * 4] * 3)
    groups[1:] = [groups[0]] * 2                                                                 # the same answers three times
    A = advantages(groups[:1]).repeat(3, 1)
    update(ours, groups, A, cfg)
    for g in range(3):
        update(naive, groups[g:g + 1], A[g:g + 1], cfg)                                          # forgets logp_old each time
    assert distance(weights(ours), weights(naive)) > 1e-3


def test_an_update_without_any_advantage_moves_nothing(make_policy):
    policy, cfg = make_policy()
    before = weights(policy)
    assert update(policy, make_groups(LENGTHS), torch.zeros(3, 4), cfg) == {"grad_norm": None, "tokens": 0, "steps": 0, "rows": 0}
    assert all(map(torch.equal, weights(policy), before)) and not policy.optimizer.state


def test_a_non_finite_gradient_skips_its_step_and_is_counted(make_policy):
    policy, cfg = make_policy(minibatch_rows=4)
    groups, before = make_groups(LENGTHS), weights(policy)
    A = advantages(groups)
    A[:, 0] = math.inf
    result = update(policy, groups, A, cfg)
    assert policy.skipped == 3 and result["steps"] == 0 and result["grad_norm"] is None
    assert all(map(torch.equal, weights(policy), before))
    A = advantages(groups)
    A[1, 0] = math.nan
    result = update(policy, groups, A, cfg)
    assert policy.skipped == 4 and result["steps"] == 2                                          # the others are taken
    assert all(p.isfinite().all() for p in policy.params)


def test_mini_batches_hold_whole_groups(make_policy):
    policy, cfg = make_policy(minibatch_rows=6)
    with pytest.raises(InputError, match="6.*4"):
        update(policy, make_groups(LENGTHS), advantages(make_groups(LENGTHS)), cfg)


# ---------------------------------------------------------------- bf16

def test_bf16_samples_from_a_copy_and_keeps_masters_and_moments_in_fp32(make_policy):
    policy, cfg = make_policy(dtype="bf16", max_response_tokens=20)
    before = weights(policy)
    with policy.sampling_model() as copy:
        assert all(p.dtype == torch.bfloat16 for p in copy.parameters()) and copy is not policy.model
    rollouts = sample(policy, PROMPTS[:4], 4, ("k",), cfg)
    assert all(map(torch.equal, weights(policy), before))
    again = torch.cat([packed_logps(policy, pack(group, 0, 2), cfg.temperature, cfg) for group in rollouts])
    sampler = torch.tensor([lp for group in rollouts for x in group for lp in x.logp])
    assert again.dtype == torch.float32 and (again - sampler).abs().mean() < 0.05                # bf16 noise, and no more
    update(policy, rollouts, advantages(rollouts), cfg)
    assert policy.skipped == 0 and not all(map(torch.equal, weights(policy), before))
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in policy.params)
    assert all(state[name].dtype == torch.float32 for state in policy.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))


def test_the_bf16_copy_keeps_its_rotary_frequencies_in_fp32(make_policy):
    """Rounded to bf16, a frequency is off by up to 0.4 %: at position 4,000 the angle would mean nothing."""
    policy, _ = make_policy(dtype="bf16")
    with policy.sampling_model() as copy:
        assert torch.equal(copy.model.rotary_emb.inv_freq, policy.model.model.rotary_emb.inv_freq)


# ---------------------------------------------------------------- model and tokenizer

def test_a_response_ends_with_the_end_of_a_turn_or_with_eos(make_policy):
    policy, _ = make_policy()
    assert chat_stop_ids(policy.tokenizer) == [END, EOS]                                         # a warm start teaches the first one
    assert policy.stop_ids[:2] == [END, EOS] and len(set(policy.stop_ids)) == len(policy.stop_ids)
    assert chat_stop_ids(fakes.make_tokenizer(template=None)) == [EOS]


def test_prompts_go_through_the_chat_template_or_a_plain_frame():
    tokenizer = fakes.make_tokenizer()
    assert chat_text(tokenizer, "w1 w2") == "<|user|> w1 w2 <|end|> <|assistant|> "
    assert tokenizer.convert_ids_to_tokens(chat_ids(tokenizer, "w1 w2")) == ["<|user|>", "w1", "w2", "<|end|>", "<|assistant|>"]
    plain = fakes.make_tokenizer(template=None)
    assert chat_text(plain, "w1 w2") == "w1 w2\n\nAnswer:\n"
    assert plain.convert_ids_to_tokens(chat_ids(plain, "w1 w2"))[:2] == ["w1", "w2"]


def test_a_model_is_never_read_from_a_pickle(tmp_path):
    model = fakes.make_model()
    model.config.save_pretrained(tmp_path)
    fakes.make_tokenizer().save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["empty folder", "broken config", "cut weights", "other sizes", "missing weights"])
def test_a_broken_model_folder_is_one_clear_line(tmp_path, damage):
    if damage != "empty folder":
        fakes.make_model().save_pretrained(tmp_path)
        fakes.make_tokenizer().save_pretrained(tmp_path)
    config, tensors = tmp_path / "config.json", tmp_path / "model.safetensors"
    if damage == "broken config":
        config.write_text(config.read_text()[:-20])
    elif damage == "cut weights":
        tensors.write_bytes(tensors.read_bytes()[:-1000])
    elif damage == "other sizes":
        config.write_text(config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 64'))
    elif damage == "missing weights":
        config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3').replace(
            '"layer_types": [', '"layer_types": [\n "full_attention",'))
    with pytest.raises(InputError) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_model_that_scales_its_logits_is_refused(make_policy, tmp_path):
    from transformers import CohereConfig, CohereForCausalLM
    config = CohereConfig(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                          initializer_range=0.2, logit_scale=0.5, eos_token_id=EOS, bos_token_id=None, pad_token_id=0)
    CohereForCausalLM(config).save_pretrained(tmp_path / "cohere")
    fakes.make_tokenizer().save_pretrained(tmp_path / "cohere")
    with pytest.raises(InputError, match="not supported"):
        make_policy("cohere")


@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_dropout_that_recomputation_would_turn_on_is_refused(make_policy, tmp_path, grad_checkpoint):
    from transformers import OPTConfig, OPTForCausalLM
    config = OPTConfig(vocab_size=V, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32,
                       max_position_embeddings=64, init_std=0.2, eos_token_id=EOS, bos_token_id=EOS, pad_token_id=0)
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    fakes.make_tokenizer().save_pretrained(tmp_path / "opt")
    with pytest.raises(InputError, match="dropout") if grad_checkpoint else nullcontext():
        make_policy("opt", grad_checkpoint=grad_checkpoint)


def test_a_model_without_positions_is_refused_at_the_start(make_policy, tmp_path):
    from transformers import FalconConfig, FalconForCausalLM
    config = FalconConfig(vocab_size=V, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=True, eos_token_id=EOS, bos_token_id=EOS)
    FalconForCausalLM(config).save_pretrained(tmp_path / "falcon")
    fakes.make_tokenizer().save_pretrained(tmp_path / "falcon")
    with pytest.raises(InputError, match="not supported"):
        make_policy("falcon")


def test_layers_that_carry_state_between_packed_answers_are_refused(make_policy):
    policy, cfg = make_policy("tied")
    policy.model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(InputError, match="linear_attention"):
        policy.check_model(cfg)


def test_mask_memory_does_not_grow_with_layers_and_a_row_of_one_answer_has_none(make_policy, monkeypatch):
    """Of booleans torch makes a float mask in every layer; numbers are shared, and a causal row needs nothing."""
    policy, cfg = make_policy()
    seen, base = [], policy.model.base_model
    forward = base.forward
    monkeypatch.setattr(base, "forward", lambda *args, **kw: seen.append(kw["attention_mask"]) or forward(*args, **kw))
    for k in (1, 2):
        rows = policy_module.pack(make_groups([[3, 5]])[0], 0, k)
        policy_module.row_logps(policy, rows, 1.0, cfg)
    assert seen[0] is None and seen[1].dtype == torch.float32
