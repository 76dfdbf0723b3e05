"""How useful is a question? The cosine between the dev set's gradient and the direction in which
AdamW would move the solver if it trained on the question.

    g_dev = gradient of  sum over the kept dev answers' tokens of  -A w logp / (N_dev Tbar_dev)
    g_q   = gradient of  sum over the m answers to q and their tokens of -A w logp / (m Tbar_gen)
    v'    = beta2 v + (1 - beta2) g_q^2,    t = k + 1
    Gamma = g_q / ( sqrt( v' / (1 - beta2^t) ) + eps )
    s_hat = <g_dev, Gamma> / ( |g_dev| |Gamma| )

    code       symbol   shape       meaning
    answers             (Q, m)      rollouts of the solver, on generated or on dev questions
    N, Tbar                         kept answers, those of mixed groups, and their mean length
    A_sol      A_sol    (Q, m)      correctness advantages; a group of zeros has no gradient
    g_dev      g_dev    like theta  list of tensors; None when no dev group has a gradient
    v, k       v, k     like theta  second moment and step count of the solver's AdamW: only read
    s_hat      s_hat    (Q,)        the generator's reward
    own_share           (Q,)        share of g_q^2 in v': 1 without a history, small with one

Both are gradients of losses, so the signs cancel: s_hat > 0 says that a solver step on this
question also lowers the dev loss. s_hat is not invariant to the scale of g_q, since v' holds g_q^2
beside the history. With no history (v = 0, t = 1) Gamma is about sign(g_q). No first moment,
learning rate or weight decay in Gamma: they are common to all questions, or only scale it.
"""
import contextlib
import math

import torch

from dugrpo import kept_groups
from engine import ranks, scoring, shard
from engine.blocks import block_sums
from engine.packing import dealt_longest_first, even_passes, passes
from engine.progress import bar as progress_bar
from policy import mean_length, pass_loss


# ---------------------------------------------------------------- the definition, on tensors alone

def Gamma(g, v, k, beta2=0.999, eps=1e-8):
    """Gradient g, AdamW's second moment v and step count k -> g divided as AdamW would divide it.

    All of one shape; v is not changed. Below a step with a history, and AdamW's first, a sign.
    Training computes the same by scaled_Gamma, below: whoever changes one changes both.

    >>> Gamma(torch.tensor([2., -4.]), torch.tensor([4., 9.]), 6, beta2=0.9, eps=0.2)
    tensor([ 0.6736, -0.8865])
    >>> Gamma(torch.tensor([2., -3.]), torch.zeros(2), 0)
    tensor([ 1., -1.])
    """
    v_new = beta2 * v + (1 - beta2) * g ** 2
    return g / ((v_new / (1 - beta2 ** (k + 1))).sqrt() + eps)


def scaled_Gamma(g, v, k, beta2, eps, out=None):
    """-> (scale Gamma, scale): Gamma with an operation less per element, for influence_scores.

        scale Gamma = g / ( sqrt( v + g^2 (1 - beta2) / beta2 ) + eps / scale )
        scale^2     = beta2 / (1 - beta2^t)

    Written over `out`, never over v; the scale is divided out, so another direction may return 1.
    """
    scale = math.sqrt(beta2 / (1 - beta2 ** (k + 1)))
    root = torch.addcmul(v, g, g, value=(1 - beta2) / beta2, out=out).sqrt_()
    return torch.div(g, root.add_(eps / scale), out=root), scale


def dot(a, b):
    """Two lists of tensors -> their inner product, in fp32."""
    return sum(torch.dot(x.flatten().float(), y.flatten().float()) for x, y in zip(a, b))


def cosine(a, b):
    """Two lists of tensors -> their cosine; norms are floored at 1e-12."""
    return dot(a, b) / (dot(a, a).sqrt().clamp(min=1e-12) * dot(b, b).sqrt().clamp(min=1e-12))


def similarity(g_dev, g_q, moments, cfg):
    """Lists of tensors like theta, [(v, k)] -> s_hat of one question, by the definition above.

    cfg.similarity: preconditioned_cosine (the method), cosine (raw g_q, the SGD ablation),
    preconditioned_dot, dot.
    """
    direction = g_q
    if cfg.similarity.startswith("preconditioned"):
        direction = [Gamma(g, v, k, cfg.beta2, cfg.adam_eps) for g, (v, k) in zip(g_q, moments)]
    return (cosine if cfg.similarity.endswith("cosine") else dot)(g_dev, direction)


