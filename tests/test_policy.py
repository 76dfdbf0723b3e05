"""The policy: the loss, its gradient and the update against plain loops."""
import doctest
import math
from dataclasses import replace

import pytest
import torch

import policy as policy_module
from data import InputError
from engine import packing
from engine.packing import pack, passes
from fakes import (advantages, distance, gradients, make_groups, packed_logps, plain_logps,
                   plain_loss)
from policy import pass_loss, spread, token_loss, update
from sampling import sample

KINDS = ["tied", "untied", "window", "windows"]
# ragged
PROMPTS = [[7], [8, 9, 10], [11] * 9, [12, 13], [14, 15, 16, 17, 18], [19] * 6, [20, 21]]
# with one-token answers; longer than the window of 4
LENGTHS = [[5, 1, 9, 3], [1, 1, 2, 1], [4, 12, 2, 7]]


def test_doctests():
    assert doctest.testmod(policy_module).failed == 0


# ---------------------------------------------------------------- the loss

@pytest.mark.parametrize(
    "A, golden", [(1.0, [-0.5, -0.8, -1, -1.2, -1.2, -1.2]), (-1.0, [0.8, 0.8, 1, 1.2, 1.5, 3.0])]
)
def test_token_loss_golden_numbers(A, golden):
    logp, zero = torch.tensor([0.5, 0.8, 1, 1.2, 1.5, 3.5]).log(), torch.zeros(6)
    assert torch.allclose(token_loss(logp, zero, zero, torch.full((6,), A)), torch.tensor(golden))


def test_token_loss_is_weighted_by_the_sampler_ratio_up_to_two():
    # log of trainer over sampler
    off = torch.tensor([math.log(0.5), 0.0, math.log(1.5), math.log(7), 50.0])
    loss = token_loss(torch.zeros(5), torch.zeros(5), -off, torch.ones(5))
    assert torch.allclose(loss, -torch.tensor([0.5, 1, 1.5, 2, 2]))


def test_token_loss_stays_finite_for_absurd_ratios():
    logp = torch.tensor([500.0, -500.0], requires_grad=True)
    loss = token_loss(
        logp, torch.zeros(2), torch.tensor([-900.0, 900.0]), torch.tensor([1.0, -1.0])
    )
    loss.sum().backward()
    assert loss.isfinite().all() and logp.grad.isfinite().all()


def test_token_loss_moves_no_token_past_its_clip():
    """The gradient: A rho inside the clip, zero once moving further would earn nothing, and none
    through w.
    """
    rho = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5, 3.5])
    for A, alive in ((1.0, [1, 1, 1, 1, 0, 0]), (-1.0, [0, 1, 1, 1, 1, 0])):
        logp = rho.log().requires_grad_()
        token_loss(logp, torch.zeros(6), torch.zeros(6), torch.full((6,), A)).sum().backward()
        assert torch.allclose(logp.grad, -A * rho * torch.tensor(alive))


# ---------------------------------------------------------------- the gradient of passes


def batch_gradient(policy, groups, A, cfg):
    loss = sum(
        pass_loss(policy, rows, A, 50.0, cfg)[0]
        for rows in passes(policy, list(enumerate(groups)), cfg)
    )
    return gradients(loss, policy.params)


@pytest.mark.slow
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
        monkeypatch.setattr(packing, "answers_per_tree", lambda *_: k)
        assert distance(batch_gradient(policy, groups, A, cfg), whole) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_a_plain_loop(make_policy, kind):
    policy, cfg = make_policy(kind)
    groups = make_groups(LENGTHS)
    A = advantages(groups)
    plain = sum(
        plain_loss(policy.model, group, A[g], None, 50.0, cfg) for g, group in enumerate(groups)
    )
    assert distance(batch_gradient(policy, groups, A, cfg), gradients(plain, policy.params)) < 1e-5


