"""A prompt and several answers in one sequence: each token's position, and who may see it."""
import torch

from classroom import small
from classroom.compare import Wrong, expect, mistake

NAME = "tree"
SYMBOL = "position = depth; a token sees its ancestors"
FILE = "engine/packing.py"
BLANKS = ["tree_of"]
RUN = True

HINTS = (
    "Write the prompt once, then answer after answer (in the order of `chosen`). What two answers "
    "begin with stands in the sequence once. A token's position is its depth: every answer goes "
    "on from the prompt's end, wherever it stands in the sequence.",
    "Walk each response with `at`, the place of the token before. The prediction made at `at` of "
    "`token` has a number, predictions.setdefault((at, token), len(predictions)), and that number "
    "goes into spread. Then the token itself is put behind: only if (at, token) has no place yet. "
    "The last token of a response is predicted and never fed.",
    "Remember each token's parent. A token's descendants stand behind it up to ends[i]: begin "
    "with i + 1, then from the back ends[parent] = max(ends[parent], ends[i]). sources and "
    "targets are the keys of predictions, in order; answers are (g * len(group) + i, group[i]).",
)

MISTAKES = (
    mistake(
        "positions count columns: the second answer is then read as if it came after the first; a "
        "position is the depth in the tree",
        ("tree_of", "positions.append(len(prompt) + t)", "positions.append(len(positions))")),
    mistake(
        "ends are not handed up to the parents: a token then does not see the prompt it answers",
        ("tree_of", "ends[parents[i]] = max(ends[parents[i]], ends[i])", "pass")),
    mistake(
        "everything ends at the end of the sequence: plain causal attention, so the second answer "
        "reads the first",
        ("tree_of", "ends = list(range(1, len(ids) + 1))", "ends = [len(ids)] * len(ids)")),
    mistake(
        "the last token of a response is fed too: nothing is predicted from it, it only costs",
        ("tree_of", "if t < len(response) - 1:", "if True:")),
    mistake(
        "what answers have in common is written again for each of them: right, but nothing is "
        "saved; look a token up by (at, token) before putting it down",
        ("tree_of", "if (at, token) not in places:", "if True:")),
    mistake(
        "predictions are made at the token itself and not at the one before it: the model would "
        "be asked for a word it has just been told",
        ("tree_of", "sources, targets = map(list, zip(*predictions))",
         "sources, targets = map(list, zip(*predictions))\n"
         "    sources = [min(s + 1, len(ids) - 1) for s in sources]")),
)

GROUPS = ([[4, 7, 5, 4]], [[3, 3, 6, 8]])


def group_of(lengths, seed):
    group, = small.answers(lengths, seed=seed)
    return sorted(group, key=lambda rollout: rollout.response)


def by_hand(m):
    """A prompt of two tokens, answers 5 6 9 and 5 7 9."""
    from data import Rollout
    group = [Rollout([1, 2], [5, 6, 9], [0.] * 3, True, ""),
             Rollout([1, 2], [5, 7, 9], [0.] * 3, True, "")]
    tree = m.tree_of(group, 0, [0, 1])
    expected = dict(ids=[1, 2, 5, 6, 7], positions=[0, 1, 2, 3, 3], ends=[5, 5, 5, 4, 5],
                    sources=[1, 2, 3, 2, 4], targets=[5, 6, 9, 7, 9], spread=[0, 1, 2, 0, 3, 4])
    for name, value in expected.items():
        expect(getattr(tree, name), value, f"{name} of prompt 1 2 with answers 5 6 9 and 5 7 9")

    tree = m.tree_of(group, 3, [1, 0])
    numbered = [(number, rollout.response) for number, rollout in tree.answers]
    expect(numbered, [(7, [5, 7, 9]), (6, [5, 6, 9])],
           "answers (their numbers among all, and what they are) of group 3 of two, chosen 1, 0")


def oracle(m):
    """The tree's log-probs against one answer at a time through the model."""
    from engine.logps import tree_logps
    policy, cfg = small.solver()
    for i, lengths in enumerate(GROUPS):
        group = group_of(lengths, i)
        tree = m.tree_of(group, 0, list(range(len(group))))
        if not isinstance(tree, m.Tree):
            raise Wrong("tree_of gave no Tree")
        # the file's own Tree, so that the engine reads it
        with torch.no_grad():
            found = tree_logps(policy, [tree], cfg.temperature, cfg)
            expected = torch.cat([small.logps(policy, x, cfg) for x in group])
        expect(found, expected, "log-probs of a group of four through the tree", tolerance=1e-4)


def probe(m):
    found = []
    for i, lengths in enumerate(GROUPS):
        group = group_of(lengths, i)
        tree = m.tree_of(group, 0, list(range(len(group))))
        found.append([tree.ids, tree.positions, tree.ends, tree.sources, tree.targets,
                      tree.spread])
    return found