# ---------------------------------------------------------------- gradients of a model

def second_moment(optimizer, p):
    """(v, k) of one parameter, or of this rank's slice of it.

    Before AdamW's first step a zero expanded to its shape, which takes no memory.
    """
    state, mine = optimizer.state.get(p), shard.local(p)
    if not state:
        return mine.new_zeros(()).expand_as(mine), 0
    return shard.local(state["exp_avg_sq"]), int(state["step"])


@contextlib.contextmanager
def borrowed_gradients(params):
    """Lend the .grad slots of `params`, empty; give back what was in them."""
    before = [p.grad for p in params]
    for p in params:
        p.grad = None
    try:
        yield
    finally:
        for p, grad in zip(params, before):
            p.grad = grad


def gradient(solver, groups, A_sol, denominator, cfg, what="gradient"):
    """(q, group) pairs, the (Q, m) advantages of all -> gradient of their loss, like theta.

    One accumulation: unclipped, not preconditioned. Ranks divide the groups.
    """
    with borrowed_gradients(solver.params):
        trees_of_passes = passes(solver, ranks.share(dealt_longest_first(groups)), cfg)
        for trees in progress_bar(even_passes(solver, trees_of_passes), desc=what, unit="pass"):
            loss, _ = pass_loss(solver, trees, A_sol, denominator, cfg)
            loss.backward()
        if not solver.sharded:
            ranks.sum_gradients(solver.params)
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in solver.params]


def dev_gradient(solver, answers, A_sol, cfg):
    """(M, m) answers to the dev questions -> g_dev in the order of solver.params, or None.

    None if no group is mixed, and also, counted in solver.skipped, if it is not finite.
    """
    kept = kept_groups(answers, A_sol)
    if not kept:
        return None
    solver.wake()
    groups = [group for _, group in kept]
    N_dev = sum(map(len, groups))
    g_dev = gradient(solver, kept, A_sol, N_dev * mean_length(groups), cfg, what="g_dev")
    if math.isfinite(norm(g_dev)):
        return g_dev
    solver.skipped += 1
    return None


def norm(g):
    """Euclidean norm of a list of tensors, whole or in shards; None of None."""
    if g is None:
        return None
    squares = torch.stack([shard.local(part).square().sum() for part in g])
    return float(shard.total(squares.sum(), g[0]).sqrt())


# ---------------------------------------------------------------- s_hat, the plain way

def plain_scores(solver, answers, A_sol, g_dev, cfg):
    """(Q, m) answers -> (Q,) s_hat: each question's whole gradient, Gamma, the cosine.

    On one rank. This is what influence_scores below computes without holding every g_q whole.
    """
    s_hat = torch.zeros(len(answers))
    kept = kept_groups(answers, A_sol)
    if g_dev is None or not kept:
        return s_hat
    Tbar = mean_length([group for _, group in kept])
    moments = [second_moment(solver.optimizer, p) for p in solver.params]
    for q, group in kept:
        g_q = gradient(solver, [(q, group)], A_sol, len(group) * Tbar, cfg)
        s_hat[q] = similarity(g_dev, g_q, moments, cfg)
    return s_hat


# ---------------------------------------------------------------- s_hat, streamed by hooks

class Streaming:
    """Sums of one question's direction, collected tensor by tensor while its backward pass runs.

    A hook on every parameter fires when the question's gradient for that tensor is complete, takes
    <g_dev, direction>, |direction| and |g_q| of it, and drops the gradient. arm(): the next
    backward pass is the question's last one, so each gradient is final when its hook fires; before
    that, gradients just accumulate. Memory: g_dev and the largest tensor, or a whole gradient for
    a question that takes several passes.
    """

    def __init__(self, solver, g_dev, cfg):
        moments = [second_moment(solver.optimizer, p) for p in solver.params]
        self.params = solver.params
        self.pieces = scoring.Pieces(solver, g_dev, moments, scaled_Gamma, cfg)
        self.handles = [p.register_post_accumulate_grad_hook(self.take) for p in solver.params]
        self.armed, self.sums = False, []

    def arm(self):
        self.armed = True

    def take(self, p):
        """The hook of parameter p: its gradient has just been completed."""
        if self.armed:
            self.sums += self.pieces.of_whole(p, shard.local(p.grad))
            p.grad = None

    def finish(self):
        """-> (3,) <g_dev, direction>, |direction|^2, |g_q|^2 of the question; ready for the next.
        """
        for p in self.params:
            # touched by an earlier pass of the question but not by its last
            if p.grad is not None:
                self.take(p)
        sums = self.pieces.total(self.sums)[:, 0]
        self.armed, self.sums = False, []
        return sums

    def close(self):
        for handle in self.handles:
            handle.remove()


