"""Influence: Gamma against torch's AdamW, scores against padded rows and a pass over all
parameters, and against a real step.
"""
import doctest
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import influence
from engine import blocks, packing, scoring
import policy as policy_module
from config import SIMILARITIES, Config
from fakes import advantages, distance, gradients, make_groups, plain_logps, plain_loss, s_hat_of
from influence import Gamma, dev_gradient, plain_scores, second_moment, similarity
from extensions import dev_ema
from engine.packing import passes
from policy import update

ROOT = Path(__file__).resolve().parent.parent

DEV = make_groups([[5, 3, 8, 1], [2, 6, 4, 4], [7, 7, 1, 2]], seed=1)
ANSWERS = make_groups(
    [[4, 1, 9, 3], [1, 1, 2, 1], [6, 5, 2, 7], [3, 3, 3, 3], [8, 1, 1, 2]],
    prompts=[3, 8, 1, 20, 5],
    seed=2,
)


def all_flat(*rows):
    """Advantages of ANSWERS in which the given groups have none."""
    A = advantages(ANSWERS, seed=3)
    A[list(rows)] = 0
    return A


A_DEV, A_SOL = advantages(DEV, seed=4), all_flat(3)


def warm(policy, cfg, steps=3):
    """Give AdamW a history, made of other rollouts."""
    for seed in range(steps):
        update(
            policy,
            make_groups([[3, 5, 4, 6]] * 2, seed=10 + seed),
            advantages(DEV[:2], seed=seed),
            cfg,
        )
    return policy


def test_doctests():
    assert doctest.testmod(influence).failed == 0


# ---------------------------------------------------------------- Gamma


@pytest.mark.parametrize(
    "g, v, k, beta2, eps, g_dev, golden, dot, cosine",
    [
        ([2, -4], [4, 9], 6, 0.9, 0.2, [3, 5], [0.67363424, -0.88653378], -2.41176621, -0.37147794),
        (
            [2, -3, 0.5],
            [0, 0, 0],
            0,
            0.999,
            0.1,
            [1.5, -0.5, 2],
            [0.95238095, -0.96774194, 0.83333333],
            3.57910906,
            0.88119614,
        ),
    ],
    ids=["warm", "cold"],
)
def test_gamma_golden_numbers(g, v, k, beta2, eps, g_dev, golden, dot, cosine):
    g, v, g_dev = (torch.tensor(x, dtype=torch.float64) for x in (g, v, g_dev))
    direction = Gamma(g, v, k, beta2=beta2, eps=eps)
    assert torch.allclose(direction, torch.tensor(golden, dtype=torch.float64), rtol=0, atol=1e-8)
    assert float(g_dev @ direction) == pytest.approx(dot, abs=1e-8)
    assert float(g_dev @ direction / g_dev.norm() / direction.norm()) == pytest.approx(
        cosine, abs=1e-8
    )


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_gamma_is_an_adamw_step(steps):
    random_g = torch.Generator().manual_seed(steps)
    p = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = torch.optim.AdamW([p], lr=1.0, betas=(0.0, 0.999), eps=1e-8, weight_decay=0.0)
    for _ in range(steps):
        p.grad = torch.randn(50, dtype=torch.float64, generator=random_g)
        optimizer.step()
    g = 10.0 ** torch.randint(-6, 3, (50,), generator=random_g) * torch.randn(
        50, dtype=torch.float64, generator=random_g
    )
    v, k = second_moment(optimizer, p)
    with torch.no_grad():
        # from 0, so that no digit of the step is lost
        p.zero_()
    v_before, direction = v.clone(), Gamma(g, v, k)
    assert k == steps and torch.equal(v, v_before)  # read, never changed
    p.grad = g
    optimizer.step()
    assert torch.allclose(-p.detach(), direction, rtol=1e-14, atol=1e-15)


def test_cold_gamma_is_the_sign_whatever_the_size_of_the_gradient():
    g = torch.tensor([1e-3, -1.0, 1e3, -1e-5])
    assert torch.allclose(Gamma(g, torch.zeros(4), 0), g.sign(), atol=2e-3)


