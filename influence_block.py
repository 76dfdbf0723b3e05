"""Questions through one pass, each with a gradient of its own, a piece of a weight at a time. influence.py has the definition.

A short question costs more for what does not depend on its tokens than for what does: the overhead of some two thousand operators, and reading
weights, v and g_dev. A block of Q questions, one packed row each, pays that once. The rows never meet, so the gradient of one question is what
its own row contributes:

    y = x W^T        g_q = dy_q^T x_q                                   nn.Linear: x and dy of all rows, multiplied row by row
    y = E[ids]       g_q = sum of dy_q over the places of a token       nn.Embedding
    y = w f(x)       g_q = gradient of the q-th of Q copies of w        *RMSNorm, whose weight broadcasts

    code       shape              meaning
    Q                             questions of a block; L: length of the longest row
    x, dy      (Q, L, H)          input of a module, gradient of its output; at the head (T, H), the predictions of all questions in turn
    share      (Q, rows, ...)     what one module contributes to rows a to b of the Q gradients of one parameter: a function of a and b
    g          (Q, rows, ...)     the sum of the shares of all modules that hold the parameter (a tied embedding has two): rows a to b of g_q

Weights do not require gradients during the pass, so autograd forms none of its own. As soon as the last module that holds a tensor has its dy,
the tensor's gradients are formed, scored and dropped some rows at a time, as many as stay in a core's cache. So no g_q is ever in memory as
a whole, not even that of the largest tensor, and a row of an embedding whose token does not occur is skipped. That is less work than
autograd does for a bare backward pass, which writes every gradient to memory. A block adds the activations of its Q rows: at most TOKENS of
them unless a single row has more.

A question goes the other way, autograd's own gradients with a hook on each (influence.py), if it needs more than one row, and all do if layers
recompute their activations, or if the model keeps a parameter where none of the three cases applies. The scores are the same either way up
to rounding (tests/test_influence.py).
"""
import contextlib
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate, pairwise

import torch
from torch import nn
from tqdm import tqdm

import ranks
from policy import batch_loss, micro_batches

TOKENS, QUESTIONS = 768, 16             # at most in a block, padding included: beyond it nothing is left to share, and pieces get small


def is_known(module):
    """Does one of the three cases above hold? Subclasses may scale their output, and torch's own RMSNorm does not broadcast its weight."""
    norm = type(module).__name__.endswith("RMSNorm") and type(module) is not nn.RMSNorm and list(module._parameters) == ["weight"]
    return type(module) in (nn.Linear, nn.Embedding) or norm


def blocks(solver, questions, answers, cfg):
    """Questions -> lists of (q, packed row) to score together, longest rows first; questions that go the other way are left out."""
    if solver.recomputed or not all(is_known(module) for module in solver.model.modules() if module._parameters):
        return []
    passes = {q: micro_batches(solver, [(q, answers[q])], cfg) for q in questions}
    rows = [(q, batches[0][0]) for q, batches in passes.items() if len(batches) == len(batches[0]) == 1]
    rows = [(q, row) for q, row in rows if predictions(row) <= cfg.logp_chunk]                          # head_logps would cut anywhere
    rows.sort(key=lambda pair: -len(pair[1].ids))
    ends = [0, *accumulate(sizes([(len(row.ids), predictions(row)) for _, row in rows], cfg))]
    return [rows[start:end] for start, end in pairwise(ends)]


