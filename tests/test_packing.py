"""Trees and passes: log-probs against one padded row per answer, the mask against a walk."""
from dataclasses import replace

import pytest
import torch

from data import Rollout
from engine.logps import tree_logps
from engine.packing import answers_per_tree, pack, passes
from fakes import EOS, make_groups, packed_logps, plain_logps

KINDS = ["tied", "untied", "window", "windows"]
# with one-token answers; longer than the window of 4
LENGTHS = [[5, 1, 9, 3], [1, 1, 2, 1], [4, 12, 2, 7]]


# ---------------------------------------------------------------- trees


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
            assert torch.allclose(
                packed_logps(policy, rows, 0.7, replace(cfg, logp_chunk=chunk)), plain, atol=2e-5
            )


def test_what_answers_begin_with_stands_in_a_row_once():
    """Prompt P; answers ab., ab., abc., b. -- one of them twice, one the beginning of another, one
    on its own.
    """
    group = [
        Rollout([50, 51], response, [], True, "")
        for response in ([7, 8, EOS], [6, 7, EOS], [6, 7, 9, EOS], [6, 7, EOS])
    ]
    (row,) = pack(group, 0, 4)
    assert row.ids == [50, 51, 6, 7, 9, 7, 8] and row.positions == [0, 1, 2, 3, 4, 2, 3]
    assert row.ends == [7, 7, 5, 5, 5, 7, 7]
    assert [i for i, _ in row.answers] == [1, 3, 2, 0] or [i for i, _ in row.answers] == [
        3,
        1,
        2,
        0,
    ]
    tokens = [token for _, rollout in row.answers for token in rollout.response]
    assert [row.targets[s] for s in row.spread] == tokens and len(row.targets) == 8 == len(
        set(zip(row.sources, row.targets))
    )


def test_a_token_sees_its_ancestors_and_itself():
    """The mask against a walk up each answer."""
    for row in (
        row for k in (1, 2, 4) for row in pack(make_groups([[5, 7, 6, 6]], words=2)[0], 0, k)
    ):
        L, seen = len(row.ids), torch.zeros(len(row.ids), len(row.ids), dtype=torch.bool)
        at = 0
        for _, rollout in row.answers:
            path = list(range(len(rollout.prompt)))
            for i, place in enumerate(
                row.sources[s] for s in row.spread[at : at + len(rollout.response)]
            ):
                path = path + [place] if i else path
                seen[place, path] = True
            at += len(rollout.response)
        seen[: len(rollout.prompt), : len(rollout.prompt)] = (
            torch.ones(len(rollout.prompt), len(rollout.prompt)).tril().bool()
        )
        ends = torch.tensor(row.ends)
        assert torch.equal(seen, (torch.arange(L)[:, None] < ends).tril())


def test_answers_share_a_row_when_the_prompt_is_long_and_go_alone_when_it_is_short(make_policy):
    policy, _ = make_policy()
    assert answers_per_tree(policy, 100, [3] * 4, [0] * 4, 10000) == 4
    assert answers_per_tree(policy, 1, [200] * 4, [0] * 4, 10000) == 1
    # unless they begin alike
    assert answers_per_tree(policy, 1, [200] * 4, [0, 190, 190, 190], 10000) == 4
    # what fits; one alone always may
    assert answers_per_tree(policy, 100, [3] * 4, [0] * 4, 107) in (1, 2)


def test_every_answer_is_in_one_micro_batch_within_the_budget(make_policy):
    policy, cfg = make_policy()
    groups = list(enumerate(make_groups(LENGTHS * 3)))
    for budget in (1, 30, 60, 10000):
        batches = passes(policy, groups, replace(cfg, tokens_at_once=budget))
        assert sorted(i for rows in batches for row in rows for i, _ in row.answers) == list(
            range(36)
        )
        assert all(
            len(rows) * max(len(row.ids) for row in rows) <= budget or len(rows) == 1
            for rows in batches
        )


def test_mask_memory_does_not_grow_with_layers_and_a_row_of_one_answer_has_none(
    make_policy, monkeypatch
):
    """Of booleans torch makes a float mask in every layer; numbers are shared, and a causal row
    needs nothing.
    """
    policy, cfg = make_policy()
    seen, base = [], policy.model.base_model
    forward = base.forward
    monkeypatch.setattr(
        base,
        "forward",
        lambda *args, **kw: seen.append(kw["attention_mask"]) or forward(*args, **kw),
    )
    for k in (1, 2):
        rows = pack(make_groups([[3, 5]])[0], 0, k)
        tree_logps(policy, rows, 1.0, cfg)
    assert seen[0] is None and seen[1].dtype == torch.float32
