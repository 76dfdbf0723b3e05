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

How it is computed, with nothing of the size of the model written per question. A question in one row, if autograd keeps its activations, goes
by influence_block.py: hooks on the modules form its gradient some rows of a weight at a time, Gamma and its sums are taken while they are in the
cache, and short questions share a pass. Otherwise a hook on every parameter fires when the question's gradient for that tensor is complete,
takes the same sums piece by piece, and drops the gradient. Memory: g_dev, and a piece, or the largest tensor and a piece. Only a question that
needs several passes accumulates its whole gradient, until the last one. Without influence_block.py's one call below nothing but time and memory
changes.

The result is that of the plain way: a padded row per answer, the whole gradient, a pass over all parameters (tests/test_influence.py).
No first moment, learning rate or weight decay in Gamma: those are common to all questions, or only scale it.

On k ranks that hold whole copies, each scores questions of its own, longest first and dealt evenly (ranks.evenly): all end within one question of each
other, and no gradient is ever communicated. With a solver in shards (shard.py) there are two ways (--scoring):

    alone       the same, with weights, g_dev and v gathered once per stage, whole on every rank, in bf16 on CUDA and in fp32 on a CPU
    together    the ranks divide the answers of one question. FSDP gathers layers and adds up gradients as in an update; the hook then sees
                this rank's slice of g_q, beside the slices of v and g_dev that are here already. Nothing is gathered; three numbers are added up

With P parameters and Q questions, in bytes per rank on CUDA, beside the shards (16 P / k, g_dev among them) and the activations; what is moved
counts (k - 1) / k times:

                 held             moved                        P = 8.2 G, k = 8, Q = 1,024 (computed, not run)
    alone        6 P, or 8 P      6 P per stage                49 or 66 GB held, 0.04 TB moved
    together     4 P / k, and     8 P per question and pass    4 GB and 3 GB of layers held, 59 TB moved
                   two layers