def test_grad_checkpoint_recomputes_and_changes_no_gradient(make_policy):
    plain, cfg = make_policy()
    saving, _ = make_policy(grad_checkpoint=True)
    groups = make_groups(LENGTHS)
    A = advantages(groups)
    calls = []
    saving.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    again = batch_gradient(saving, groups, A, cfg)
    n_passes = len(passes(saving, list(enumerate(groups)), cfg))
    # once forward, once again in backward
    assert len(calls) == 2 * n_passes
    assert distance(again, batch_gradient(plain, groups, A, cfg)) < 1e-6


# ---------------------------------------------------------------- the update


def weights(policy):
    return [p.detach().clone() for p in policy.params]


def hand_written_update(policy, groups, A, cfg):
    """The update as the paper has it, without packing or micro-batches; -> the gradient norms."""
    kept = [g for g in range(len(groups)) if A[g].any()]
    lengths = [len(x.response) for g in kept for x in groups[g]]
    # B Tbar
    denominator = cfg.minibatch_rows * sum(lengths) / len(lengths)
    with torch.no_grad():
        # before the first step
        old = {g: plain_logps(policy.model, groups[g], cfg.temperature) for g in kept}
    optimizer = torch.optim.AdamW(
        policy.params,
        lr=policy.lr,
        betas=(cfg.beta1, cfg.beta2),
        eps=cfg.adam_eps,
        weight_decay=cfg.weight_decay,
    )
    size, norms = cfg.minibatch_rows // len(groups[0]), []
    for start in range(0, len(kept), size):
        optimizer.zero_grad()
        sum(
            plain_loss(policy.model, groups[g], A[g], old[g], denominator, cfg)
            for g in kept[start : start + size]
        ).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(policy.params, cfg.grad_clip)))
        optimizer.step()
    return norms