# ---------------------------------------------------------------- the two gradients


@pytest.mark.parametrize("kind", ["tied", "untied", "window"])
def test_g_dev_is_the_gradient_of_a_plain_loop(make_policy, kind):
    policy, cfg = make_policy(kind, tokens_at_once=25)
    A = A_DEV.clone()
    # an all-right group: in neither N_dev nor Tbar_dev
    A[1] = 0
    kept = [0, 2]
    lengths = [len(x.response) for g in kept for x in DEV[g]]
    denominator = len(lengths) * sum(lengths) / len(lengths)
    plain = sum(plain_loss(policy.model, DEV[g], A[g], None, denominator, cfg) for g in kept)
    assert distance(dev_gradient(policy, DEV, A, cfg), gradients(plain, policy.params)) < 1e-5


def test_g_dev_is_not_clipped(make_policy):
    policy, cfg = make_policy(grad_clip=1e-6)
    assert (
        torch.stack([g.square().sum() for g in dev_gradient(policy, DEV, A_DEV, cfg)]).sum().sqrt()
        > 1e-2
    )


def test_there_is_no_g_dev_when_all_dev_groups_are_flat(make_policy):
    policy, cfg = make_policy()
    assert dev_gradient(policy, DEV, torch.zeros(3, 4), cfg) is None


def test_dev_ema_starts_at_the_first_value_and_then_follows_slowly():
    first, second = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 0.0])]
    average = dev_ema(None, first, 0.9)
    assert torch.equal(average[0], first[0])
    assert torch.allclose(dev_ema(average, second, 0.9)[0], torch.tensor([1.2, 1.8]))
    # no g_dev this time: no scores, whatever came before
    assert dev_ema(average, None, 0.9) is None
    assert dev_ema(None, None, 0.9) is None


def test_without_dev_ema_each_iteration_stands_alone():
    first, second = [torch.tensor([1.0])], [torch.tensor([3.0])]
    assert dev_ema(first, second, 0.0) is second
    assert dev_ema(first, None, 0.0) is None


# ---------------------------------------------------------------- the scores


def plain_gradient(policy, q, A, answers, cfg):
    """g_q with nothing clever: padded rows, the full gradient."""
    kept = [i for i in range(len(answers)) if A[i].any()]
    lengths = [len(x.response) for i in kept for x in answers[i]]
    denominator = len(answers[q]) * sum(lengths) / len(lengths)  # m Tbar_gen
    return gradients(
        plain_loss(policy.model, answers[q], A[q], None, denominator, cfg), policy.params
    )


def padded_scores(policy, answers, A, g_dev, cfg):
    """The definition on whole gradients that were computed by padded rows, one per answer."""
    scores = torch.zeros(len(answers))
    moments = [second_moment(policy.optimizer, p) for p in policy.params]
    for q in range(len(answers)):
        if A[q].any():
            g_q = plain_gradient(policy, q, A, answers, cfg)
            scores[q] = similarity(g_dev, g_q, moments, cfg)
    return scores


