"""Packs the answers to one prompt into trees, and trees into passes, so that nothing goes through
the model twice.

A tree is a prompt and several of its answers in one sequence, depth first: the prompt stands in
it once, and so does whatever several answers begin with. A token's position is its depth, and a
mask lets it see its ancestors (engine/masks.py). The numbers are those of one sequence per answer,
for fewer tokens wherever the prompt is not short or answers begin alike (tests/test_policy.py).

    code         symbol  shape   meaning
    group                (m,)    rollouts that answer one prompt; g is its place among the groups
    Tree                 L       tokens of one sequence for the model
    pass                 (B, L)  trees that go through the model together
    tokens_at_once               most tokens of a pass, padding included

What is decided here is decided on lengths (Lengths, TreeSize), so that a plan can decide the same
of rollouts that nobody has sampled yet (tools/formulas.py).
"""
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from engine import ranks
from engine.attention import heads_of


@dataclass
class Tree:
    """A prompt and some of its answers, ready for one pass.

    The first three lists have one entry per input token.
    """
    ids: list
    # depth: the prompt counts from 0, every answer goes on from there
    positions: list
    # a token's descendants stand behind it, up to here; nothing else sees it
    ends: list
    # one per prediction: where it is made (an index into ids), and of which token
    sources: list
    targets: list
    # one per response token, answer after answer: which prediction it is (not policy.spread)
    spread: list
    # (flat index g * m + i, rollout) of the answers inside
    answers: list

    @property
    def tokens(self):
        return len(self.ids)

    @property
    def predictions(self):
        return len(self.sources)


    @property
    def branched(self):
        """Is some token no child of the one before it?"""
        return self.positions[-1] < len(self.ids) - 1


class TreeSize(NamedTuple):
    """The size of a Tree: all that packing and passes decide on."""
    tokens: int
    predictions: int
    branched: bool = True


class Rows(list):
    """A pass of trees without a branch that lie end to end, (1, T), and not side by side
    (engine/varlen.py).
    """


# A token without an answer: no loss, gradients of exact zeros.
EMPTY = Tree([0], [0], [1], [], [], [], [])


# ---------------------------------------------------------------- a group as trees

def tree_order(group):
    """Answers of one prompt -> their indices, sorted by tokens.

    Sorted lists are a tree read depth first.
    """
    return sorted(range(len(group)), key=lambda i: group[i].response)


def common_start(a, b):
    """Two lists of tokens -> how many they have in common at their beginnings."""
    for t, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return t
    return min(len(a), len(b))


def common_starts(group):
    """(m,) how many input tokens each answer has in common with the one before, in tree order."""
    inputs = [group[i].response[:-1] for i in tree_order(group)]
    return [0] + [common_start(a, b) for a, b in pairwise(inputs)]


class Lengths(NamedTuple):
    """A group as lengths in tokens: what decides how it is packed and dealt to ranks."""
    prompt: int
    # (m,) in tree order; and the common_starts
    responses: tuple
    common: tuple

    @property
    def total(self):
        """Tokens of a prompt and its answers, what they have in common counted once."""
        return self.prompt + sum(self.responses) - sum(self.common)


def lengths_of(group):
    """(m,) rollouts -> Lengths."""
    responses = tuple(len(group[i].response) for i in tree_order(group))
    return Lengths(len(group[0].prompt), responses, tuple(common_starts(group)))


def tree_sizes(lengths, per_tree):
    """Lengths of a group -> the TreeSize of each of its trees of at most per_tree answers.

    The last token of an answer is predicted, and never fed.
    """
    sizes = []
    for i in range(0, len(lengths.responses), per_tree):
        responses = lengths.responses[i:i + per_tree]
        predictions = sum(responses) - sum(lengths.common[i + 1:i + per_tree])
        tokens = lengths.prompt + predictions - len(responses)
        branched = tokens > lengths.prompt + max(responses) - 1
        sizes.append(TreeSize(tokens, predictions, branched))
    return sizes


def attention_width(config):
    """Layers x heads x head size of a model's config."""
    H, _, D = heads_of(config)
    return config.num_hidden_layers * H * D


