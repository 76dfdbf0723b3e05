"""s_hat without ever holding a question's gradient: hooks take three sums and drop each tensor."""
import torch

from classroom import small
from classroom.compare import Wrong, expect, mistake

NAME = "streamed"
SYMBOL = "sums of <g_dev, Gamma>, |Gamma|^2, |g_q|^2 while backward runs"
FILE = "influence.py"
BLANKS = ["Streaming.arm", "Streaming.take", "Streaming.finish"]
RUN = True
# questions of the embedded world share passes (engine/blocks.py); in this run each is streamed
IN_RUN = """
def block_sums(*args):
    return {}
"""

HINTS = (
    "A question may need several backward passes; its gradient adds up in p.grad, and is complete "
    "only in the last. arm() says: the next pass is the last. take(p) is called by torch whenever "
    "a pass has added to p.grad.",
    "take: nothing unless self.armed. Else self.sums += self.pieces.of_whole(p, "
    "shard.local(p.grad)) and drop the gradient, p.grad = None: that is what saves the memory.",
    "finish: a parameter that only earlier passes touched still has a .grad: take it now. The "
    "three sums are self.pieces.total(self.sums)[:, 0]. Then disarm and empty self.sums for the "
    "next question, or its sums hold this one's.",
)

MISTAKES = (
    mistake(
        "take does not wait for arm(): the sums are of each pass alone, and a square of a sum is "
        "not the sum of squares; influence needs the question's whole gradient",
        ("Streaming.take", "if self.armed:", "if True:")),
    mistake(
        "the gradient is not dropped: it adds to the next question's, so one question is paid for "
        "another's direction (and the memory is not saved)",
        ("Streaming.take", "            p.grad = None", "            pass"),
        ("Streaming.finish", "                self.take(p)", "                pass")),
    mistake(
        "the sums are not emptied: each question is scored with all those before it",
        ("Streaming.finish", "self.armed, self.sums = False, []", "self.armed = False")),
    mistake(
        "it stays armed after finish: the next question's first pass is taken for its last",
        ("Streaming.finish", "self.armed, self.sums = False, []", "self.sums = []")),
    mistake(
        "a tensor that only an earlier pass touched is left out, and its gradient goes to the "
        "next question",
        ("Streaming.finish", "            if p.grad is not None:",
         "            if False:")),
)


def sums_of(m, seen=None):
    """Three questions through the student's Streaming, two passes each -> (3, 3) sums."""
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    g_dev = small.g_dev()
    extra = policy.params[-1]
    stream = m.Streaming(policy, g_dev, cfg)
    found = []
    try:
        for q in (0, 2, 3):
            for half in (0, 1):
                loss = answers_loss(policy, groups[q], small.A[q], half, cfg)
                if half == 0:
                    # touched by the first pass alone
                    loss = loss + 0.01 * (extra * extra).sum()
                else:
                    stream.arm()
                    loss = loss + 0 * sum(p.sum() for p in policy.params[:-1])
                loss.backward(inputs=policy.params if half == 0 else policy.params[:-1])
            found.append(stream.finish())
            if seen is not None:
                seen.append([p for p in policy.params if p.grad is not None])
    finally:
        stream.close()
    return torch.stack(found)


def answers_loss(policy, group, A, half, cfg):
    """Half of a question's answers, the plain way."""
    total = 0.0
    for rollout, a in list(zip(group, A))[2 * half:2 * half + 2]:
        total = total - a * small.logps(policy, rollout, cfg).sum() / 20.0
    return total


def by_hand(m):
    left = []
    sums_of(m, left)
    if any(left):
        raise Wrong("after finish() some .grad is still there; each must have been taken and "
                    "dropped")


def oracle(m):
    """Against whole gradients by autograd, and Gamma by the definition."""
    from influence import Gamma, second_moment
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    g_dev = small.g_dev()
    expected = []
    for q in (0, 2, 3):
        halves = [answers_loss(policy, groups[q], small.A[q], half, cfg) for half in (0, 1)]
        extra = policy.params[-1]
        second = torch.autograd.grad(halves[1], policy.params[:-1], retain_graph=True)
        first = torch.autograd.grad(halves[0] + 0.01 * (extra * extra).sum(), policy.params)
        g_q = [a + b for a, b in zip(first, [*second, torch.zeros_like(extra)])]
        moments = [second_moment(policy.optimizer, p) for p in policy.params]
        direction = [Gamma(g, v, k, cfg.beta2, cfg.adam_eps) for g, (v, k) in zip(g_q, moments)]
        whole = [small.one_vector(x) for x in (g_dev, direction, g_q)]
        expected.append(torch.stack([
            whole[0] @ whole[1], whole[1] @ whole[1], whole[2] @ whole[2]]).float())
    expect(sums_of(m), torch.stack(expected), "the three sums of three questions",
           tolerance=2e-3)


def probe(m):
    return sums_of(m)
