"""A plan beside a measurement: two iterations of train.py on a CPU, the second one watched.

    python -m tools.plan --check toy/anchor --threads 1
    torchrun --nproc_per_node 2 -m tools.plan --check toy/anchor --threads 1 --shard true

    planned     with the lengths of the rollouts themselves: tests formulas and schedules
    from means  with their means and spreads alone, and the sizes of their trees: tests, too, what a
                plan assumes about lengths. Of a handful of prompts a mean says little
    measured    bytes: most in use at one time in a stage, by torch's profiler, beside weights and
                AdamW; FLOPs by torch's counter; tokens as metrics.jsonl counts them

Expect, for the toy: bytes within 14 %, FLOPs within 0.3 %, tokens exactly (docs/planning.md).
"""
import contextlib
import tempfile
from dataclasses import replace
from itertools import accumulate
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils import flop_counter as torchs

import train
from dugrpo import kept_groups
from engine import ranks, shard
from engine.checkpoint import MOMENTS
from engine.log import Clock, Log
from engine.packing import lengths_of
from policy import Policy
from tools.formulas import joined
from tools.setting import Assumed, Machine, Rollouts, groups_of, setting_of


def main(cfg, plan):
    """plan: Setting -> {stage: Stage}, which is tools.plan.plan."""
    ranks.start(torch.device("cpu"))
    rows = check(cfg, plan)
    if ranks.is_main():
        print("\n".join(lines(rows)))
    ranks.stop()


# ---------------------------------------------------------------- what is measured

def flop_counter():
    """torch's counter, with the CPU's attention kernel, which it does not know, counted by its own
    formula for attention."""
    def forward(q, k, v, *args, out_val=None, **kwargs):
        return torchs.sdpa_flop_count(q.shape, k.shape, v.shape)

    def backward(grad, q, k, v, *args, out_val=None, **kwargs):
        return torchs.sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)

    forward._get_raw = backward._get_raw = True
    aten = torch.ops.aten
    return torchs.FlopCounterMode(display=False, custom_mapping={
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward})


def most_bytes(profiler):
    """The most bytes in use at one time, beyond those in use at the profiler's start."""
    events = [x for x in profiler.profiler.kineto_results.events() if x.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))


def held_bytes(policies):
    """Bytes of this rank's part of weights, and of AdamW's moments, of both roles."""
    weights = moments = 0
    for policy in policies:
        weights += sum(shard.local(p).nbytes for p in policy.params)
        for state in policy.optimizer.state.values():
            moments += sum(shard.local(state[name]).nbytes for name in MOMENTS)
    return weights, moments


class Watch:
    """Stands in train.py for its Clock, Log and Policy, and remembers what they see."""

    def __init__(self, iterations):
        self.iterations, self.clocks, self.policies = iterations, 0, []
        # {stage: (peak bytes, FLOPs)} of the last iteration, and what it found
        self.stages, self.found = {}, None

    def run(self, cfg):
        with mock.patch.multiple(train, Clock=self.clock, Log=self.log, Policy=self.policy,
                                 save=lambda *args: None):
            train.train(cfg)

    def policy(self, *args):
        self.policies.append(Policy(*args))
        return self.policies[-1]

    def log(self, cfg, truth):
        log = Log(cfg)
        log.iteration, log.finish = self.keep, lambda *policies: None
        return log

    def keep(self, found, clock, verifier):
        self.found = found

    def clock(self):
        self.clocks += 1
        return WatchingClock(self) if self.clocks == self.iterations else Clock()


class WatchingClock(Clock):
    """Every stage under torch's profiler and its counter."""

    def __init__(self, watch):
        super().__init__()
        self.watch, self.open = watch, None

    def begin(self, stage):
        super().begin(stage)
        self.held = sum(held_bytes(self.watch.policies))
        self.open = contextlib.ExitStack()
        self.profiler = self.open.enter_context(
            profile(activities=[ProfilerActivity.CPU], profile_memory=True))
        self.counter = self.open.enter_context(flop_counter())

    def end(self):
        if self.stage:
            self.open.close()
            used = self.held + most_bytes(self.profiler)
            self.watch.stages[self.stage] = used, self.counter.get_total_flops()
        super().end()


# ---------------------------------------------------------------- the same, planned

