"""Rows end to end: the numbers of rows side by side, for fewer tokens; the kernel itself is for a
GPU (tools/gpu_check.py).
"""
import inspect
from dataclasses import replace

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn

from data import InputError
from engine import logps, packing, varlen
from engine.logps import tree_logps
from engine.packing import Rows, in_passes, pack, passes, tree_sizes, lengths_of
from fakes import advantages, distance, gradients, make_groups
from influence import dev_gradient, influence_scores
from policy import pass_loss, update
from test_policy import KINDS, LENGTHS, batch_gradient, weights


def rows(groups):
    """Every answer a tree of its own."""
    trees = []
    for g, group in enumerate(groups):
        trees += pack(group, g, 1)
    return trees


@pytest.mark.slow
@pytest.mark.parametrize("grad_checkpoint", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_end_to_end_have_the_log_probs_and_gradients_of_rows_side_by_side(
        make_policy, kind, grad_checkpoint):
    plain, cfg = make_policy(kind, grad_checkpoint=grad_checkpoint)
    ours, _ = make_policy(kind, grad_checkpoint=grad_checkpoint, end_to_end="true")
    groups = make_groups(LENGTHS)
    A = advantages(groups)
    trees = rows(groups)
    expected = tree_logps(plain, trees, cfg.temperature, cfg)
    found = tree_logps(ours, Rows(trees), cfg.temperature, cfg)
    assert torch.allclose(found, expected, atol=2e-5)

    expected = gradients(pass_loss(plain, trees, A, 50.0, cfg)[0], plain.params)
    found = gradients(pass_loss(ours, Rows(trees), A, 50.0, cfg)[0], ours.params)
    assert distance(found, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("words", [2, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_with_passes_of_both_kinds_an_update_and_the_scores_are_the_same(make_policy, kind, words):
    """Of two words answers begin alike and share trees; of twenty they share little."""
    plain, cfg = make_policy(kind, lr=0.02, minibatch_rows=4, adam_eps=1e-3, tokens_at_once=40)
    ours, _ = make_policy(kind, lr=0.02, adam_eps=1e-3, end_to_end="true")
    groups = make_groups(LENGTHS, words=words)
    A = advantages(groups)
    results = []
    for policy in (plain, ours):
        g_dev = dev_gradient(policy, groups, A, cfg)
        s_hat = influence_scores(policy, groups, A, g_dev, cfg)[0]
        norm = update(policy, groups, A, cfg)["grad_norm"]
        results.append((g_dev, s_hat, norm, weights(policy)))
    (g, s, n, w), (their_g, their_s, their_n, their_w) = results
    assert distance(their_g, g) < 1e-5 and distance(their_w, w) < 1e-5
    assert torch.allclose(their_s, s, atol=1e-4) and their_n == pytest.approx(n, rel=1e-4)


def test_both_kinds_of_passes_occur_and_hold_every_tree_once(make_policy):
    policy, cfg = make_policy(end_to_end="true", tokens_at_once=40)
    # one group whose answers all begin alike, others that share little
    groups = make_groups(LENGTHS) + make_groups([[12, 12, 12, 12]], prompts=[30], words=1)
    found = passes(policy, list(enumerate(groups)), cfg)
    kinds = [isinstance(trees, Rows) for trees in found]
    assert any(kinds)
    answers = []
    for trees in found:
        for tree in trees:
            answers += [i for i, _ in tree.answers]
            assert tree.branched != isinstance(trees, Rows)
    assert sorted(answers) == list(range(16))


def test_rows_fill_a_pass_without_padding():
    trees = [packing.TreeSize(tokens, 1, False) for tokens in (2, 9, 3, 8, 30, 1)]
    trees.append(packing.TreeSize(5, 1, True))
    found = in_passes(trees, 12, end_to_end=True)
    assert [[tree.tokens for tree in trees] for trees in found] == [[5], [30], [9, 3], [8, 2, 1]]
    assert [isinstance(trees, Rows) for trees in found] == [False, True, True, True]
    # without it, everything is padded to the first
    assert not any(isinstance(trees, Rows) for trees in in_passes(trees, 12))


def test_a_size_knows_whether_its_tree_branches():
    for words in (1, 2, 20):
        for group in make_groups(LENGTHS, words=words):
            for per_tree in (1, 2, 4):
                sizes = tree_sizes(lengths_of(group), per_tree)
                trees = pack(group, 0, per_tree)
                assert [x.branched for x in sizes] == [x.branched for x in trees]
                assert [x.tokens for x in sizes] == [x.tokens for x in trees]


def test_without_a_mask_to_pay_for_long_answers_are_rather_rows(make_policy):
    """Half of the attention is saved, so the same group is split where it was shared."""
    policy, _ = make_policy()
    group = packing.Lengths(60, (40,) * 4, (0,) * 4)
    found = {}
    for end_to_end in (False, True):
        policy.end_to_end = end_to_end
        found[end_to_end] = packing.answers_per_tree(policy, *group, 10000)
    assert found[True] < found[False]


def test_a_cpu_and_fp32_keep_to_rows_side_by_side_unless_asked(make_policy):
    policy, cfg = make_policy()
    assert not policy.end_to_end and policy.model.config._attn_implementation == "sdpa"
    policy.device = torch.device("cuda")
    assert not varlen.wanted(cfg, policy)


def test_a_model_whose_layers_do_not_take_such_rows_is_padded_or_refused(make_policy, monkeypatch):
    monkeypatch.setattr(varlen, "accept", lambda model: False)
    with pytest.raises(InputError, match="--end_to_end true: qwen3 does not take rows"):
        make_policy(end_to_end="true")


def test_what_we_say_to_the_kernel_are_words_it_knows(make_policy):
    """Its arguments by name, and a mask of whole numbers that costs no memory."""
    q = torch.empty(3, 4, 8)
    ends = torch.tensor([0, 1, 3], dtype=torch.int32)
    inspect.signature(varlen_attn).bind(
        q, q, q, ends, ends, 2, 2, scale=1.0, window_size=(-1, 0), enable_gqa=True)
    policy, _ = make_policy("window", end_to_end="true")
    masks = varlen.row_masks(policy.model, [3, 1000], policy.device)
    assert masks["full_attention"].shape == (1, 1000, 1, 3)
    assert masks["sliding_attention"].shape == (1, 1000, 4, 3)
    assert masks["sliding_attention"].untyped_storage().nbytes() == 12


def test_a_saved_model_says_nothing_of_our_attention(make_policy, tmp_path):
    policy, _ = make_policy(end_to_end="true")
    policy.save(tmp_path / "saved")
    assert " or rows" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_length_that_suits_the_kernel_for_masks_changes_no_gradient(
        make_policy, kind, monkeypatch):
    policy, cfg = make_policy(kind)
    groups = make_groups(LENGTHS, words=2)
    A = advantages(groups)
    cfg = replace(cfg, tokens_at_once=200)
    plain = batch_gradient(policy, groups, A, cfg)
    monkeypatch.setitem(logps.MULTIPLE, "cpu", 16)
    lengths = []
    original = logps.tree_masks

    def watched(model, positions, ends, dtype):
        lengths.append(positions.shape[1])
        return original(model, positions, ends, dtype)

    monkeypatch.setattr(logps, "tree_masks", watched)
    assert distance(batch_gradient(policy, groups, A, cfg), plain) < 1e-5
    assert lengths and not any(length % 16 for length in lengths)
