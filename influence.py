"""How useful is a question? The cosine between the dev set's gradient and the direction AdamW would move the solver in if it trained on the question.

    g_dev = gradient of  sum over kept dev rows and tokens of -A w logp / (N_dev Tbar_dev)
    g_q   = gradient of  sum over the m rows of q and their tokens of -A w logp / (m Tbar_gen)
    v'    = beta2 v + (1 - beta2) g_q^2,    t = k + 1
    Gamma = g_q / ( sqrt( v' / (1 - beta2^t) ) + eps )
    s_hat = <g_dev, Gamma> / ( |g_dev| |Gamma| )

    code       symbol      shape            meaning
    answers                (Q, m)           rollouts of the solver, on generated or on dev questions
    A_sol      A_sol       (Q, m)           correctness advantages; a row of zeros is a group whose rewards are all equal: it has no gradient
    g_dev      g_dev       like params      list of tensors; None when every dev group is all right or all wrong
    v, k       v, k        like params, ()  the second moment and the step count of the solver's AdamW: read here, never changed
    s_hat      s_hat       (Q,)             the generator's reward
    own_share              (Q,)             share of the question's own g_q^2 in v', over all elements: 1 without a history, small beside a long one

Both gradients are gradients of losses, so the signs cancel: s_hat > 0 says that a solver step on this question also lowers the dev loss.

s_hat is not invariant to the scale of g_q: v' holds g_q^2 beside the history, so a question with a large gradient rescales itself more. With no history
(the first iteration: v = 0, t = 1) Gamma is about sign(g_q). Losing v on resume would silently change the reward, so it is always in the checkpoint.

How it is computed: a hook on every parameter fires when the question's gradient for that tensor is complete, forms Gamma, adds its part of the dot
product and of the norm, and drops the gradient. Memory: g_dev, plus the largest tensor twice. Only a question that needs several passes accumulates its
whole gradient, until the last one. Where the model is so small that operators cost more than arithmetic, questions share a pass, each with a
gradient of its own, for three times 4 MiB and the activations of their rows: influence_block.py. Without that file's one call below nothing but time changes.

The result is that of the plain way: a padded row per answer, the whole gradient, a pass over all parameters (tests/test_influence.py).
No first moment, learning rate or weight decay in Gamma: those are common to all questions, or only scale it.

On k ranks each rank scores questions of its own, longest first and dealt in turn: all end within one question of each other. No gradient is
ever communicated. A solver in shards (shard.py) is gathered once per stage: weights, g_dev and v, whole on every rank, in bf16 on CUDA and in
fp32 on a CPU. With P parameters and Q questions, in bytes per rank on CUDA, beside the shards (16 P / k, g_dev among them) and the activations:

                                         held             moved               P = 8.2 G, k = 8, Q = 1,024 (computed, not run)
    each rank its own questions (ours)   6 P              6 P per stage       49 GB held, 0.04 TB moved
    all ranks on one question, by FSDP   two layers       8 P per question    59 TB moved
    own questions, and weights, g_dev    two layers of    12 P per k          11 TB moved
      and v gathered layer by layer        all three        questions

What is moved counts (k - 1) / k times. Ours holds 2 P more while a question that needs several passes accumulates its gradient. It fits a
solver of 8B on 80 GB; for 14B and more the last way would have to be built. bf16 rounds each element of g_dev and v by at most 0.4 %; sums
are taken in fp32.
"""
import contextlib
import math

import torch
from tqdm import tqdm

import ranks
import shard
from influence_block import block_sums
from policy import batch_loss, even_passes, mean_length, micro_batches


