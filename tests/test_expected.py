"""The tree of answers says what sampling, brute force and the packed trees of policy.py say,
without noise.
"""
import math
from dataclasses import replace

import pytest
import torch

import solver as solver_role
from studies import expected, reality
from data import Question
from fakes import END, EOS, SPECIAL, distance, gradients, make_groups, plain_logps

# A fake world of three words: two boxes and one that says nothing. The fake tokenizer splits at
# spaces, so a box is one word.
A, B, TALK = range(len(SPECIAL), len(SPECIAL) + 3)
SAYS = {A: r"\boxed{A}", B: r"\boxed{B}", TALK: "hm", EOS: "", END: ""}
QUESTIONS = [Question("w3 w4 ?", ["w5", "w6"], "w5"),
             Question("w7 w8 w9 ?", ["w5", "w6"], "w6")]


def says(ids, **_):
    """A token or several -> text, as a tokenizer decodes."""
    ids = [ids] if isinstance(ids, int) else ids
    return " ".join(SAYS.get(i, f"w{i}") for i in ids).strip()


@pytest.fixture(params=["tied", "window"])
def world(request, make_policy, monkeypatch):
    """A policy that can only say the five words above, at most three of them, and the tree of each
    question.
    """
    solver, cfg = make_policy(request.param, max_response_tokens=3)
    monkeypatch.setattr(solver.tokenizer, "decode", says)
    monkeypatch.setattr(expected, "FOLLOW", 1e-12)
    monkeypatch.setattr(expected, "LEAF", 1e-12)

    head = solver.model.get_output_embeddings()
    never = torch.full((solver.model.config.vocab_size,), -60.0)
    never[list(SAYS)] = 0
    head.register_forward_hook(lambda module, args, logits: logits + never)

    trees = expected.plant(solver, QUESTIONS)
    assert expected.grow(solver, trees, cfg)
    return solver, cfg, trees


@pytest.mark.parametrize("prompts", ["plain", "hard"])
def test_trees_stand_behind_the_prompt_that_is_asked(make_policy, prompts):
    policy, _ = make_policy(max_prompt_tokens=4096)
    tree, = expected.plant(policy, QUESTIONS[:1], prompts)
    assert tree.prompt == policy.prompt_ids(solver_role.prompt_text(QUESTIONS[0], prompts))


def by_hand(solver, tree, cfg):
    """P(the first box is right) by every sequence of at most three words, each probability from a
    pass of its own.
    """
    total = 0.0
    right = A if tree.question.letter == "A" else B
    for silence in range(3):
        answer = [TALK] * silence + [right]
        ids = torch.tensor([tree.prompt + answer])
        logits = solver.model(ids, use_cache=False).logits[0]
        logp = torch.log_softmax(logits / cfg.temperature, dim=-1)
        before = len(tree.prompt) - 1
        total += math.exp(sum(float(logp[before + i, token]) for i, token in enumerate(answer)))
    return total


def test_the_accuracy_is_that_of_all_sequences_counted_one_by_one(world):
    solver, cfg, trees = world
    layout = expected.Layout(solver, trees, cfg)
    accuracy, mass = expected.Accuracy(layout)(layout.logps(solver, cfg))
    with torch.no_grad():
        counted = sum(by_hand(solver, tree, cfg) for tree in trees) / 2
    assert float(accuracy) == pytest.approx(counted, rel=1e-4)
    assert float(mass) == pytest.approx(1, abs=1e-4)
    assert 0.005 < float(accuracy) < 0.995


def test_a_box_decides_and_nothing_after_it_is_followed(world):
    _, _, trees = world
    for tree in trees:
        right = A if tree.question.letter == "A" else B
        for node, is_right in tree.leaves.items():
            assert is_right == (tree.tokens[node] == right)
        assert not set(tree.parents) & set(tree.leaves)
        assert {len(tree.path(node)) for node in tree.leaves} == {1, 2, 3}


