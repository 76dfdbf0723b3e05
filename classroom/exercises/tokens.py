"""The loss of a token: clipped, clipped once more where A < 0, and weighed."""
import torch

from classroom.compare import expect, mistake

NAME = "token_loss"
SYMBOL = "l w,  l = max(-A rho, -A clip(rho)) <= -3 A where A < 0"
FILE = "policy.py"
BLANKS = ["token_loss"]
RUN = True

HINTS = (
    "rho = exp(logp - logp_old) says how much more likely the token is now than before the "
    "update. The loss is -A rho, made worse (never better) by clipping rho at 1 - clip, 1 + clip.",
    "torch.maximum of -A rho and -A rho.clamp(1 - clip, 1 + clip). Where A < 0 that has no upper "
    "end, so there it is at most -dual_clip A: torch.where(A < 0, torch.minimum(...), ...).",
    "The weight w = exp(logp_old - logp_sampler), at most tis_cap, makes up for a sampler that is "
    "not quite the trainer. It is a constant: .detach() it. Clamp both exponents to -20 .. 20, so "
    "that no token can make an infinity. Return the loss times w, one number a token.",
)

CLIPPED = "torch.maximum(-A * rho, -A * rho.clamp(1 - clip, 1 + clip))"
DUAL = "torch.where(A < 0, torch.minimum(loss, -dual_clip * A), loss)"
MISTAKES = (
    mistake(
        "the smaller of the two is taken: the paper's min is of objectives, and a loss is minus "
        "an objective, so it is max here; with min the clip rewards going too far",
        ("token_loss", CLIPPED, CLIPPED.replace("maximum", "minimum"))),
    mistake(
        "the sign is turned: a loss goes down when a token with A > 0 becomes more likely",
        ("token_loss", "return loss * w", "return -loss * w")),
    mistake(
        "there is no dual clip: where A < 0 a token that has become 100 times as likely pushes "
        "with 100 times the force",
        ("token_loss", DUAL, "loss")),
    mistake(
        "the dual clip is on every token: where A > 0 there is nothing for it to hold, and "
        "-dual_clip A is below every loss",
        ("token_loss", DUAL, "torch.minimum(loss, -dual_clip * A)")),
    mistake(
        "rho is not clipped: the ratio may run away within one update",
        ("token_loss", CLIPPED, "-A * rho")),
    mistake(
        "w is not capped: one token that the sampler found unlikely takes over the batch",
        ("token_loss", ".clamp(max=tis_cap)", "")),
    mistake(
        "w is turned over: it is the trainer's probability by the sampler's",
        ("token_loss", "(logp_old - logp_sampler)", "(logp_sampler - logp_old)")),
    mistake(
        "w is missing: the sampler's probabilities are not used at all",
        ("token_loss", "return loss * w", "return loss")),
    mistake(
        "rho compares with the sampler's log-probs: those belong in w; rho is against the "
        "trainer's own, before the update",
        ("token_loss", "rho = (logp - logp_old)", "rho = (logp - logp_sampler)")),
)

ONE = torch.ones(3)


def by_hand(m):
    logp = torch.tensor([0.5, 1.0, 3.5]).log()
    zero = torch.zeros(3)
    expect(m.token_loss(logp, zero, zero, ONE), torch.tensor([-.5, -1., -1.2]),
           "token_loss with rho 0.5, 1, 3.5 and A = 1")
    expect(m.token_loss(logp, zero, zero, -ONE), torch.tensor([.8, 1., 3.]),
           "token_loss with rho 0.5, 1, 3.5 and A = -1")
    sampler = -torch.tensor([1.5, 1.0, 10.0]).log()
    expect(m.token_loss(zero, zero, sampler, ONE), torch.tensor([-1.5, -1., -2.]),
           "token_loss with rho 1, A = 1 and w 1.5, 1, 10 (capped at 2)")
    expect(m.token_loss(logp, zero, sampler, -ONE, 0.1, 2.0, 1.2), torch.tensor([1.08, 1., 2.4]),
           "token_loss with rho 0.5, 1, 3.5, the same w, A = -1, and 0.1, 2, 1.2 for clip, "
           "dual_clip, tis_cap")


def oracle(m):
    """Against one token at a time with if and else; and its gradient by a finite difference."""
    import math
    generator = torch.Generator().manual_seed(3)
    logp, old, sampler, A = torch.randn(4, 60, generator=generator, dtype=torch.float64) * 0.8
    found = m.token_loss(logp, old, sampler, A)
    expected = []
    for t in range(60):
        rho = math.exp(logp[t] - old[t])
        inside = min(max(rho, 0.8), 1.2)
        worse = max(-A[t] * rho, -A[t] * inside)
        if A[t] < 0:
            worse = min(worse, -3 * A[t])
        expected.append(worse * min(math.exp(old[t] - sampler[t]), 2.0))
    expect(found, torch.stack(expected), "token_loss of 60 random tokens")

    # old is a constant of the update, so its gradient is none of the sampler's business
    leaf = logp.clone().requires_grad_()
    gradient, = torch.autograd.grad(m.token_loss(leaf, leaf.detach(), sampler, A).sum(), leaf)
    w = (logp - sampler).exp().clamp(max=2.0)
    expect(gradient, -A * w, "its gradient at rho = 1, which is -A w")
    # the first mini-batch of an update: the old log-probs are the present ones, not detached
    gradient, = torch.autograd.grad(m.token_loss(leaf, leaf, sampler, A).sum(), leaf)
    expect(gradient, torch.zeros(60, dtype=torch.float64),
           "its gradient where logp_old is logp itself and w must be a constant,")
    far, none = torch.tensor([100.]), torch.zeros(1)
    expect(m.token_loss(far, none, none, none), none,
           "token_loss with logp - logp_old = 100 and A = 0")
    expect(m.token_loss(none, none, -far, none), none,
           "token_loss with logp_old - logp_sampler = 100 and A = 0")


def probe(m):
    generator = torch.Generator().manual_seed(5)
    logp, old, sampler, A = torch.randn(4, 40, generator=generator)
    return m.token_loss(logp, old, sampler, A)
