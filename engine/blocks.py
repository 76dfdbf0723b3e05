"""Questions through one pass, each with a gradient of its own, a piece of a weight at a time.

A short question costs more for what does not depend on its tokens than for what does. A block of Q
questions, one tree each, pays that once. The trees never meet, so a question's gradient is what its
own tree contributes:

    y = x W^T       g_q = dy_q^T x_q                                  nn.Linear
    y = E[ids]      g_q = sum of dy_q over the places of a token      nn.Embedding
    y = w f(x)      g_q = gradient of the q-th of Q copies of w       *RMSNorm, if it broadcasts

    code     shape             meaning
    Q, L                       questions of a block; length of the longest tree
    x, dy    (Q, L, H)         input of a module, gradient of its output; at the head (T, H), the
                               predictions of all questions in turn
    share    (Q, rows, ...)    what one module adds to lines a to b of a parameter's Q gradients
    g        (Q, rows, ...)    the sum of the shares of all modules that hold the parameter

Weights do not require gradients during the pass, so autograd forms none of its own. As soon as the
last module that holds a tensor has its dy, its gradients are formed, scored and dropped some lines
at a time: no g_q is ever in memory whole, and lines of an embedding whose token does not occur are
skipped. A question that needs several trees goes the other way (influence.Streaming), and all do if
layers recompute their activations or a parameter lives where none of the three cases applies.
"""
import contextlib
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate, pairwise

import torch
from torch import nn

from engine.packing import passes
from engine.progress import bar as progress_bar

# At most in a block, padding included: beyond it nothing is left to share, and pieces get small.
# Measured on a CPU; on CUDA a guess, enough tokens to keep it busy.
TOKENS = {"cpu": 768, "cuda": 8192}
QUESTIONS = {"cpu": 16, "cuda": 64}


def is_known(module):
    """Does one of the three cases above hold?

    Subclasses may scale their output, and torch's own RMSNorm does not broadcast its weight.
    """
    if type(module) in (nn.Linear, nn.Embedding):
        return True
    named = type(module).__name__.endswith("RMSNorm") and type(module) is not nn.RMSNorm
    return named and list(module._parameters) == ["weight"]


# ---------------------------------------------------------------- which questions share a block

def blocks(solver, questions, answers, cfg):
    """Questions -> lists of (q, tree) to score together, longest first.

    Those that go the other way are left out.
    """
    with_parameters = [module for module in solver.model.modules() if module._parameters]
    if solver.recomputed or not all(map(is_known, with_parameters)):
        return []

    # one question's trees at a time: those that do not fit are large
    found = ((q, passes(solver, [(q, answers[q])], cfg)) for q in questions)
    return in_blocks(found, cfg, solver.device.type)


def in_blocks(questions, cfg, device):
    """(q, its passes) pairs, of Trees or of TreeSizes -> lists of (q, tree), as above."""
    trees = []
    for q, found in questions:
        # the head would be cut anywhere in more than logp_chunk predictions
        if len(found) == len(found[0]) == 1 and found[0][0].predictions <= cfg.logp_chunk:
            trees.append((q, found[0][0]))
    trees.sort(key=lambda pair: -pair[1].tokens)

    lengths = [(tree.tokens, tree.predictions) for _, tree in trees]
    ends = [0, *accumulate(sizes(lengths, cfg, device))]
    return [trees[start:end] for start, end in pairwise(ends)]