def Gamma(g, v, k, beta2=0.999, eps=1e-8):
    """Gradient g, AdamW's second moment v and step count k -> the direction AdamW would move in, same shape; v is not changed.

    >>> Gamma(torch.tensor([2., -4.]), torch.tensor([4., 9.]), 6, beta2=0.9, eps=0.2)       # warm
    tensor([ 0.6736, -0.8865])
    >>> Gamma(torch.tensor([2., -3.]), torch.zeros(2), 0)                                   # cold: the sign
    tensor([ 1., -1.])
    """
    correction = 1 - beta2 ** (k + 1)
    v_hat = (v * (beta2 / correction)).addcmul_(g, g, value=(1 - beta2) / correction)       # v' / (1 - beta2^t), a tensor of our own
    return torch.div(g, v_hat.sqrt_().add_(eps), out=v_hat)                 # written over it: one temporary, however large the tensor


def second_moment(optimizer, p):
    """(v, k) of one parameter; before AdamW's first step a zero that only looks like the parameter, and takes no memory."""
    state = optimizer.state.get(p)
    if not state:
        return p.new_zeros(()).expand_as(p), 0
    return state["exp_avg_sq"], int(state["step"])


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


def has_gradient(A):
    """(Q, m) advantages -> (Q,) booleans: which groups have a gradient at all."""
    return (A != 0).any(dim=1)


def dev_gradient(solver, answers, A_sol, cfg):
    """(M, m) answers to the dev questions -> g_dev as a list of tensors in the order of solver.params, or None if no group is mixed.

    Also None, and counted in solver.skipped, if it is not finite. One accumulation over all kept groups: unclipped, not preconditioned.
    """
    kept = [(q, answers[q]) for q in has_gradient(A_sol).nonzero()[:, 0].tolist()]
    if not kept:
        return None
    solver.wake()
    denominator = sum(len(group) for _, group in kept) * mean_length([group for _, group in kept])          # N_dev Tbar_dev
    with borrowed_gradients(solver.params):
        batches = even_passes(solver, micro_batches(solver, ranks.share(kept), cfg))
        for rows in tqdm(batches, desc="g_dev", unit="batch", leave=False, disable=not ranks.is_main()):
            loss, _ = batch_loss(solver, rows, A_sol, denominator, cfg)
            loss.backward()
        if not solver.sharded:
            ranks.sum_gradients(solver.params)
        g_dev = [torch.zeros_like(p) if p.grad is None else p.grad for p in solver.params]
    if math.isfinite(norm(g_dev)):
        return g_dev
    solver.skipped += 1
    return None


def norm(g):
    """Euclidean norm of a list of tensors, whole or in shards; None of None."""
    return None if g is None else float(shard.total(torch.stack([shard.local(part).square().sum() for part in g]).sum(), g[0]).sqrt())


def dev_ema(average, g_dev, decay):
    """Running mean of g_dev: first value g, then decay m + (1 - decay) g. decay 0 (the paper's recipes): g itself. None without a g_dev."""
    if not decay or g_dev is None or average is None:
        return g_dev
    return [decay * a + (1 - decay) * g for a, g in zip(average, g_dev)]