def test_the_similarities_of_two_numbers_by_hand():
    """g_dev (3, 4) of norm 5; without a history Gamma of (2, -1) is (1, -1), of norm sqrt 2."""
    g_dev = [torch.tensor([3.0]), torch.tensor([4.0])]
    g_q = [torch.tensor([2.0]), torch.tensor([-1.0])]
    moments = [(torch.zeros(1), 0)] * 2
    by_hand = {"dot": 2.0, "cosine": 2 / (5 * 5 ** 0.5), "preconditioned_dot": -1.0,
               "preconditioned_cosine": -1 / (5 * 2 ** 0.5)}
    for name, value in by_hand.items():
        cfg = Config(similarity=name)
        assert float(similarity(g_dev, g_q, moments, cfg)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("steps", [0, 3], ids=["cold", "warm"])
def test_the_plain_way_is_the_definition_on_padded_rows(make_policy, name, steps):
    policy, cfg = make_policy(similarity=name, adam_eps=1e-6)
    warm(policy, cfg, steps)
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    plain = plain_scores(policy, ANSWERS, A_SOL, g_dev, cfg)
    expected = padded_scores(policy, ANSWERS, A_SOL, g_dev, cfg)
    assert torch.allclose(plain, expected, rtol=1e-3, atol=2e-5 * float(expected.abs().max()))
    assert not plain_scores(policy, ANSWERS, A_SOL, None, cfg).any()


@pytest.fixture
def one_by_one(monkeypatch):
    """Autograd's own gradients and a hook on each: what large questions and unknown models take."""
    monkeypatch.setattr(blocks, "blocks", lambda *_: [])


WAYS = pytest.mark.parametrize(
    "tokens, piece",
    [pytest.param(None, 7, marks=pytest.mark.slow), (512, 2**18),
     pytest.param(512, 77, marks=pytest.mark.slow), pytest.param(1, 500, marks=pytest.mark.slow)],
    ids=["one by one", "in blocks", "in small pieces", "in blocks of one"],
)


@pytest.fixture
def scored(monkeypatch):
    """-> a function that makes scoring take one of the WAYS."""

    def take(tokens, piece):
        monkeypatch.setitem(scoring.PIECE, "cpu", piece)
        monkeypatch.setitem(blocks.TOKENS, "cpu", tokens or 512)
        if tokens is None:
            monkeypatch.setattr(blocks, "blocks", lambda *_: [])

    return take


@WAYS
@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("kind", ["tied", pytest.param("untied", marks=pytest.mark.slow),
                                  pytest.param("window", marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [0, 3], ids=["cold", "warm"])
def test_scores_equal_the_plain_computation(make_policy, scored, name, kind, steps, tokens, piece):
    scored(tokens, piece)
    policy, cfg = make_policy(kind, similarity=name, adam_eps=1e-6)
    warm(policy, cfg, steps)
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    expected = plain_scores(policy, ANSWERS, A_SOL, g_dev, cfg)
    for tokens_at_once in (10000, 12):
        smaller = replace(cfg, tokens_at_once=tokens_at_once, logp_chunk=5)
        s_hat = s_hat_of(policy, ANSWERS, A_SOL, g_dev, smaller)
        assert torch.allclose(s_hat, expected, rtol=1e-3, atol=2e-5 * float(expected.abs().max()))
    assert (s_hat != 0).tolist() == [True, True, True, False, True]  # the flat group


@WAYS
def test_answers_that_begin_alike_or_are_the_same_are_scored_as_if_each_stood_alone(
    make_policy, scored, tokens, piece
):
    """Rows are trees with fewer predictions than response tokens; the plain computation reads every
    answer on its own.
    """
    scored(tokens, piece)
    policy, cfg = make_policy()
    warm(policy, cfg)
    answers = make_groups(
        [[4, 2, 6, 3], [2, 2, 2, 2], [6, 5, 2, 7], [3, 3, 3, 3], [8, 2, 2, 2]],
        prompts=[3, 8, 1, 20, 5],
        seed=2,
        words=2,
    )
    rows = [
        row for q in range(5) for batch in passes(policy, [(q, answers[q])], cfg) for row in batch
    ]
    assert any(len(row.targets) < len(row.spread) for row in rows)
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    assert torch.allclose(
        s_hat_of(policy, answers, A_SOL, g_dev, cfg),
        plain_scores(policy, answers, A_SOL, g_dev, cfg),
        atol=1e-5,
    )


def test_a_question_whose_answers_need_several_passes_has_one_score(make_policy, monkeypatch):
    """Preconditioning is not linear, so the hooks must wait for the last pass."""
    policy, cfg = make_policy()
    warm(policy, cfg)
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    whole = s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    monkeypatch.setattr(packing, "answers_per_tree", lambda *_: 1)
    assert torch.allclose(
        s_hat_of(policy, ANSWERS, A_SOL, g_dev, replace(cfg, tokens_at_once=1)), whole, atol=1e-5
    )


def test_recomputed_activations_leave_the_scores_alone(make_policy):
    plain, cfg = make_policy()
    saving, _ = make_policy(grad_checkpoint=True)
    scores = [
        s_hat_of(x, ANSWERS, A_SOL, dev_gradient(x, DEV, A_DEV, cfg), cfg) for x in (plain, saving)
    ]
    assert torch.allclose(*scores, atol=1e-6)


def test_a_question_is_scored_alone(make_policy):
    """Its score does not depend on the questions beside it but for Tbar, which a cosine of raw
    gradients does not see either.
    """
    policy, cfg = make_policy(similarity="cosine")
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    together = s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    alone = [
        float(s_hat_of(policy, ANSWERS[q : q + 1], A_SOL[q : q + 1], g_dev, cfg)) for q in range(5)
    ]
    assert torch.allclose(together, torch.tensor(alone), atol=1e-6)


def test_nothing_is_scored_without_g_dev_or_without_a_gradient(make_policy):
    policy, cfg = make_policy()
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    assert torch.equal(s_hat_of(policy, ANSWERS, A_SOL, None, cfg), torch.zeros(5))
    assert torch.equal(s_hat_of(policy, ANSWERS, torch.zeros(5, 4), g_dev, cfg), torch.zeros(5))
    assert s_hat_of(policy, [], torch.zeros(0, 0), g_dev, cfg).shape == (0,)


def test_the_question_gradients_of_a_batch_add_up_to_its_gradient(make_policy):
    """sum over q of g_q = gradient of the solver's own loss, up to the one normaliser: m for a
    question, Q m for the batch.
    """
    policy, cfg = make_policy()
    kept = [q for q in range(5) if A_SOL[q].any()]
    total = [
        sum(parts) / len(kept)
        for parts in zip(*(plain_gradient(policy, q, A_SOL, ANSWERS, cfg) for q in kept))
    ]
    assert distance(dev_gradient(policy, ANSWERS, A_SOL, cfg), total) < 1e-5
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    dots = s_hat_of(policy, ANSWERS, A_SOL, g_dev, replace(cfg, similarity="dot"))
    assert float(dots.sum()) / len(kept) == pytest.approx(
        float(sum((a * b).sum() for a, b in zip(g_dev, total))), rel=1e-4
    )


# ---------------------------------------------------------------- what a score means


def dev_logps(policy, cfg):
    with torch.no_grad():
        return [plain_logps(policy.model, group, cfg.temperature) for group in DEV]


def dev_loss(policy, w, cfg):
    """The dev objective at the present weights; w is a constant, taken where g_dev was taken."""
    # N_dev Tbar_dev
    n_tokens = sum(len(x.response) for group in DEV for x in group)
    logps = dev_logps(policy, cfg)
    return (
        -sum(
            float(A_DEV[g, i]) * float((w[g][i] * logps[g][i]).double().sum())
            for g in range(3)
            for i in range(4)
        )
        / n_tokens
    )


@pytest.mark.parametrize("steps", [0, 3], ids=["cold", "warm"])
def test_a_small_step_along_gamma_changes_the_dev_loss_by_the_dot_product(make_policy, steps):
    policy, cfg = make_policy(similarity="preconditioned_dot", adam_eps=1e-4)
    warm(policy, cfg, steps)
    w = [
        [(lp - torch.tensor(x.logp)).exp().clamp(max=2) for lp, x in zip(*pair)]
        for pair in zip(dev_logps(policy, cfg), DEV)
    ]
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    dots = s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    origin = [p.detach().clone() for p in policy.params]
    for q in (0, 2, 4):
        direction = [
            Gamma(g, *second_moment(policy.optimizer, p), eps=cfg.adam_eps)
            for g, p in zip(plain_gradient(policy, q, A_SOL, ANSWERS, cfg), policy.params)
        ]
        losses = []
        # a step down the gradient and one up: second-order terms cancel
        for eta in (3e-4, -3e-4):
            with torch.no_grad():
                for p, at, d in zip(policy.params, origin, direction):
                    p.copy_(at - eta * d)
            losses.append(dev_loss(policy, w, cfg))
        with torch.no_grad():
            for p, at in zip(policy.params, origin):
                p.copy_(at)
        assert (losses[0] - losses[1]) / 6e-4 == pytest.approx(
            -float(dots[q]), rel=0.01, abs=1e-3 * float(dots.abs().max())
        )


@pytest.mark.parametrize("steps", [0, 3], ids=["cold", "warm"])
def test_the_dev_question_itself_is_useful_and_its_opposite_harmful(make_policy, steps):
    policy, cfg = make_policy()
    warm(policy, cfg, steps)
    g_dev = dev_gradient(policy, DEV[:1], A_DEV[:1], cfg)
    same = s_hat_of(policy, DEV[:1], A_DEV[:1], g_dev, cfg)
    assert same > 0.3
    assert torch.allclose(s_hat_of(policy, DEV[:1], -A_DEV[:1], g_dev, cfg), -same)
    assert s_hat_of(
        policy, DEV[:1], A_DEV[:1], g_dev, replace(cfg, similarity="cosine")
    ) == pytest.approx(1, abs=1e-5)


def test_the_score_feels_the_size_of_the_gradient_once_there_is_a_history(make_policy):
    """v' holds g_q^2 beside the history: s_hat is not invariant to the scale of g_q, as the header
    says. A raw cosine is.
    """
    policy, cfg = make_policy()
    warm(policy, cfg)
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    for name, invariant in (("preconditioned_cosine", False), ("cosine", True)):
        small, large = (
            s_hat_of(policy, ANSWERS, c * A_SOL, g_dev, replace(cfg, similarity=name))
            for c in (1, 100)
        )
        assert torch.allclose(small, large, atol=1e-4) is invariant


# ---------------------------------------------------------------- nothing else changes


def everything(policy):
    """Weights and optimizer state, copied."""
    moments = [
        state[name]
        for state in policy.optimizer.state.values()
        for name in ("step", "exp_avg", "exp_avg_sq")
    ]
    return [tensor.detach().clone() for tensor in policy.params + moments]


def random_states():
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]


@pytest.mark.parametrize("steps, grad_checkpoint", [(0, False), (3, False), (3, True)])
def test_scoring_leaves_everything_bit_for_bit_as_it_was(make_policy, steps, grad_checkpoint):
    policy, cfg = make_policy(tokens_at_once=30, logp_chunk=5, grad_checkpoint=grad_checkpoint)
    warm(policy, cfg, steps)
    for i, p in enumerate(policy.params):
        p.grad = torch.full_like(p, float(i)) if i % 2 else None
    grads, before, states = [p.grad for p in policy.params], everything(policy), random_states()
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    g_dev_before = [g.clone() for g in g_dev]
    s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    assert len(before) == len(everything(policy)) and all(
        map(torch.equal, before, everything(policy))
    )
    assert random_states() == states
    assert all(p.grad is grad for p, grad in zip(policy.params, grads))
    assert all(bool((p.grad == i).all()) for i, p in enumerate(policy.params) if i % 2)
    assert all(map(torch.equal, g_dev, g_dev_before))


def hooks(policy):
    return sum(len(p._post_accumulate_grad_hooks or ()) for p in policy.params)


def test_no_hook_stays_behind_even_after_an_error(make_policy, monkeypatch, one_by_one):
    policy, cfg = make_policy(tokens_at_once=30)
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    first = s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    assert hooks(policy) == 0
    calls = []

    def fails(*args):
        calls.append(hooks(policy))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return policy_module.pass_loss(*args)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(influence, "pass_loss", fails)
        s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    assert calls[0] > 0 and hooks(policy) == 0 and all(p.grad is None for p in policy.params)
    assert torch.equal(s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg), first)


def test_no_gradient_of_the_whole_model_exists_while_scoring(make_policy, monkeypatch, one_by_one):
    """Each tensor's gradient is gone before the next one is complete."""
    policy, cfg = make_policy("untied")
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    held, take = [], influence.Streaming.take

    def watch(self, p):
        held.append(sum(x.grad is not None for x in policy.params))
        take(self, p)

    monkeypatch.setattr(influence.Streaming, "take", watch)
    s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    assert len(held) == 4 * len(policy.params) and max(held) == 1


def module_hooks(policy):
    return sum(len(x._forward_hooks) + len(x._forward_pre_hooks) for x in policy.model.modules())


@pytest.mark.parametrize("where", ["a layer", "the loss"])
def test_a_block_that_fails_leaves_the_model_as_it_was(make_policy, monkeypatch, where):
    """Inside a norm its weight is a tensor of several questions, and no parameter requires a
    gradient: both must come back.
    """
    policy, cfg = make_policy()
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    first, params, calls = (
        s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg),
        list(policy.model.parameters()),
        [],
    )

    def fails(*args, **kwargs):
        calls.append(module_hooks(policy))
        raise RuntimeError("out of memory")

    target = (
        (type(policy.model.base_model.norm), "forward")
        if where == "a layer"
        else (policy_module, "token_loss")
    )
    monkeypatch.setattr(*target, fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    monkeypatch.undo()
    assert calls[0] > 0 and module_hooks(policy) == 0 and hooks(policy) == 0
    assert all(
        a is b and a.requires_grad and a.grad is None
        for a, b in zip(params, policy.model.parameters())
    )
    assert torch.equal(s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg), first)