@pytest.mark.parametrize("kind", ["tied", pytest.param("untied", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "minibatch_rows", [4, 8, 32], ids=["three_steps", "a_short_last_one", "one_short_step"]
)
@pytest.mark.parametrize("grad_clip", [1e9, 0.05], ids=["free", "clipped"])
def test_update_equals_a_hand_written_loop(make_policy, kind, minibatch_rows, grad_clip):
    ours, cfg = make_policy(
        kind,
        lr=0.02,
        minibatch_rows=minibatch_rows,
        grad_clip=grad_clip,
        adam_eps=1e-3,
        tokens_at_once=60,
    )
    plain, _ = make_policy(kind, lr=0.02)
    groups = make_groups(LENGTHS[:2] + [[40, 41, 42, 43]] + LENGTHS[2:])
    A = 3 * advantages(groups)
    # flat, and long: must not enter Tbar
    A[2] = 0
    before = weights(ours)
    result = update(ours, groups, A, cfg)
    norms = hand_written_update(plain, groups, A, cfg)
    moved = [a - b for a, b in zip(weights(ours), before)]
    assert distance(moved, [a - b for a, b in zip(weights(plain), before)]) < 1e-4
    assert result["grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert (result["steps"], result["rows"], result["tokens"]) == (
        len(norms),
        12,
        sum(map(sum, LENGTHS)),
    )
    assert all(p.grad is None for p in ours.params)


def test_later_mini_batches_feel_the_clip(make_policy):
    """With a large step rho leaves the clip, so logp_old must be from before the first step, not
    the present one.
    """
    ours, cfg = make_policy(lr=0.05, minibatch_rows=4)
    naive, _ = make_policy(lr=0.05)
    groups = make_groups([[6] * 4] * 3)
    # the same answers three times
    groups[1:] = [groups[0]] * 2
    A = advantages(groups[:1]).repeat(3, 1)
    update(ours, groups, A, cfg)
    for g in range(3):
        # forgets logp_old each time
        update(naive, groups[g : g + 1], A[g : g + 1], cfg)
    assert distance(weights(ours), weights(naive)) > 1e-3


def test_a_documents_questions_are_spread_over_the_whole_order():
    """The released order of buckets of 8, 4 and 2, and that of its own test: where each question
    stands.
    """
    documents = "A" * 8 + "B" * 4 + "C" * 2
    assert "".join(documents[g] for g in spread(documents)) == "ABACABAABACABA"
    assert spread(documents) == [0, 8, 1, 12, 2, 9, 3, 4, 10, 5, 13, 6, 11, 7]


def test_a_batch_of_one_document_or_of_as_many_as_questions_keeps_its_order():
    for documents in ([0] * 7, range(7), [None] * 7, []):
        assert spread(documents) == list(range(len(documents)))


@pytest.mark.parametrize("seed", range(5))
def test_a_mini_batch_holds_questions_of_all_documents_not_of_a_few(seed):
    """128 documents with 2 to 8 questions each, mini-batches of 32 as in the paper.

    In the order of the batch a mini-batch holds 4 to 16 documents; spread, nearly 32.
    """
    g = torch.Generator().manual_seed(seed)
    documents = []
    for d in range(128):
        documents += [d] * int(torch.randint(2, 9, (), generator=g))
    order = spread(documents)
    assert sorted(order) == list(range(len(documents)))

    def fewest(order):
        starts = range(0, len(order) - 31, 32)
        return min(len({documents[i] for i in order[s:s + 32]}) for s in starts)

    assert fewest(range(len(documents))) <= 8
    assert fewest(order) >= 30
    # each document's questions in their own order
    places = {d: [i for i in order if documents[i] == d] for d in set(documents)}
    assert all(numbers == sorted(numbers) for numbers in places.values())


def test_the_update_trains_in_that_order_counting_only_what_has_an_advantage(make_policy):
    ours, cfg = make_policy(lr=0.02, minibatch_rows=4)
    plain, _ = make_policy(lr=0.02)
    groups = make_groups(LENGTHS + LENGTHS)
    A = advantages(groups)
    A[1] = 0
    # of A three train, at 1/6, 3/6 and 5/6; of B two, at 1/4 and 3/4
    order = [0, 4, 2, 5, 3]
    update(ours, groups, A, cfg, documents="AAAABB")
    update(plain, [groups[g] for g in order], A[order], cfg)
    assert all(map(torch.equal, weights(ours), weights(plain)))


def test_an_update_without_any_advantage_moves_nothing(make_policy):
    policy, cfg = make_policy()
    before = weights(policy)
    assert update(policy, make_groups(LENGTHS), torch.zeros(3, 4), cfg) == {
        "grad_norm": None,
        "tokens": 0,
        "steps": 0,
        "rows": 0,
    }
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
    # the others are taken
    assert policy.skipped == 4 and result["steps"] == 2
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
        assert (
            all(p.dtype == torch.bfloat16 for p in copy.parameters()) and copy is not policy.model
        )
    rollouts = sample(policy, PROMPTS[:4], 4, ("k",), cfg)
    assert all(map(torch.equal, weights(policy), before))
    again = torch.cat(
        [packed_logps(policy, pack(group, 0, 2), cfg.temperature, cfg) for group in rollouts]
    )
    sampler = torch.tensor([lp for group in rollouts for x in group for lp in x.logp])
    # bf16 noise, and no more
    assert again.dtype == torch.float32 and (again - sampler).abs().mean() < 0.05
    update(policy, rollouts, advantages(rollouts), cfg)
    assert policy.skipped == 0 and not all(map(torch.equal, weights(policy), before))
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in policy.params)
    assert all(
        state[name].dtype == torch.float32
        for state in policy.optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    )


def test_the_bf16_copy_keeps_its_rotary_frequencies_in_fp32(make_policy):
    """Rounded to bf16, a frequency is off by up to 0.4 %: at position 4,000 the angle would mean
    nothing.
    """
    policy, _ = make_policy(dtype="bf16")
    with policy.sampling_model() as copy:
        assert torch.equal(copy.model.rotary_emb.inv_freq, policy.model.model.rotary_emb.inv_freq)
