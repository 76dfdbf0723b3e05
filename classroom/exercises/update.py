"""The update: mini-batches of whole groups, one denominator, log-probs from before it all."""
from dataclasses import replace

import torch

from classroom import small
from classroom.compare import expect, mistake, raises
from data import InputError

NAME = "update"
SYMBOL = "loss = sum of l w / (B Tbar); rho against the weights before"
FILE = "policy.py"
BLANKS = ["update"]
RUN = True

HINTS = (
    "kept_groups(groups, A) drops groups without an advantage, out of Tbar too. The rest, spread "
    "over the documents if there are any, is cut into mini-batches of cfg.minibatch_rows // m "
    "groups. Each is one optimizer step: policy.optimizer.zero_grad(), pass_loss and backward for "
    "each pass, then step(policy, cfg), which gives [its gradient norm].",
    "The denominator is cfg.minibatch_rows * mean_length(kept groups), one number for the whole "
    "call, for a short last mini-batch too. No group left: {\"grad_norm\": None, \"tokens\": 0, "
    "\"steps\": 0, \"rows\": 0}; else policy.wake(). A group is never cut: minibatch_rows must be "
    "a multiple of m (InputError else).",
    "rho compares with the model before the update. In the first mini-batch that is the present "
    "model (pass None); for all later ones old_logps(policy, groups, cfg) must be taken before "
    "the first step. Each rank takes its share: ranks.share(dealt_longest_first(...)) of every "
    "mini-batch, and even_passes(policy, passes(policy, minibatch, cfg)). Groups stay (g, group) "
    "pairs, g the row in A. Return grad_norm, the mean of the norms (None if there are none); "
    "tokens, the sum of what pass_loss counted; steps, how many norms; rows, the answers of the "
    "kept groups.",
)

MISTAKES = (
    mistake(
        "the old log-probs are taken anew for each mini-batch: rho is then 1 everywhere, nothing "
        "is ever clipped, and the second mini-batch does not know that the model has moved",
        ("update", "later if i else None", "None")),
    mistake(
        "each mini-batch is divided by its own number of rows: a short last one then counts as "
        "much as a full one",
        ("update", "pass_loss(policy, trees, A, denominator, cfg, later if i else None)",
         "pass_loss(policy, trees, A, denominator * len(minibatch) / size, cfg, "
         "later if i else None)")),
    mistake(
        "Tbar is the mean over all groups; those without an advantage are not trained on and do "
        "not count",
        ("update", "mean_length([group for _, group in kept])", "mean_length(groups)")),
    mistake(
        "it is not divided by Tbar: long answers make the step larger (clipping hides it for a "
        "while)",
        ("update", "cfg.minibatch_rows * mean_length([group for _, group in kept])",
         "cfg.minibatch_rows")),
    mistake(
        "gradients are not emptied between mini-batches: each step also repeats those before it",
        ("update", "            policy.optimizer.zero_grad(set_to_none=True)\n"
         "            for trees", "            for trees")),
    mistake(
        "one step is taken after all mini-batches: their gradients add up to a batch that is as "
        "large as the whole call",
        ("update", "            norms += step(policy, cfg)",
         "            norms += step(policy, cfg) if i == len(minibatches) - 1 else []"),
        ("update", "            policy.optimizer.zero_grad(set_to_none=True)\n"
         "            for trees", "            for trees")),
    mistake(
        "the documents are not spread: a mini-batch holds the questions of a few documents only",
        ("update", "if documents is not None:", "if False:")),
)

DOCUMENTS = ["a", "a", "a", "b", "b", "c"]
# the second group is flat, and long
GROUPS = [[3, 9, 5, 4], [16, 13, 12, 18], *small.LENGTHS[2:], [7, 3, 4, 5], [3, 6, 4, 4]]
ADVANTAGES = torch.cat([small.A, torch.tensor([[.9, -.3, -.3, -.3], [-.5, .5, -.5, .5]])])