def test_questions_share_a_pass_only_where_that_is_known_to_be_right(make_policy):
    """Not where activations are recomputed, not with a module of another kind, not across several
    rows, not beyond a chunk of the head.
    """
    policy, cfg = make_policy()

    def together(policy, cfg):
        found = blocks.blocks(policy, [0, 1, 2, 4], ANSWERS, cfg)
        return [sorted(q for q, _ in block) for block in found]

    # question 2 is cheapest in more than one row
    assert together(policy, cfg) == [[0, 1, 4]]
    assert together(policy, replace(cfg, tokens_at_once=12)) == []
    assert together(policy, replace(cfg, logp_chunk=5)) == [[1]]
    assert together(make_policy(grad_checkpoint=True)[0], cfg) == []
    policy.model.base_model.norm = torch.nn.LayerNorm(32)
    assert together(policy, cfg) == []


def test_in_blocks_no_gradient_is_ever_whole_and_rows_of_an_embedding_that_do_not_occur_are_skipped(
    make_policy, monkeypatch, scored
):
    """Not even that of the largest tensor: at most so many elements at a time, of all questions of
    the block.
    """
    scored(512, 200)
    policy, cfg = make_policy("untied")
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    seen, sums_of = [], scoring.Pieces.of

    def watch(self, p, g, start=0):
        seen.append((p, g, start))
        return sums_of(self, p, g, start)

    monkeypatch.setattr(scoring.Pieces, "of", watch)
    kept = [0, 1, 4]
    s_hat_of(policy, [ANSWERS[q] for q in kept], A_SOL[kept], g_dev, cfg)
    embedding = policy.model.get_input_embeddings().weight
    width = embedding.shape[1]
    assert {len(g) for _, g, _ in seen} == {3} and max(g.numel() for _, g, _ in seen) <= 200
    for p in policy.params:
        rows = sorted(
            i
            for q, g, start in seen
            if q is p
            for i in range(
                start // (p.numel() // len(p)), (start + g.shape[1]) // (p.numel() // len(p))
            )
        )
        if p is not embedding:
            assert rows == list(range(len(p)))  # every row once
    occur = {token for q in kept for x in ANSWERS[q] for token in x.prompt + x.response[:-1]}
    looked_at = {
        i
        for p, g, start in seen
        if p is embedding
        for i in range(start // width, (start + g.shape[1]) // width)
    }
    assert occur <= looked_at and len(looked_at) < len(embedding)


def test_a_weight_used_outside_its_module_is_noticed(make_policy, monkeypatch):
    """A head that multiplies by its weight without being called shows no hook its input: the
    questions are scored one by one.
    """
    policy, cfg = make_policy("untied")
    g_dev = dev_gradient(policy, DEV, A_DEV, cfg)
    expected = s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg)
    head = policy.model.get_output_embeddings()
    monkeypatch.setattr(
        policy.model,
        "get_output_embeddings",
        lambda: lambda h: torch.nn.functional.linear(h, head.weight),
    )
    assert torch.allclose(s_hat_of(policy, ANSWERS, A_SOL, g_dev, cfg), expected, atol=1e-4)


