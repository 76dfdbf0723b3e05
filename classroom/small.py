"""A solver that graders can take apart: the embedded world's anchor with two AdamW steps behind it.

    solver()    a Policy of 1.1M weights and its Config
    answers     (G, m) rollouts of random words, whose sampler was not quite the trainer
    advantages  (G, m), one row of zeros: a question without a gradient
"""
import copy
import functools

import torch

from config import Config
from engine.presets import PRESETS
from data import Rollout
from policy import Policy

WORDS = range(20, 60)


def solver(**changes):
    """-> (Policy, Config); its second moments come from two random gradients.

    A copy each time, since a student's code may do to it what it likes.
    """
    cfg = Config(model=PRESETS["toy"]["model"], device="cpu", dtype="fp32", minibatch_rows=8,
                 **changes)
    return copy.deepcopy(untouched()), cfg


@functools.cache
def untouched():
    """The Policy that solver() copies: loading and checking one takes longer than most graders."""
    cfg = Config(model=PRESETS["toy"]["model"], device="cpu", dtype="fp32")
    policy = Policy("solver", cfg.model, 1e-3, cfg)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for p in policy.params:
            p.grad = 1e-3 * torch.randn(p.shape, generator=generator)
        policy.optimizer.step()
    policy.optimizer.zero_grad()
    return policy


def answers(lengths, seed=0):
    """[[response lengths of a group], ...] -> (G, m) rollouts; a group's answers begin alike."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        picked = torch.randint(len(WORDS), (n,), generator=generator).tolist()
        return [WORDS[i] for i in picked]

    groups = []
    for of_group in lengths:
        prompt, start = draw(6), draw(2)
        group = []
        for n in of_group:
            logp = (-4 + 0.5 * torch.randn(n, generator=generator)).tolist()
            group.append(Rollout(prompt, start + draw(n - 2), logp, True, ""))
        groups.append(group)
    return groups


LENGTHS = [[3, 9, 5, 4], [6, 3, 3, 8], [4, 4, 7, 12], [5, 3, 6, 3]]
A = torch.tensor([[.75, -.25, -.25, -.25], [0., 0., 0., 0.], [.5, -.5, -.5, .5],
                  [.25, .25, -.75, .25]])


def plain_gradient(policy, groups, A, denominator, cfg):
    """Gradient of sum over tokens of -A w logp / denominator, one answer a pass, by autograd.

    -> list of tensors like theta.
    """
    total = [torch.zeros_like(p) for p in policy.params]
    for group, row in zip(groups, A):
        for rollout, a in zip(group, row):
            logp = logps(policy, rollout, cfg)
            w = (logp.detach() - torch.tensor(rollout.logp)).exp().clamp(max=cfg.tis_cap)
            loss = (-a * w * logp).sum() / denominator
            found = torch.autograd.grad(loss, policy.params, allow_unused=True)
            total = [x if g is None else x + g for x, g in zip(total, found)]
    return total


def g_dev():
    """A direction to compare with: the plain gradient of other answers."""
    return [g.clone() for g in untouched_g_dev()]


@functools.cache
def untouched_g_dev():
    policy, cfg = solver()
    return plain_gradient(policy, answers(LENGTHS, seed=7), A, 60.0, cfg)


def logps(policy, rollout, cfg):
    """(tokens,) log-probs of one response, one sequence through the model."""
    ids = torch.tensor([rollout.prompt + rollout.response])
    logits = policy.model(input_ids=ids, use_cache=False).logits[0]
    start = len(rollout.prompt) - 1
    logp = torch.log_softmax(logits / cfg.temperature, dim=-1)
    return logp[torch.arange(start, ids.shape[1] - 1), rollout.response]


def mean_length(groups):
    """Mean number of tokens of all responses."""
    lengths = []
    for group in groups:
        lengths += [len(x.response) for x in group]
    return sum(lengths) / len(lengths)


def one_vector(tensors):
    """A list of tensors -> one long vector."""
    return torch.cat([x.detach().flatten() for x in tensors]).double()


def names(policy):
    return [name for name, p in policy.model.named_parameters() if p.requires_grad]
