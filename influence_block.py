"""Several questions of a small model through one pass, each with a gradient of its own. influence.py has the definition.

On a model of a million parameters most of a question's time is the overhead of some two thousand operators, not arithmetic. A block of Q
questions, one packed row each, pays it once. The rows never meet, so the gradient of one question is what its own row contributes:

    y = x W^T        g_q = dy_q^T x_q                                   nn.Linear: x and dy of all rows, multiplied row by row
    y = E[ids]       g_q = sum of dy_q over the places of a token       nn.Embedding
    y = w f(x)       g_q = gradient of the q-th of Q copies of w        *RMSNorm, whose weight broadcasts

    code       shape              meaning
    Q                             questions of a block; L: length of the longest row
    x, dy      (Q, L, H)          input of a module, gradient of its output; at the head (T, H), the predictions of all questions in turn
    g          (Q, like p)        the Q gradients of one parameter

Weights do not require gradients during the pass, so autograd forms none of its own. A tensor's g is used up as soon as the last module that
holds the tensor (a tied embedding has two) is done. Memory beyond influence.py: three times g, at most BYTES
each, and the activations of Q rows.

A question goes alone if it needs more than one row, and all do if the largest tensor is above BYTES / 2, if layers recompute their
activations, or if the model keeps a parameter where none of the three cases applies. The scores are the same either way up to
rounding (tests/test_influence.py).
"""
import contextlib
from collections import Counter

import torch
from torch import nn
from tqdm import tqdm

import ranks
from policy import batch_loss, micro_batches

BYTES = 2 ** 22         # for the Q gradients of the largest tensor: about what stays in a core's cache


def is_known(module):
    """Does one of the three cases above hold? Subclasses may scale their output, and torch's own RMSNorm does not broadcast its weight."""
    norm = type(module).__name__.endswith("RMSNorm") and type(module) is not nn.RMSNorm and list(module._parameters) == ["weight"]
    return type(module) in (nn.Linear, nn.Embedding) or norm


def blocks(solver, questions, answers, cfg):
    """Questions -> lists of (q, packed row) to score together, longest rows first; questions that go alone are left out."""
    size = BYTES // max(4 * p.numel() for p in solver.params)
    if size < 2 or solver.recomputed or not all(is_known(module) for module in solver.model.modules() if module._parameters):
        return []
    passes = {q: micro_batches(solver, [(q, answers[q])], cfg) for q in questions}
    rows = [(q, batches[0][0]) for q, batches in passes.items() if len(batches) == len(batches[0]) == 1]
    rows.sort(key=lambda pair: -len(pair[1].ids))
    out = []
    for q, row in rows:
        fits = out and len(out[-1]) < size and (len(out[-1]) + 1) * len(out[-1][0][1].ids) <= cfg.tokens_at_once
        if not fits or sum(predictions(r) for _, r in out[-1] + [(q, row)]) > cfg.logp_chunk:           # head_logps cuts anywhere
            out.append([])
        out[-1].append((q, row))
    return [block for block in out if len(block) > 1]


def predictions(row):
    return len(row.sources)


class Block:
    """Hooks on every module that holds a parameter: one on its forward pass, which puts one on the gradient of its output.

    stream: influence.Streaming, which knows g_dev, and the direction of a gradient.
    """

    def __init__(self, solver, stream, rows):
        self.params, self.stream = solver.params, stream
        self.lengths = [predictions(row) for row in rows]                   # (Q,)
        self.uses, self.partial, self.sums, self.weights, self.handles = Counter(), {}, [], {}, []
        self.room = {}                                                      # where products go: fresh memory costs more than they do
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
            parts = list(zip(dy.split(self.lengths), x.split(self.lengths)))
            self.add(module.weight, torch.stack([d.T @ a for d, a in parts]))                   # (Q, out, in)
            biases = lambda: torch.stack([d.sum(0) for d, _ in parts])
        else:
            room = self.room.setdefault(dy.dtype, dy.new_empty(0)).resize_(len(x) * module.weight.numel())
            self.add(module.weight, torch.bmm(dy.transpose(1, 2), x, out=room.view(len(x), *module.weight.shape)))
            biases = lambda: dy.sum(1)
        if module.bias is not None:
            self.add(module.bias, biases())                                                     # (Q, out)

    def embedding(self, module, args, y):
        self.uses[module.weight] += 1
        y.requires_grad_().register_hook(lambda dy: self.embedding_gradients(module, args[0], dy))

    def embedding_gradients(self, module, ids, dy):
        """(Q, L) ids, (Q, L, H) dy. Like autograd, nothing for the padding token."""
        Q, (V, H) = len(ids), module.weight.shape
        if module.padding_idx is not None:
            dy = dy.masked_fill((ids == module.padding_idx)[:, :, None], 0)
        places = ids + V * torch.arange(Q, device=ids.device)[:, None]
        self.add(module.weight, dy.new_zeros(Q * V, H).index_add_(0, places.flatten(), dy.flatten(0, 1)).view(Q, V, H))

    def lend(self, module, args):
        """Q copies of the weight instead of one, each over the row of its question."""
        p = self.weights[module] = module.weight
        self.uses[p] += 1
        copies = p.detach().expand(len(self.lengths), *[1] * (args[0].dim() - 2), -1).requires_grad_()        # (Q, 1, H) or (Q, 1, 1, H)
        copies.register_hook(lambda g: self.add(p, g.flatten(1)))
        module._parameters["weight"] = copies

    def give_back(self, module, args, y):
        module._parameters["weight"] = self.weights.pop(module)

    def add(self, p, g):
        """One module's share of the Q gradients of p. With the last share they are complete, and are used up."""
        self.uses[p] -= 1
        if p in self.partial:
            g = g + self.partial.pop(p)
        if self.uses[p]:
            self.partial[p] = g.clone()
        elif p in self.stream.g_dev:
            self.sums += self.stream.sums_of(p, g.flatten(1))


def block_sums(solver, stream, questions, answers, A_sol, denominator, cfg):
    """Questions -> {q: (3,) <g_dev, direction>, |direction|^2, |g_q|^2} of those that can share a pass; {} of a large or unknown model."""
    out = {}
    for pairs in tqdm(blocks(solver, questions, answers, cfg), desc="influence", unit="block", leave=False, disable=not ranks.is_main()):
        rows = [row for _, row in pairs]
        block = Block(solver, stream, rows)
        with block.hooked():
            loss, _ = batch_loss(solver, rows, A_sol, denominator, cfg)
            if any(p not in block.uses for p in solver.params):             # it is used elsewhere than in its module's forward
                return {}
            loss.backward()
        out |= {q: sums for (q, _), sums in zip(pairs, torch.stack(block.sums).sum(dim=0).T)}
    return out