def test_sampled_answers_in_the_trees_save_passes_and_change_nothing(world, monkeypatch):
    solver, cfg, trees = world
    with_answers = expected.plant(solver, QUESTIONS)
    for tree in with_answers:
        for answer in ([TALK, TALK, A], [TALK, B, EOS], [A]):
            tree.add_answer(answer)
    passes = []
    hidden = expected.Layout.hidden
    monkeypatch.setattr(expected.Layout, "hidden",
                        lambda *args: passes.append(1) or hidden(*args))
    assert expected.grow(solver, with_answers, cfg)
    assert len(passes) == 1

    def leaves(tree):
        return {tuple(tree.tokens[x] for x in tree.path(node)): right
                for node, right in tree.leaves.items()}
    assert list(map(leaves, with_answers)) == list(map(leaves, trees))
    for grown in (trees, with_answers):
        layout = expected.Layout(solver, grown, cfg)
        grown.append(expected.Accuracy(layout)(layout.logps(solver, cfg)))
    assert [float(x) for x in trees[-1]] == pytest.approx([float(x) for x in with_answers[-1]])


@pytest.mark.parametrize("kind", ["tied", "window"])
@pytest.mark.parametrize("tokens_at_once", [10000, 30])
def test_log_probs_of_sampled_answers_are_those_of_the_plain_way(make_policy, kind, tokens_at_once):
    """Answers that begin alike share their first nodes; the numbers stay those of a sequence per
    answer.
    """
    solver, cfg = make_policy(kind, tokens_at_once=tokens_at_once)
    groups = make_groups([[5, 3, 6], [4, 7, 2]])
    groups[0][1].response[:2] = groups[0][0].response[:2]
    trees = [expected.Tree(None, group[0].prompt) for group in groups]
    nodes = reality.add_answers(trees, groups)
    assert nodes[0][0][:2] == nodes[0][1][:2]
    assert nodes[0][0][2] != nodes[0][1][2]

    layout = expected.Layout(solver, trees, cfg)
    logp = layout.logps(solver, cfg)
    for i, group in enumerate(groups):
        plain = plain_logps(solver.model, group, cfg.temperature)
        for path, theirs in zip(nodes[i], plain):
            ours = logp[[layout.start[i] + node for node in path]].float()
            assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("tokens_at_once", [10000, 30])
def test_the_gradient_is_autograds(world, tokens_at_once):
    solver, cfg, trees = world
    cfg = replace(cfg, tokens_at_once=tokens_at_once)
    layout = expected.Layout(solver, trees, cfg)
    accuracy = expected.Accuracy(layout)
    ours = layout.gradient(solver, cfg, lambda logp: accuracy(logp)[0])

    logp = torch.zeros(layout.start[-1], dtype=torch.float64)
    for packed, edge in zip(layout.passes, layout.edges):
        logp = logp.index_add(0, edge[2], layout.pass_logps(solver, cfg, packed, edge))
    assert distance(ours, gradients(accuracy(logp)[0], solver.params)) < 1e-4
    assert all(p.grad is None for p in solver.params)


def test_a_tree_that_grows_too_large_is_refused(world, monkeypatch):
    solver, cfg, _ = world
    monkeypatch.setattr(expected, "MOST_NODES", 5)
    assert not expected.grow(solver, expected.plant(solver, QUESTIONS), cfg)


def test_unlikely_paths_are_left_out_and_the_mass_says_so(world, monkeypatch):
    solver, cfg, _ = world
    monkeypatch.setattr(expected, "FOLLOW", 0.2)
    trees = expected.plant(solver, QUESTIONS)
    assert expected.grow(solver, trees, cfg)
    layout = expected.Layout(solver, trees, cfg)
    accuracy, mass = expected.Accuracy(layout)(layout.logps(solver, cfg))
    assert float(accuracy) < float(mass) < 0.999