def check(cfg, plan):
    """-> rows of (stage, what, planned, planned from means, measured)."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = replace(cfg, run=f"{folder}/run", iterations=2, test=None, device="cpu", dtype="fp32",
                      show_every=0)
        watch = Watch(cfg.iterations)
        watch.run(cfg)
    everyone = ranks.gather([(watch.stages, held_bytes(watch.policies))], ranks.world())
    seen = [stages for stages, _ in everyone]
    known = known_rollouts(watch.found)
    p = setting_of(cfg, Machine(gpus=ranks.world()), Assumed())
    p = replace(p, rollouts=known, cuda=False)
    supposed = {kind: from_means(r, cfg) for kind, r in known.items()}
    exact, means = plan(p), plan(replace(p, rollouts=supposed))

    rows, tokens = [], tokens_of(watch.found)
    P = sum(shape.P for shape in p.shapes.values()) / p.k
    for i, (what, size) in enumerate([("bytes: weights", 4), ("bytes: AdamW", 8)]):
        rows.append(("both roles", what, size * P, size * P, max(held[i] for _, held in everyone)))
    for name, stage in exact.items():
        if not stage.buffers or name not in seen[0]:
            continue
        bytes_seen = max(stages[name][0] for stages in seen)
        flops_seen = sum(stages[name][1] for stages in seen)
        rows.append((name, "bytes: peak", stage.peak, means[name].peak, bytes_seen))
        rows.append((name, "FLOPs", stage.flops, means[name].flops, flops_seen))
        if name in tokens:
            rows.append((name, "tokens", stage.tokens, means[name].tokens, tokens[name]))
    return rows


def known_rollouts(found):
    """What an iteration found -> {kind: Rollouts}, and {"kind kept": those with a gradient}."""
    drafts = train.rollouts_of(found.drafts)
    answers = found.solved.answers + found.problems.answers
    A = torch.cat([found.solved.A, found.problems.A])
    kinds = {"dev": (found.dev.answers, found.dev.A), "draft": (drafts, found.A_gen),
             "answer": (answers, A)}
    rollouts = dict.fromkeys(("test", "valid"), Rollouts(0, 1, 0, (1, 0), (1, 0)))
    for kind, (groups, A) in kinds.items():
        kept = [group for _, group in kept_groups(groups, A)]
        rollouts[kind] = rollouts_of(groups, len(kept))
        rollouts[f"{kind} kept"] = rollouts_of(kept, len(kept))
    return rollouts


def rollouts_of(groups, kept):
    """(G, m) rollouts -> Rollouts: how many, how long on average, how alike, and how long each."""
    if not groups:
        return Rollouts(0, 1, 0, (1, 0), (1, 0))
    known = tuple(map(lengths_of, groups))
    prompts = np.array([group.prompt for group in known], dtype=float)                 # (G,)
    responses = np.array([group.responses for group in known], dtype=float)            # (G, m)
    within = responses.var(axis=1, ddof=1).mean()
    between = responses.mean(axis=1).var() - within / responses.shape[1]
    alike = float(np.clip(between / max(between + within, 1e-9), 0, 1))
    return Rollouts(len(groups), len(groups[0]), kept, (prompts.mean(), prompts.std()),
                    (responses.mean(), responses.std()), alike, known)


def from_means(r, cfg):
    """Known Rollouts -> with lengths made up from their means, spreads and sizes of trees."""
    if not r.prompts:
        return r
    longest = max(group.prompt for group in r.groups)
    response = max(max(group.responses) for group in r.groups)
    groups = groups_of(replace(r, groups=()), min(longest, cfg.max_prompt_tokens),
                       min(response, cfg.max_response_tokens))
    # the more tokens, the larger the tree
    order = sorted(range(len(groups)), key=lambda i: groups[i].total)
    totals = sorted(group.total for group in r.groups)
    groups = list(groups)
    for i, total in zip(order, totals):
        group = groups[i]
        groups[i] = group._replace(common=spread_out(group.responses, group.total - total))
    return replace(r, groups=tuple(groups))


def spread_out(responses, left):
    """Response lengths -> how many input tokens each has in common with the one before: `left` in
    all, evenly, as far as they are that long."""
    most = [0] + [min(a, b) - 1 for a, b in zip(responses, responses[1:])]
    common = [0] * len(responses)
    while left > 0 and common != most:
        for i, room in enumerate(most):
            if left > 0 and common[i] < room:
                common[i] += 1
                left -= 1
    return tuple(common)


def tokens_of(found):
    """What an iteration found -> {stage: response tokens drawn or trained on}."""
    def drawn(groups):
        return sum(len(rollout.response) for rollout in joined(groups))

    tokens = {"dev": drawn(found.dev.answers), "write": drawn(train.rollouts_of(found.drafts)),
              "answer": drawn(found.solved.answers + found.problems.answers)}
    for role, step in (("generator", found.generator_step), ("solver", found.solver_step)):
        if step:
            tokens[f"update_{role}"] = step["tokens"]
    return tokens


# ---------------------------------------------------------------- the table

def lines(rows):
    yield f"{ranks.world()} ranks, fp32 on a CPU"
    yield f"{'stage':18}{'what':16}{'planned':>18}{'measured':>18}{'off by':>9}{'from means':>12}"
    for name, what, planned, means, measured in rows:
        yield (f"{name:18}{what:16}{planned:18,.0f}{measured:18,.0f}{planned / measured - 1:9.1%}"
               f"{means / measured - 1:12.1%}")
    for said, column in (("largest error", 2), ("from means and spreads of lengths alone", 3)):
        found = errors(rows, column).items()
        yield f"{said}: " + ", ".join(f"{kind} {error:.1%}" for kind, error in found)


def errors(rows, column):
    """{kind of number: largest relative error} of a column of plans, 2 or 3."""
    found = {}
    for kind in ("bytes", "tokens", "FLOPs"):
        found[kind] = max(abs(row[column] / row[4] - 1) for row in rows if row[1].startswith(kind))
    return found