def sizes(trees, cfg, device):
    """[(tokens, predictions) of each tree], longest first -> how many of them, in turn, make a
    block.
    """
    found, limit = [], min(TOKENS[device], cfg.tokens_at_once)
    while trees:
        fit = max(1, min(QUESTIONS[device], limit // trees[0][0]))
        # so that the last block is no smaller
        size = math.ceil(len(trees) / math.ceil(len(trees) / fit))
        while sum(n for _, n in trees[:size]) > cfg.logp_chunk:
            size -= 1
        found.append(size)
        trees = trees[size:]
    return found


# ---------------------------------------------------------------- one block

class Block:
    """Hooks on every module that holds a parameter: one on its forward pass, which puts one on the
    gradient of its output.

    pieces: scoring.Pieces, which knows g_dev and the direction of a gradient.
    """

    def __init__(self, solver, pieces, trees):
        self.params, self.pieces = solver.params, pieces
        self.lengths = [tree.predictions for tree in trees]                         # (Q,)
        # of each p: how often modules use it in this pass; the shares that came so far
        self.uses, self.shares = Counter(), defaultdict(list)
        # sums: (3, Q) of each piece; weights: {norm: its own weight, while copies stand in}
        self.sums, self.weights, self.handles = [], {}, []
        for module in solver.model.modules():
            if isinstance(module, nn.Linear):
                self.handles.append(module.register_forward_hook(self.linear))
            elif isinstance(module, nn.Embedding):
                self.handles.append(module.register_forward_hook(self.embedding))
            elif module._parameters:
                self.handles.append(module.register_forward_pre_hook(self.lend))
                self.handles.append(module.register_forward_hook(self.give_back))

    @contextlib.contextmanager
    def hooked(self):
        """Parameters do not require gradients inside, and everything is as it was after."""
        for p in self.params:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for handle in self.handles:
                handle.remove()
            for module, weight in self.weights.items():
                module._parameters["weight"] = weight
            for p in self.params:
                p.requires_grad_(True)

    # ------------------------------------------------------------ nn.Linear

    def linear(self, module, args, y):
        x = args[0].detach()
        self.uses.update(module.parameters())
        y.register_hook(lambda dy: self.linear_gradients(module, x.to(dy.dtype), dy))

    def linear_gradients(self, module, x, dy):
        """(Q, L, in) x, (Q, L, out) dy; at the head (T, in), (T, out)."""
        weight, bias = self.shares_of_head(x, dy) if x.dim() == 2 else self.shares_of_layer(x, dy)
        self.add(module.weight, weight)
        if module.bias is not None:
            self.add(module.bias, bias)

    def shares_of_layer(self, x, dy):
        def weight(a, b):
            return torch.bmm(dy[:, :, a:b].transpose(1, 2), x)                      # (Q, rows, in)

        def bias(a, b):
            return dy[:, :, a:b].sum(1)                                             # (Q, rows)

        return weight, bias

    def shares_of_head(self, x, dy):
        pairs = list(zip(dy.split(self.lengths), x.split(self.lengths)))

        def weight(a, b):
            g = dy.new_empty(len(pairs), b - a, x.shape[1])                         # (Q, rows, in)
            for (d, h), out in zip(pairs, g):
                torch.mm(d[:, a:b].T, h, out=out)
            return g

        def bias(a, b):
            return torch.stack([d[:, a:b].sum(0) for d, _ in pairs])                # (Q, rows)

        return weight, bias

    # ------------------------------------------------------------ nn.Embedding

    def embedding(self, module, args, y):
        self.uses[module.weight] += 1
        y.requires_grad_()
        y.register_hook(lambda dy: self.embedding_gradients(module, args[0], dy))

    def embedding_gradients(self, module, ids, dy):
        """(Q, L) ids, (Q, L, H) dy. None for lines of which no token occurs. Like autograd, nothing
        for the padding token.
        """
        if module.padding_idx is not None:
            dy = dy.masked_fill((ids == module.padding_idx)[:, :, None], 0)
        Q, L, H = dy.shape
        tokens, order = ids.flatten().sort()
        occur = tokens.tolist()

        def share(a, b):
            first, last = bisect_left(occur, a), bisect_left(occur, b)
            if first == last:
                return None
            places = order[first:last]
            # question by question
            lines = places // L * (b - a) + tokens[first:last] - a
            g = dy.new_zeros(Q * (b - a), H)
            return g.index_add_(0, lines, dy.flatten(0, 1)[places]).view(Q, b - a, H)

        self.add(module.weight, share)

    # ------------------------------------------------------------ norms

    def lend(self, module, args):
        """Q copies of the weight instead of one, each over the tree of its question."""
        p = self.weights[module] = module.weight
        self.uses[p] += 1
        ones = [1] * (args[0].dim() - 2)
        copies = p.detach().expand(len(self.lengths), *ones, -1)                    # (Q, 1.., H)
        copies = copies.requires_grad_()
        copies.register_hook(lambda g: self.add(p, lambda a, b: g.flatten(1)[:, a:b]))
        module._parameters["weight"] = copies

    def give_back(self, module, args, y):
        module._parameters["weight"] = self.weights.pop(module)

    # ------------------------------------------------------------ all shares are there

    def add(self, p, share):
        """One module's share of the Q gradients of p. With the last one they are complete, and are
        scored, some lines at a time.
        """
        self.shares[p].append(share)
        if len(self.shares[p]) < self.uses[p]:
            return
        shares, width = self.shares.pop(p), p.numel() // len(p)
        if p not in self.pieces.g_dev:
            return
        most = max(1, self.pieces.size // (len(self.lengths) * width))
        # pieces of one size
        lines = math.ceil(len(p) / math.ceil(len(p) / most))
        for a in range(0, len(p), lines):
            b = min(a + lines, len(p))
            parts = [share(a, b) for share in shares]
            found = [part for part in parts if part is not None]
            if found:
                g = sum(found[1:], found[0])
                self.sums.append(self.pieces.of(p, g.flatten(1), a * width))


def block_sums(solver, pieces, questions, answers, loss_of, cfg):
    """Questions -> {q: (3,) <g_dev, direction>, |direction|^2, |g_q|^2} of those in a tree of their
    own.

    loss_of(trees): their scalar loss. {} of a model with other modules.
    """
    found = {}
    found_blocks = blocks(solver, questions, answers, cfg)
    for pairs in progress_bar(found_blocks, desc="influence", unit="block"):
        trees = [tree for _, tree in pairs]
        block = Block(solver, pieces, trees)
        with block.hooked():
            loss = loss_of(trees)
            # a parameter is used elsewhere than in its module's forward
            if any(p not in block.uses for p in solver.params):
                return {}
            loss.backward()
        sums = pieces.total(block.sums).T                                           # (Q, 3)
        found |= {q: sums[i] for i, (q, _) in enumerate(pairs)}
    return found
