"""Scores gradients in pieces: the sums that s_hat is made of, with one temporary of the size of a
piece.

    sums of a piece   <g_dev, direction>,  |direction|,  |g|        direction = Gamma, or g itself

Gamma comes times a scale (influence.scaled_Gamma), by which the sums are divided afterwards. Equal
to influence.plain_scores up to rounding (tests/test_influence.py).

    code     shape        meaning
    Q                     questions whose gradients are scored side by side
    g        (Q, n)       their gradients for n elements of one parameter
    sums     (3, Q)       of one piece
"""
import math

import torch

from engine import shard

# Elements of a gradient taken at a time: what stays in a core's cache; enough to keep a GPU busy.
PIECE = {"cpu": 2 ** 18, "cuda": 2 ** 24}


def as_vector(t):
    """-> (n,) view of a tensor, or of a zero that was expanded: flatten() would write that out."""
    return t.flatten() if t.is_contiguous() else t.as_strided((t.numel(),), (0,))


def row_products(rows, vector):
    """(Q, n) @ (n,) -> (Q,).

    On CUDA row by row: cuBLAS gives a product of one row and a vector to a few of the GPU's
    processors, and a dot to all of them. On a CPU at once.
    """
    if rows.is_cuda:
        return by_row(rows, vector)
    return rows @ vector


def by_row(rows, vector):
    return torch.stack([torch.dot(row, vector) for row in rows])


class Pieces:
    """What a piece of a gradient is compared with: g_dev, and AdamW's v and k.

    moments: [(v, k)] like params. scaled_Gamma: influence's function of that name.
    """

    def __init__(self, solver, g_dev, moments, scaled_Gamma, cfg):
        self.device, self.cfg, self.scaled_Gamma = solver.device, cfg, scaled_Gamma
        self.preconditioned = cfg.similarity.startswith("preconditioned")
        # views
        self.g_dev = {p: shard.local(g).flatten() for p, g in zip(solver.params, g_dev)}
        self.history = {p: (as_vector(v), k) for p, (v, k) in zip(solver.params, moments)}
        self.size = PIECE[solver.device.type]
        self.room = torch.empty(0, device=solver.device)
        self.divisors = {}

    def of_whole(self, p, g):
        """One question's gradient of p -> list of its pieces' (3, 1) sums."""
        g = g.flatten()[None]
        starts = range(0, g.numel(), self.size)
        return [self.of(p, g[:, a:a + self.size], a) for a in starts]

    def of(self, p, g, start=0):
        """(Q, n) gradients of n elements of p, from `start` on -> (3, Q) sums.

        .float(): a sharded solver's whole copy may be in bf16.
        """
        g = g.float()
        here = slice(start, start + g.shape[1])
        direction, scale = g, 1.0
        if self.preconditioned:
            v, k = self.history[p]
            # memory is taken once, for the largest piece
            room = self.room.resize_(g.numel()).view_as(g)
            direction, scale = self.scaled_Gamma(
                g, v[here].float(), k, self.cfg.beta2, self.cfg.adam_eps, out=room)
        norms = [torch.linalg.vector_norm(x, dim=1) for x in (direction, g)]
        products = row_products(direction, self.g_dev[p][here].float())
        return torch.stack([products, *norms]).div_(self.divisor(scale))

    def divisor(self, scale):
        """-> (3, 1): the first two sums are of scale Gamma."""
        if scale not in self.divisors:
            self.divisors[scale] = torch.tensor([[scale], [scale], [1.0]], device=self.device)
        return self.divisors[scale]

    @staticmethod
    def total(sums):
        """(3, Q) of each piece -> (3, Q) <g_dev, direction>, |direction|^2, |g|^2 of all of them.
        """
        pieces = torch.stack(sums)                                                  # (pieces, 3, Q)
        return torch.cat([pieces[:, :1].sum(dim=0), pieces[:, 1:].square().sum(dim=0)])


def sum_of_moments(solver, second_moment):
    """() the sum of v over all parameters, whole or in shards."""
    sums = [second_moment(solver.optimizer, p)[0].sum(dtype=torch.float32) for p in solver.params]
    return shard.total(torch.stack(sums).sum(), solver.params[0]).cpu()


# ---------------------------------------------------------------- a solver in shards

def together(solver, cfg):
    """Do all ranks score one question at a time?"""
    if not solver.sharded:
        return False
    memory = math.inf
    if solver.device.type == "cuda":
        memory = torch.cuda.get_device_properties(solver.device).total_memory
    P = sum(p.numel() for p in solver.params)
    return too_large(cfg, P, 2 if solver.bf16 else 4, memory)


def too_large(cfg, P, b, memory):
    """Are P parameters of b bytes too many to gather on a device with so many bytes of memory?"""
    return cfg.scoring == "together" or (cfg.scoring == "auto" and 4 * b * P > memory / 2)