def moved(m, documents=DOCUMENTS):
    """One update of six groups in mini-batches of two -> its numbers and the weights after."""
    policy, cfg = small.solver(grad_clip=1e9)
    found = m.update(policy, small.answers(GROUPS), ADVANTAGES, cfg, documents)
    return found, [p.detach().clone() for p in policy.params]


def by_hand(m):
    policy, cfg = small.solver()
    nothing = m.update(policy, small.answers(GROUPS), ADVANTAGES * 0, cfg)
    expect(nothing, {"grad_norm": None, "tokens": 0, "steps": 0, "rows": 0},
           "update where no group has an advantage")
    uneven = replace(cfg, minibatch_rows=6)
    expect(raises(InputError, m.update, policy, small.answers(GROUPS), ADVANTAGES, uneven), True,
           "update with minibatch_rows = 6 and groups of 4 raises InputError; that")
    found, _ = moved(m)
    if not isinstance(found, dict):
        found = {}
    counts = {name: found.get(name) for name in ("steps", "rows")}
    expect(counts, {"steps": 3, "rows": 20},
           "steps and rows of five groups of four in mini-batches of eight rows")
    expect(found.get("tokens"), sum(map(sum, GROUPS)) - sum(GROUPS[1]),
           "tokens of the five groups that have an advantage")


def oracle(m):
    """Against one answer at a time, the token loss with if and else, and AdamW's own step."""
    policy, cfg = small.solver(grad_clip=1e9)
    groups = small.answers(GROUPS)
    # without the flat group the documents are a a b b c, with places 1/4 3/4 1/4 3/4 1/2
    order = [0, 3, 5, 2, 4]
    denominator = 8 * small.mean_length([groups[g] for g in order])
    old = {}
    for g in order:
        old[g] = [small.logps(policy, x, cfg).detach() for x in groups[g]]
    norms = []
    for minibatch in (order[:2], order[2:4], order[4:]):
        policy.optimizer.zero_grad()
        for g in minibatch:
            for i, x in enumerate(groups[g]):
                a = float(ADVANTAGES[g, i])
                loss = plain_loss(small.logps(policy, x, cfg), old[g][i], x.logp, a)
                (loss / denominator).backward()
        norms.append(sum(p.grad.double().square().sum() for p in policy.params).sqrt())
        policy.optimizer.step()
    few(m)
    found, weights = moved(m)
    expect(float(found["grad_norm"]), float(sum(norms) / 3),
           "the mean gradient norm of three mini-batches", tolerance=1e-3)
    before, _ = small.solver()
    for name, p, q, start in zip(small.names(policy), weights, policy.params, before.params):
        expect((p - start).norm(), (q - start).detach().norm(),
               f"how far {name} moved in three mini-batches", tolerance=2e-3)


def few(m):
    """One group where a mini-batch has room for two: the denominator is still B Tbar."""
    policy, cfg = small.solver(grad_clip=1e9)
    groups = small.answers(GROUPS[:1])
    found = m.update(policy, groups, ADVANTAGES[:1], cfg)
    policy, _ = small.solver()
    gradient = small.plain_gradient(
        policy, groups, ADVANTAGES[:1], 8 * small.mean_length(groups), cfg)
    expect(float(found["grad_norm"]), float(small.one_vector(gradient).norm()),
           "the gradient norm of one group of four, minibatch_rows = 8", tolerance=1e-3)


def plain_loss(logp, old, sampler, a):
    total = 0.0
    for now, before, drawn in zip(logp, old, sampler):
        rho = (now - before).exp()
        worse = torch.maximum(-a * rho, -a * rho.clamp(0.8, 1.2))
        if a < 0:
            worse = worse.clamp(max=-3 * a)
        total = total + worse * (before - drawn).exp().clamp(max=2.0)
    return total


def probe(m):
    found, weights = moved(m)
    return [found["grad_norm"], *(w.double().sum() + w.double().norm() for w in weights)]