def answers_per_tree(policy, prompt, lengths, common, limit, parts=1):
    """How many answers should share one reading of the prompt: the number with the fewest FLOPs, of
    those that make at least `parts` trees.

    prompt: its length. lengths, common: (m,) of the answers in tree order: response lengths, and
    how much of each the one before has brought. A tree of L tokens costs about
    2 P_layers L + 4 w L^2 (P_layers weights in the layers, w attention_width), each answer's last
    token in L, which tree_sizes leaves out. limit: most tokens of a tree of several. Packing saves
    tokens and pays for attention between answers that the mask then throws away, so long
    answers to a short prompt go one to a tree. End to end such a tree needs no mask, and half of
    the attention: 2 w L^2.
    """
    width = attention_width(policy.model.config.get_text_config())

    def flops(per_tree):
        sizes = []
        for i in range(0, len(lengths), per_tree):
            responses = sum(lengths[i:i + per_tree])
            sizes.append(prompt + responses - sum(common[i + 1:i + per_tree]))
        if per_tree > 1 and max(sizes) > limit:
            return math.inf
        pairs = 2 if per_tree == 1 and policy.end_to_end else 4
        return sum(2 * policy.layer_weights * L + pairs * width * L * L for L in sizes)

    return min(range(1, math.ceil(len(lengths) / parts) + 1), key=flops)


def tree_of(group, g, chosen):
    """The answers `chosen` (indices in tree order) of a group, the g-th -> one Tree.

    The last token of a response is a target only: nothing is predicted from it.
    """
    prompt = group[0].prompt
    ids = list(prompt)
    positions = list(range(len(prompt)))
    parents = list(range(-1, len(prompt) - 1))
    # where a (parent, token) stands in ids, and which prediction it is
    places, predictions, spread = {}, {}, []

    for i in chosen:
        response, at = group[i].response, len(prompt) - 1
        for t, token in enumerate(response):
            spread.append(predictions.setdefault((at, token), len(predictions)))
            if t < len(response) - 1:
                if (at, token) not in places:
                    places[at, token] = len(ids)
                    ids.append(token)
                    positions.append(len(prompt) + t)
                    parents.append(at)
                at = places[at, token]

    ends = list(range(1, len(ids) + 1))
    for i in range(len(ids) - 1, 0, -1):
        ends[parents[i]] = max(ends[parents[i]], ends[i])
    sources, targets = map(list, zip(*predictions))
    answers = [(g * len(group) + i, group[i]) for i in chosen]
    return Tree(ids, positions, ends, sources, targets, spread, answers)


def pack(group, g, per_tree):
    """One group -> its trees of at most per_tree answers."""
    order = tree_order(group)
    starts = range(0, len(order), per_tree)
    return [tree_of(group, g, order[start:start + per_tree]) for start in starts]


def packed(policy, group, g, limit, parts):
    """One group -> its trees, for the fewest FLOPs, at least `parts` of them where there are so
    many answers.
    """
    per_tree = answers_per_tree(policy, *lengths_of(group), limit, parts)
    return pack(group, g, per_tree)


# ---------------------------------------------------------------- trees as passes

def passes(policy, groups, cfg, parts=1, part=0):
    """(g, group) pairs -> lists of trees that go through the model together: similar lengths, at
    most cfg.tokens_at_once padded tokens.

    With parts > 1 only part `part` of the trees: so many ranks divide a group's answers.
    """
    trees = []
    for g, group in groups:
        trees += packed(policy, group, g, cfg.tokens_at_once, parts)
    return in_passes(trees, cfg.tokens_at_once, parts, part, policy.end_to_end)


def in_passes(trees, limit, parts=1, part=0, end_to_end=False):
    """Trees, or TreeSizes -> lists of them, longest first, each of at most `limit` tokens when
    padded to its first.

    end_to_end: those without a branch become Rows instead, of `limit` tokens without padding.
    """
    in_order = sorted(trees, key=lambda tree: -tree.tokens)[part::parts]
    rows = [tree for tree in in_order if end_to_end and not tree.branched]
    found = []
    for tree in in_order:
        if end_to_end and not tree.branched:
            continue
        if not found or (len(found[-1]) + 1) * found[-1][0].tokens > limit:
            found.append([])
        found[-1].append(tree)
    return found + in_rows(rows, limit)


def in_rows(trees, limit):
    """Trees without a branch, longest first -> Rows of at most `limit` tokens, or of one tree.

    The first that has room for it takes a tree.
    """
    found, used = [], []
    for tree in trees:
        fits = (i for i, tokens in enumerate(used) if tokens + tree.tokens <= limit)
        i = next(fits, len(found))
        if i == len(found):
            found.append(Rows())
            used.append(0)
        found[i].append(tree)
        used[i] += tree.tokens
    return found


def even_passes(policy, passes):
    """This rank's passes, and empty ones until every rank has as many.

    A pass through a sharded model needs all ranks.
    """
    if not policy.sharded:
        return passes
    return passes + [[EMPTY]] * (ranks.most(len(passes)) - len(passes))


def dealt_longest_first(pairs):
    """(g, group) pairs in the order in which ranks take them in turn, so that all have about as
    many tokens.
    """
    return ranks.evenly(sorted(pairs, key=lambda pair: -lengths_of(pair[1]).total))