def test_bf16_scores_are_near_those_of_fp32(make_policy):
    policy, cfg = make_policy(lr=1e-4)
    half, _ = make_policy(lr=1e-4, dtype="bf16")
    for name in ("cosine", "preconditioned_cosine"):
        cfg = replace(cfg, similarity=name)
        scores = [
            s_hat_of(x, ANSWERS, A_SOL, dev_gradient(x, DEV, A_DEV, cfg), cfg)
            for x in (policy, half)
        ]
        assert torch.allclose(*scores, atol=0.05)


# ---------------------------------------------------------------- on a real model with real
# rollouts


def as_written(g, v, k, beta2, eps):
    """Gamma as SPEC writes it, in float64, apart from the code under test."""
    g, v = g.double(), v.double()
    return g / (((beta2 * v + (1 - beta2) * g**2) / (1 - beta2 ** (k + 1))) ** 0.5 + eps)


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / "toy/anchor/config.json").exists(), reason="the toy anchor has not been made yet"
)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_on_the_toy_anchor_with_a_warm_optimizer_the_scores_are_the_formula_to_a_millionth(
    similarity,
):
    import solver as solver_role
    from dugrpo import center
    from engine import flags
    from engine.readers import load_questions
    from policy import Policy, update

    cfg = flags.from_flags({"similarity": similarity, "device": "cpu"})
    solver, questions = (
        Policy("solver", cfg.model, cfg.solver_lr, cfg),
        load_questions(cfg.dev)[:24],
    )
    answers = solver_role.answer_questions(solver, questions, 8, (0, 1, "solver", "dev"), cfg)
    A = center(solver_role.rewards(questions, answers, None))
    update(solver, answers, A, cfg)  # warms the optimizer
    g_dev, some = dev_gradient(solver, answers[:12], A[:12], cfg), answers[12:]
    scores = s_hat_of(solver, some, A[12:], g_dev, cfg)
    assert (scores != 0).sum() >= 6
    for q in (scores != 0).nonzero()[:4, 0].tolist():
        direction = plain_gradient(solver, q, A[12:], some, cfg)
        if similarity.startswith("preconditioned"):
            direction = [
                as_written(g, *second_moment(solver.optimizer, p), cfg.beta2, cfg.adam_eps)
                for g, p in zip(direction, solver.params)
            ]
        x, y = (
            torch.cat([t.double().flatten() for t in tensors]) for tensors in (g_dev, direction)
        )
        if similarity.endswith("cosine"):
            assert abs(float(scores[q] - x @ y / (x.norm() * y.norm()))) < 1e-6
        else:
            # a dot product has a scale of its own: relative, in fp32
            assert abs(float(scores[q] / (x @ y) - 1)) < 1e-4


# ---------------------------------------------------------------- what another device does

def test_products_row_by_row_are_those_of_the_matrix():
    rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(scoring.by_row(rows, rows[0]), rows @ rows[0], atol=1e-4)
    # on a CPU the sums stay what they were
    assert torch.equal(scoring.row_products(rows, rows[0]), rows @ rows[0])


def test_blocks_are_larger_on_a_device_that_has_room():
    cfg = Config(tokens_at_once=10 ** 5, logp_chunk=10 ** 5)
    trees = [(100, 50)] * 70
    on_cpu, on_cuda = (blocks.sizes(trees, cfg, device) for device in ("cpu", "cuda"))
    assert sum(on_cpu) == sum(on_cuda) == 70
    assert max(on_cpu) == 7 and max(on_cuda) == 35