8 P is for questions that need several passes, whose gradient accumulates. `together` moves a gradient per question, which is what `alone` is there
to avoid, so it is only taken where 8 P are more than half of a GPU: from 5B on 80 GB. Answers are long there and FSDP moves
layers while others compute, so that on one node it takes about as long (plan.py); ranks beyond the m answers of a question are idle. Its sums
are of fp32 slices; `alone` rounds each element of g_dev and v to bf16, by at most 0.4 %.
"""
import contextlib
import math

import torch
from tqdm import tqdm

import ranks
import shard
from influence_block import block_sums
from policy import batch_loss, even_passes, longest_first, mean_length, micro_batches

PIECE = {"cpu": 2 ** 18, "cuda": 2 ** 24}       # elements of a gradient taken at a time: what stays in a core's cache; enough to keep a GPU busy


def Gamma(g, v, k, beta2=0.999, eps=1e-8):
    """Gradient g, AdamW's second moment v and step count k -> the direction AdamW would move in, same shape; v is not changed.

    >>> Gamma(torch.tensor([2., -4.]), torch.tensor([4., 9.]), 6, beta2=0.9, eps=0.2)       # warm
    tensor([ 0.6736, -0.8865])
    >>> Gamma(torch.tensor([2., -3.]), torch.zeros(2), 0)                                   # cold: the sign
    tensor([ 1.0000, -1.0000])
    """
    direction, scale = scaled_Gamma(g, v, k, beta2, eps)
    return direction.div_(scale)


def scaled_Gamma(g, v, k, beta2, eps, out=None):
    """-> (scale Gamma, scale): Gamma for one operator less over all parameters, since a sum can be divided by the scale afterwards.

    v' / (1 - beta2^t) = scale^2 (v + g^2 (1 - beta2) / beta2),  so  scale Gamma = g / ( sqrt( v + g^2 (1 - beta2) / beta2 ) + eps / scale )
    """
    scale = math.sqrt(beta2 / (1 - beta2 ** (k + 1)))
    root = torch.addcmul(v, g, g, value=(1 - beta2) / beta2, out=out).sqrt_()                               # never v itself
    return torch.div(g, root.add_(eps / scale), out=root), scale            # written over it: one temporary


def second_moment(optimizer, p):
    """(v, k) of one parameter, or of this rank's slice of it; before AdamW's first step a zero that only looks like it, and takes no memory."""
    state, mine = optimizer.state.get(p), shard.local(p)
    if not state:
        return mine.new_zeros(()).expand_as(mine), 0
    return shard.local(state["exp_avg_sq"]), int(state["step"])


def flat(t):
    """-> (n,) view of a tensor, or of a zero that was expanded: flatten() would write that out."""
    return t.flatten() if t.is_contiguous() else t.as_strided((t.numel(),), (0,))


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
        batches = even_passes(solver, micro_batches(solver, ranks.share(longest_first(kept)), cfg))
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


def together(solver, cfg):
    """Do all ranks score one question at a time?"""
    memory = torch.cuda.get_device_properties(solver.device).total_memory if solver.device.type == "cuda" else math.inf
    return solver.sharded and too_large(cfg, sum(p.numel() for p in solver.params), 2 if solver.bf16 else 4, memory)


def too_large(cfg, P, b, memory):
    """Should P parameters, in b bytes each, not be gathered to score alone on a device of so many bytes?"""
    return cfg.scoring == "together" or (cfg.scoring == "auto" and 4 * b * P > memory / 2)


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
        self.g_dev = {p: shard.local(g).flatten() for p, g in zip(solver.params, g_dev)}                 # views
        moments = {p: second_moment(solver.optimizer, p) for p in solver.params} if preconditioned else {}
        self.history = {p: (flat(v), k) for p, (v, k) in moments.items()}                               # views
        self.piece, self.room = PIECE[solver.device.type], torch.empty(0, device=solver.device)
        self.handles = [p.register_post_accumulate_grad_hook(self.take) for p in solver.params]
        self.armed, self.sums, self.divisors = False, [], {}

    def arm(self):
        self.armed = True

    def take(self, p):
        """The hook of parameter p: its gradient has just been completed."""
        if not self.armed:
            return
        g = shard.local(p.grad).flatten()[None]
        self.sums += [self.sums_of(p, g[:, a:a + self.piece], a) for a in range(0, g.numel(), self.piece)]
        p.grad = None

    def sums_of(self, p, g, start=0):
        """(Q, n) gradients, of Q questions, of n elements of p from `start` on -> (3, Q) <g_dev, direction>, |direction|, |g|.

        The direction is Gamma, or the gradient itself where nothing is preconditioned. .float(): a sharded solver's whole copy may be in bf16.
        """
        g, here = g.float(), slice(start, start + g.shape[1])
        direction, scale = g, 1.0
        if self.preconditioned:
            v, k = self.history[p]
            room = self.room.resize_(g.numel()).view_as(g)                  # memory is taken once, for the largest piece
            direction, scale = scaled_Gamma(g, v[here].float(), k, self.cfg.beta2, self.cfg.adam_eps, out=room)
        norms = [torch.linalg.vector_norm(x, dim=1) for x in (direction, g)]
        return torch.stack([direction @ self.g_dev[p][here].float(), *norms]).div_(self.divisor(scale))

    def divisor(self, scale):
        """-> (3, 1): the first two sums are of scale Gamma."""
        if scale not in self.divisors:
            self.divisors[scale] = torch.tensor([[scale], [scale], [1.0]], device=self.solver.device)
        return self.divisors[scale]

    @staticmethod
    def total(sums):
        """(3, Q) of each piece -> (3, Q) <g_dev, direction>, |direction|^2, |g|^2 of all of them."""
        pieces = torch.stack(sums)                                          # (pieces, 3, Q)
        return torch.cat([pieces[:, :1].sum(dim=0), pieces[:, 1:].square().sum(dim=0)])

    def finish(self):
        """-> (3,) <g_dev, direction>, |direction|^2, |g_q|^2 of the question, ready for the next one."""
        for p in self.solver.params:
            if p.grad is not None:                                          # touched by an earlier pass of the question but not by its last
                self.take(p)
        sums = self.total(self.sums)[:, 0]
        self.armed, self.sums = False, []
        return sums

    def close(self):
        for handle in self.handles:
            handle.remove()


def influence_scores(solver, answers, A_sol, g_dev, cfg):
    """(Q, m) answers to the generated questions -> (Q,) s_hat, (Q,) own_share. Zero where a group is all equal; all zero without a g_dev.

    cfg.similarity: preconditioned_cosine (the method), cosine (raw g_q), preconditioned_dot, dot. Weights, gradients, optimizer and random state are left
    bit for bit as they were. No question's gradient is ever mixed with another's.
    """
    s_hat, own_share = torch.zeros(2, len(answers))
    kept = has_gradient(A_sol).nonzero()[:, 0].tolist()
    if g_dev is None or not kept:
        return s_hat, own_share
    Tbar = mean_length([answers[q] for q in kept])
    kept = [q for q, _ in longest_first([(q, answers[q]) for q in kept])]                   # dealt in turn: ranks end within one question
    solver.wake()
    norm_dev = max(norm(g_dev), 1e-12)
    all_on_one = together(solver, cfg)
    scorer = solver.whole() if solver.sharded and not all_on_one else solver
    if scorer is not solver:
        g_dev = [shard.whole(g.to(p.dtype)) for g, p in zip(g_dev, scorer.params)]
    v_sum = torch.stack([second_moment(scorer.optimizer, p)[0].sum(dtype=torch.float32) for p in scorer.params]).sum()
    v_sum = shard.total(v_sum, scorer.params[0])
    mine = kept if all_on_one else ranks.share(kept)
    parts = dict(parts=ranks.world(), part=ranks.rank()) if all_on_one else {}
    sums, denominator = [], len(answers[0]) * Tbar
    stream = Streaming(scorer, g_dev, cfg.similarity.startswith("preconditioned"), cfg)
    try:
        with borrowed_gradients(scorer.params):
            blocks = {} if all_on_one else block_sums(scorer, stream, mine, answers, A_sol, denominator, cfg)       # {} of all but small models
            for q in tqdm(mine, desc="influence", unit="question", leave=False, disable=not ranks.is_main()):
                passes = [] if q in blocks else even_passes(scorer, micro_batches(scorer, [(q, answers[q])], cfg, **parts))
                for i, rows in enumerate(passes):
                    loss, _ = batch_loss(scorer, rows, A_sol, denominator, cfg)
                    if i == len(passes) - 1:
                        stream.arm()
                    loss.backward()
                sums.append(blocks[q] if q in blocks else stream.finish())
    finally:
        stream.close()
    sums = torch.stack(sums) if sums else torch.zeros(0, 3)                 # (questions of this rank, 3)
    every = shard.total(sums, scorer.params[0]).tolist() if all_on_one else ranks.gather(sums.tolist(), len(kept))
    dot, squares, g_squares = torch.tensor(every).T                         # (questions,) each
    own = (1 - cfg.beta2) * g_squares
    s_hat[kept] = dot / (norm_dev * squares.sqrt().clamp(min=1e-12)) if cfg.similarity.endswith("cosine") else dot
    own_share[kept] = own / (cfg.beta2 * v_sum.cpu() + own).clamp(min=1e-30)
    solver.skipped += int((~s_hat.isfinite()).sum())        # a gradient that is not finite scores 0 and is counted, as such an update is
    return s_hat.nan_to_num(0.0, 0.0, 0.0), own_share.nan_to_num(0.0, 0.0, 0.0)
