"""What one fused pass would make of the sums of scoring: tried, measured, and not used.

    ours       engine/scoring.py: operator by operator, over pieces that a cache holds
    compiled   torch.compile makes one loop of it: root, quotient and all three sums
    without    no sums at all, and no scores: what no faster sums can beat

torch.compile needs a C++ compiler. What came out is in docs/results/speed.md.
"""
import math
import shutil
from unittest.mock import patch

import torch

from engine.scoring import Pieces
from influence import influence_scores
from tools.baselines import Skipped

# elements that are summed at once, so that rounding does not grow with the piece
LINE = 4096


def line_sums(g, v, g_dev, square, eps):
    """(Q, lines, n) g, (lines, n) v and g_dev -> (3, Q, lines) sums of scale Gamma, as in scoring.
    """
    direction = g / (torch.sqrt(v + square * g * g) + eps)
    sums = [direction * g_dev, direction * direction, g * g]
    return torch.stack([x.sum(-1) for x in sums])


def sums_by(kernel):
    """line_sums, compiled or not -> a function that stands in for Pieces.of."""
    def of(self, p, g, start=0):
        v, k = self.history[p]
        n = math.gcd(g.shape[1], LINE)
        here = slice(start, start + g.shape[1])
        scale = math.sqrt(self.cfg.beta2 / (1 - self.cfg.beta2 ** (k + 1)))
        square = torch.tensor((1 - self.cfg.beta2) / self.cfg.beta2)
        eps = torch.tensor(self.cfg.adam_eps / scale)

        lines = [x.reshape(-1, n) for x in (v[here], self.g_dev[p][here])]
        sums = kernel(g.reshape(len(g), -1, n), *lines, square, eps).sum(-1)        # (3, Q)
        sums[1:] = sums[1:].sqrt()
        return sums / self.divisor(scale)
    return of


def no_sums(self, p, g, start=0):
    return g.new_zeros(3, len(g))


def scores_by(of, w):
    """World -> (Q,) s_hat with other sums."""
    with patch.object(Pieces, "of", of):
        return influence_scores(w.policy, w.answers, w.A, w.g_dev, w.cfg)[0]


def compiled_scores(w):
    if not shutil.which("g++"):
        raise Skipped("torch.compile needs a C++ compiler, and g++ is not here")
    return scores_by(sums_by(torch.compile(line_sums, dynamic=True, fullgraph=True)), w)