def sizes(rows, cfg):
    """[(tokens, predictions) of each row], longest first -> how many of them, in turn, make a block."""
    out, limit = [], min(TOKENS, cfg.tokens_at_once)
    while rows:
        fit = max(1, min(QUESTIONS, limit // rows[0][0]))
        size = math.ceil(len(rows) / math.ceil(len(rows) / fit))                                        # so that the last block is no smaller
        while sum(predictions for _, predictions in rows[:size]) > cfg.logp_chunk:
            size -= 1
        out.append(size)
        rows = rows[size:]
    return out


def predictions(row):
    return len(row.sources)


class Block:
    """Hooks on every module that holds a parameter: one on its forward pass, which puts one on the gradient of its output.

    stream: influence.Streaming, which knows g_dev, and the direction of a gradient.
    """

    def __init__(self, solver, stream, rows):
        self.params, self.stream = solver.params, stream
        self.lengths = [predictions(row) for row in rows]                   # (Q,)
        self.uses, self.shares, self.sums, self.weights, self.handles = Counter(), defaultdict(list), [], {}, []
        for module in solver.model.modules():
            if isinstance(module, nn.Linear):
                self.handles.append(module.register_forward_hook(self.linear))
            elif isinstance(module, nn.Embedding):
                self.handles.append(module.register_forward_hook(self.embedding))
            elif module._parameters:
                self.handles += [module.register_forward_pre_hook(self.lend), module.register_forward_hook(self.give_back)]

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

    def linear(self, module, args, y):
        x = args[0].detach()
        self.uses.update(p for p in module.parameters())
        y.register_hook(lambda dy: self.linear_gradients(module, x.to(dy.dtype), dy))

    def linear_gradients(self, module, x, dy):
        """(Q, L, in) x, (Q, L, out) dy; at the head (T, in), (T, out)."""
        if x.dim() == 2:
            pairs = list(zip(dy.split(self.lengths), x.split(self.lengths)))

            def weight(a, b):
                g = dy.new_empty(len(pairs), b - a, x.shape[1])                                             # (Q, rows, in)
                for (d, h), out in zip(pairs, g):
                    torch.mm(d[:, a:b].T, h, out=out)
                return g
            bias = lambda a, b: torch.stack([d[:, a:b].sum(0) for d, _ in pairs])
        else:
            weight = lambda a, b: torch.bmm(dy[:, :, a:b].transpose(1, 2), x)
            bias = lambda a, b: dy[:, :, a:b].sum(1)
        self.add(module.weight, weight)
        if module.bias is not None:
            self.add(module.bias, bias)                                                                     # (Q, rows)

    def embedding(self, module, args, y):
        self.uses[module.weight] += 1
        y.requires_grad_().register_hook(lambda dy: self.embedding_gradients(module, args[0], dy))

    def embedding_gradients(self, module, ids, dy):
        """(Q, L) ids, (Q, L, H) dy. None for rows of which no token occurs. Like autograd, nothing for the padding token."""
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
            rows = places // L * (b - a) + tokens[first:last] - a                                           # question by question
            return dy.new_zeros(Q * (b - a), H).index_add_(0, rows, dy.flatten(0, 1)[places]).view(Q, b - a, H)
        self.add(module.weight, share)

    def lend(self, module, args):
        """Q copies of the weight instead of one, each over the row of its question."""
        p = self.weights[module] = module.weight
        self.uses[p] += 1
        copies = p.detach().expand(len(self.lengths), *[1] * (args[0].dim() - 2), -1).requires_grad_()      # (Q, 1, H) or (Q, 1, 1, H)
        copies.register_hook(lambda g: self.add(p, lambda a, b: g.flatten(1)[:, a:b]))
        module._parameters["weight"] = copies

    def give_back(self, module, args, y):
        module._parameters["weight"] = self.weights.pop(module)

    def add(self, p, share):
        """One module's share of the Q gradients of p. With the last one they are complete, and are scored, some rows at a time."""
        self.shares[p].append(share)
        if len(self.shares[p]) < self.uses[p]:
            return
        shares, width = self.shares.pop(p), p.numel() // len(p)
        if p in self.stream.g_dev:
            most = max(1, self.stream.piece // (len(self.lengths) * width))
            rows = math.ceil(len(p) / math.ceil(len(p) / most))             # pieces of one size
            for a in range(0, len(p), rows):
                found = [part for share in shares if (part := share(a, min(a + rows, len(p)))) is not None]
                if found:
                    self.sums.append(self.stream.sums_of(p, sum(found[1:], found[0]).flatten(1), a * width))


def block_sums(solver, stream, questions, answers, A_sol, denominator, cfg):
    """Questions -> {q: (3,) <g_dev, direction>, |direction|^2, |g_q|^2} of those in a row of their own; {} of a model with other modules."""
    out = {}
    for pairs in tqdm(blocks(solver, questions, answers, cfg), desc="influence", unit="block", leave=False, disable=not ranks.is_main()):
        rows = [row for _, row in pairs]
        block = Block(solver, stream, rows)
        with block.hooked():
            loss, _ = batch_loss(solver, rows, A_sol, denominator, cfg)
            if any(p not in block.uses for p in solver.params):             # it is used elsewhere than in its module's forward
                return {}
            loss.backward()
        out |= {q: sums for (q, _), sums in zip(pairs, stream.total(block.sums).T)}
    return out