def influence_scores(solver, answers, A_sol, g_dev, cfg):
    """(Q, m) answers to the generated questions -> (Q,) s_hat, (Q,) own_share.

    Zero where a group is all equal; all zero without a g_dev. Weights, gradients, optimizer and
    random state are left bit for bit as they were. No question's gradient is ever mixed with
    another's. Equal to plain_scores (tests/test_influence.py).
    """
    s_hat, own_share = torch.zeros(2, len(answers))
    kept = kept_groups(answers, A_sol)
    if g_dev is None or not kept:
        return s_hat, own_share
    Tbar = mean_length([group for _, group in kept])
    denominator = len(answers[0]) * Tbar
    # dealt in turn, so that ranks end within one question of each other
    kept = [q for q, _ in dealt_longest_first(kept)]
    solver.wake()
    norm_dev = max(norm(g_dev), 1e-12)

    # A solver in shards: each rank scores questions of its own with all weights gathered, or all
    # ranks divide the answers of one question (docs/results/memory.md has the costs).
    together = scoring.together(solver, cfg)
    scorer = solver
    if solver.sharded and not together:
        scorer = solver.whole()
        g_dev = [shard.whole(g.to(p.dtype)) for g, p in zip(g_dev, scorer.params)]
    mine = kept if together else ranks.share(kept)

    def loss_of(trees):
        return pass_loss(scorer, trees, A_sol, denominator, cfg)[0]

    stream, sums = Streaming(scorer, g_dev, cfg), []
    try:
        with borrowed_gradients(scorer.params):
            # Only speed: questions that fit one tree each share a pass. It changes no score.
            blocks = {}
            if not together:
                blocks = block_sums(scorer, stream.pieces, mine, answers, loss_of, cfg)
            for q in progress_bar(mine, desc="influence", unit="question"):
                if q not in blocks:
                    pair = q, answers[q]
                    blocks[q] = stream_question(scorer, stream, pair, loss_of, together, cfg)
                sums.append(blocks[q])
    finally:
        stream.close()

    # From every rank's sums to the scores of all questions.
    sums = torch.stack(sums) if sums else torch.zeros(0, 3)
    if together:
        sums = shard.total(sums, scorer.params[0]).tolist()
    else:
        sums = ranks.gather(sums.tolist(), len(kept))
    product, squares, g_squares = torch.tensor(sums).T                              # (kept,) each
    s_hat[kept] = product
    if cfg.similarity.endswith("cosine"):
        s_hat[kept] = product / (norm_dev * squares.sqrt().clamp(min=1e-12))
    own = (1 - cfg.beta2) * g_squares
    history = cfg.beta2 * scoring.sum_of_moments(scorer, second_moment)
    own_share[kept] = own / (history + own).clamp(min=1e-30)

    # a gradient that is not finite scores 0 and is counted, as such an update is
    solver.skipped += int((~s_hat.isfinite()).sum())
    return s_hat.nan_to_num(0.0, 0.0, 0.0), own_share.nan_to_num(0.0, 0.0, 0.0)


def stream_question(scorer, stream, pair, loss_of, together, cfg):
    """One (q, group) in its passes, the last one streamed -> its (3,) sums."""
    divided = dict(parts=ranks.world(), part=ranks.rank()) if together else {}
    todo = even_passes(scorer, passes(scorer, [pair], cfg, **divided))
    for i, trees in enumerate(todo):
        loss = loss_of(trees)
        if i == len(todo) - 1:
            stream.arm()
        loss.backward()
    return stream.finish()