class Streaming:
    """Dot product and norm of one question's direction, and the norm of its gradient, collected tensor by tensor while its backward pass runs.

    arm(): the next backward pass is the question's last one, so each gradient is final when its hook fires. Before that, gradients just accumulate.
    """

    def __init__(self, solver, g_dev, preconditioned, cfg):
        self.solver, self.preconditioned, self.cfg = solver, preconditioned, cfg
        self.g_dev = {p: g.flatten() for p, g in zip(solver.params, g_dev)}                 # views
        self.history = {p: second_moment(solver.optimizer, p) for p in solver.params} if preconditioned else {}
        self.handles = [p.register_post_accumulate_grad_hook(self.take) for p in solver.params]
        self.armed, self.sums = False, []

    def arm(self):
        self.armed = True

    def take(self, p):
        """The hook of parameter p: its gradient has just been completed."""
        if not self.armed:
            return
        g = p.grad.float()                                                  # .float(): a sharded solver's whole copy may be in bf16
        g, direction = g.flatten(), self.direction(p, g).flatten()
        self.sums.append(torch.stack([torch.dot(self.g_dev[p].float(), direction), torch.dot(direction, direction), torch.dot(g, g)]))
        p.grad = None

    def direction(self, p, g):
        """A gradient of p, or several stacked -> Gamma, or the gradient itself where nothing is preconditioned."""
        if not self.preconditioned:
            return g
        v, k = self.history[p]
        return Gamma(g, v.float().expand_as(g), k, self.cfg.beta2, self.cfg.adam_eps)

    def finish(self):
        """-> (<g_dev, direction>, |direction|, |g_q|^2) of the question, ready for the next one."""
        for p in self.solver.params:
            if p.grad is not None:                                          # touched by an earlier pass of the question but not by its last
                self.take(p)
        dot, squares, g_squares = torch.stack(self.sums).sum(dim=0)
        self.armed, self.sums = False, []
        return dot, squares.sqrt(), g_squares

    def close(self):
        for handle in self.handles:
            handle.remove()


def influence_scores(solver, answers, A_sol, g_dev, cfg):
    """(Q, m) answers to the generated questions -> (Q,) s_hat, (Q,) own_share. Zero where a group is all equal; all zero without a g_dev.

    cfg.similarity: preconditioned_cosine (the method), cosine (raw g_q), preconditioned_dot, dot. Weights, gradients, optimizer and random state are left
    bit for bit as they were. Each rank scores its own questions. No question's gradient is ever mixed with another's.
    """
    s_hat, own_share = torch.zeros(2, len(answers))
    kept = has_gradient(A_sol).nonzero()[:, 0].tolist()
    if g_dev is None or not kept:
        return s_hat, own_share
    Tbar = mean_length([answers[q] for q in kept])
    kept.sort(key=lambda q: -sum(len(rollout.response) for rollout in answers[q]))         # dealt in turn: ranks end within one question
    solver.wake()
    norm_dev = max(norm(g_dev), 1e-12)
    whole = solver.whole() if solver.sharded else solver
    g_dev = [shard.whole(g.to(p.dtype)) for g, p in zip(g_dev, whole.params)]
    v_sum = sum(float(second_moment(whole.optimizer, p)[0].sum(dtype=torch.float32)) for p in whole.params)
    scores = []                                                             # [s_hat, own_share] of each question this rank scores
    stream = Streaming(whole, g_dev, cfg.similarity.startswith("preconditioned"), cfg)
    try:
        with borrowed_gradients(whole.params):
            mine = ranks.share(kept)
            blocks = block_sums(whole, stream, mine, answers, A_sol, len(answers[0]) * Tbar, cfg)           # {} of all but small models
            for q in tqdm(mine, desc="influence", unit="question", leave=False, disable=not ranks.is_main()):
                passes = [] if q in blocks else micro_batches(whole, [(q, answers[q])], cfg)
                for i, rows in enumerate(passes):
                    loss, _ = batch_loss(whole, rows, A_sol, len(answers[q]) * Tbar, cfg)
                    if i == len(passes) - 1:
                        stream.arm()
                    loss.backward()
                dot, length, g_squares = blocks[q] if q in blocks else stream.finish()
                score = dot / (norm_dev * length.clamp(min=1e-12)) if cfg.similarity.endswith("cosine") else dot
                own = (1 - cfg.beta2) * g_squares
                scores.append([float(score), float(own / (cfg.beta2 * v_sum + own).clamp(min=1e-30))])
    finally:
        stream.close()
    s_hat[kept], own_share[kept] = torch.tensor(ranks.gather(scores, len(kept))).T
    solver.skipped += int((~s_hat.isfinite()).sum())        # a gradient that is not finite scores 0 and is counted, as such an update is
    return s_hat.nan_to_num(0.0, 0.0, 0.0), own_share.nan_to_num(0.0, 0.0, 0.0)
