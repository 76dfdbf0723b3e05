"""Does a question do what its score says? One real AdamW step of the solver on one question at a time: what becomes of the dev set?

    python reality.py runs/NAME                     tables of every prediction; the embedded world takes about 10 minutes of one free core
    python reality.py runs/NAME --questions 16 --states warm --json out.json --figure out.svg

The run's newest checkpoint is loaded, and dev answers, drafts and answers are sampled as train.py would in its next iteration. For each
of a sample of questions with mixed answers, theta takes one step of torch's AdamW and is put back, bit for bit. Compared are, over
questions:

    real          L(theta) - L(theta after the step on q)               positive: the dev set got better
    predicted     cosine or dot product of g_dev and a direction

    direction         is                                                          names of its predictions
    raw               g_q                                                         cosine, dot
    preconditioned    Gamma = g_q / ( sqrt( v' / (1 - beta2^t) ) + eps )          preconditioned_cosine (the method), preconditioned_dot
    first moment      m' / (1 - beta1^t) / ( the same root + eps ),               first_moment_cosine, first_moment_dot: the dot is less
                      m' = beta1 m + (1 - beta1) g_q                              that of g_q = 0, which is common to all questions
    frozen            g_q / ( sqrt( v / (1 - beta2^k) ) + eps )                   frozen_cosine, frozen_dot: the history alone
    Gamma again       against the gradient of the exact accuracy, not g_dev       exact_dev_cosine, exact_dev_dot: free of g_dev's noise

    objective L       is measured as
    loss              sum over kept dev rows and tokens of -A w exp(logp - logp at theta) / (N_dev Tbar_dev), unclipped, on the answers that
                      g_dev comes from. g_dev is its gradient and it has no sampling noise: is the step small enough to be linear?
    accuracy          minus the expected accuracy over all likely answers (expected.py), where they can be enumerated: does a question that
                      scores well make the solver better at the dev set, g_dev being an estimate from M m answers?
    fresh             where they cannot: the loss on dev answers drawn a second time, common to before and after. Reweighting them has a
                      variance that falls with the square of the step; sampling anew with common random numbers, only with the step

    step              gradient        momentum, weight decay, clipping                                learning rate
    gamma             g_q             none: the step that the score linearises                        the run's, times each of --sizes
    trainer           g_q m / B,      the run's: policy.update on this question alone, less the       the run's; warm only
                      own Tbar        step of a zero gradient, which is common to all questions
    share             g_q m / B       none: the question's part of a mini-batch                       the run's
    batch             sum of shares   none: compared with the sum of its questions' share steps       the run's

The headline is step gamma at the run's learning rate: the score is defined by it. What momentum, decay and the smaller gradient of a
mini-batch change is in trainer.

    state             weights                        AdamW
    warm              the newest checkpoint's        the checkpoint's
    cold              the newest checkpoint's        without history: v = 0, t = 1
    anchor            the run's anchors'             without history

Intervals are 95 % percentile bootstraps over questions. The dev answers stay fixed, and questions about one document count as
independent, which they are not quite. Ours, not the paper's: neither the paper nor the released code has such a measurement that we
know of.
"""
import argparse
import contextlib
import copy
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm

import checkpoint
import config
import expected
import generator as generator_role
import solver as solver_role
import train
from data import InputError, document_batch, run_script
from influence import borrowed_gradients, dev_gradient, has_gradient, influence_scores, norm, second_moment
from policy import Policy, batch_loss, mean_length, micro_batches, update
from quality import run_config
from verify import Verifier

STATES, SIZES = ("warm", "cold", "anchor"), (1.0, 0.1, 10.0, 100.0)
METHOD = "preconditioned_cosine"


# ---------------------------------------------------------------- a run's models, and what it would sample next

@dataclass
class World:
    cfg: object
    solver: Policy
    generator: Policy
    documents: list
    dev: list
    iteration: int          # of the weights: 0 for the anchors


def load(run, anchor=False, dev=None, threads=1):
    """Run folder -> World: models and AdamW states of the newest checkpoint, or the anchors. dev: only the first so many dev questions.

    InputError if there is no run, or no checkpoint that is whole.
    """
    torch.set_num_threads(threads)
    cfg = run_config(run)
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    generator = Policy("generator", cfg.generator_anchor, cfg.generator_lr, cfg)
    iteration = 0
    if not anchor:
        folder, state = checkpoint.find(run)
        if folder is None:
            raise InputError(f"{run}: no whole checkpoint in it; expected the folder of a run of train.py")
        checkpoint.load(folder, state, {"solver": solver, "generator": generator})
        iteration = state["iteration"]
    documents, dev_set, *_ = train.load_data(cfg, solver, generator, SimpleNamespace(say=lambda text: None))
    if not documents:
        raise InputError(f"{run}: its generator read no documents; expected a run that has --documents")
    return World(cfg, solver, generator, documents, dev_set.questions[:dev], iteration)


@dataclass
class Sample:
    dev_answers: list       # (M, m)
    A_dev: torch.Tensor     # (M, m)
    questions: list         # (Q,) every valid question
    slots: list             # (Q,) number of the document in the sample
    answers: list           # (Q, m)
    A_sol: torch.Tensor     # (Q, m)
    mixed: list             # numbers of the questions that have a gradient
    n_documents: int        # documents read


def draw(world, m, wanted, most=20):
    """-> Sample: what train.py samples in the iteration after the checkpoint. If fewer than `wanted` questions have mixed answers,
    documents of later iterations follow, of at most `most` in all; the models stay as they are. InputError if nothing has a gradient.
    """
    cfg, t = world.cfg, world.iteration + 1
    with Verifier() as verifier:
        dev_answers, A_dev = answered(world, world.dev, m, (cfg.seed, t, "solver", "dev"), verifier)
        questions, slots, answers, A_sol = [], [], [], torch.zeros(0, m)
        for later in range(t, t + most):
            batch = [world.documents[i] for i in document_batch(len(world.documents), cfg.docs_per_step, cfg.seed, later - 1)]
            key = (cfg.seed, later, "generator", "write")
            drafts = generator_role.write_questions(world.generator, batch, key, cfg, world.solver)                     # (D, n)
            valid = [(d, draft.question) for d, row in enumerate(drafts) for draft in row if draft.question]
            slots += [(later - t) * cfg.docs_per_step + d for d, _ in valid]
            questions += [question for _, question in valid]
            if valid:
                new, A_new = answered(world, [question for _, question in valid], m, (cfg.seed, later, "solver", "answer"), verifier)
                answers, A_sol = answers + new, torch.cat([A_sol, A_new])
            mixed = has_gradient(A_sol).nonzero()[:, 0].tolist()
            if len(mixed) >= wanted:
                break
    if not mixed or not has_gradient(A_dev).any():
        raise InputError(f"nothing to measure: {len(mixed)} of {len(questions)} generated questions and {int(has_gradient(A_dev).sum())} "
                         f"of {len(world.dev)} dev questions have mixed answers; expected at least one each")
    return Sample(dev_answers, A_dev, questions, slots, answers, A_sol, mixed, (later - t + 1) * cfg.docs_per_step)


def answered(world, questions, m, key, verifier):
    """-> (Q, m) answers, (Q, m) advantages."""
    answers = solver_role.answer_questions(world.solver, questions, m, key, world.cfg, what=key[3])
    return answers, solver_role.advantages(answers, solver_role.shared_rewards(questions, answers, verifier), world.cfg)


def scores(solver, answers, A_sol, g_dev, cfg, similarity=METHOD):
    """(Q, m) answers -> (Q,) s_hat."""
    return influence_scores(solver, answers, A_sol, g_dev, replace(cfg, similarity=similarity))[0]


# ---------------------------------------------------------------- what is predicted

def gradient(solver, answers, A_sol, chosen, denominator, cfg):
    """Gradient of the loss on the chosen questions' answers, like solver.params. Divided by m Tbar: g_q; by B Tbar: a part of a batch."""
    with borrowed_gradients(solver.params):
        for rows in micro_batches(solver, [(q, answers[q]) for q in chosen], cfg):
            batch_loss(solver, rows, A_sol, denominator, cfg)[0].backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in solver.params]


def other_directions(g, m, v, k, cfg):
    """One tensor's gradient, both moments and step count -> {name: direction} of those that influence.py does not offer."""
    t = k + 1
    root = ((cfg.beta2 * v + (1 - cfg.beta2) * g * g) / (1 - cfg.beta2 ** t)).sqrt() + cfg.adam_eps
    still = (cfg.beta2 * v / (1 - cfg.beta2 ** t)).sqrt() + cfg.adam_eps                    # the step of a zero gradient
    directions = {"first_moment": (cfg.beta1 * m + (1 - cfg.beta1) * g) / (1 - cfg.beta1 ** t) / root,
                  "still": cfg.beta1 * m / (1 - cfg.beta1 ** t) / still}
    return directions | ({"frozen": g / ((v / (1 - cfg.beta2 ** k)).sqrt() + cfg.adam_eps)} if k else {})


def other_predictions(solver, g, g_dev, cfg):
    """Gradient of one question -> {"first_moment_cosine": ..., "first_moment_dot": ..., "frozen_cosine": ..., "frozen_dot": ...}."""
    sums = {}
    for p, part, dev in zip(solver.params, g, g_dev):
        v, k = second_moment(solver.optimizer, p)
        m = solver.optimizer.state[p]["exp_avg"] if k else v
        for name, direction in other_directions(part, m, v, k, cfg).items():
            sums[name] = sums.get(name, 0) + torch.stack([(dev * direction).sum(), direction.square().sum()]).double()
    out = {}
    for name in sums.keys() - {"still"}:
        dot, squares = sums[name].tolist()
        out[f"{name}_cosine"] = dot / max(norm(g_dev) * math.sqrt(squares), 1e-12)
        out[f"{name}_dot"] = dot - (float(sums["still"][0]) if name == "first_moment" else 0.0)
    return out


def predictions(world, sample, chosen, g_dev, g_exact=None):
    """-> {name: (len(chosen),) list}: every prediction for every chosen question. g_exact: gradient of the exact accuracy, as a loss."""
    solver, cfg, out = world.solver, world.cfg, {}
    for similarity in config.SIMILARITIES:
        out[similarity] = scores(solver, sample.answers, sample.A_sol, g_dev, cfg, similarity)[chosen].tolist()
    for kind in ("cosine", "dot") if g_exact else ():
        out[f"exact_dev_{kind}"] = scores(solver, sample.answers, sample.A_sol, g_exact, cfg, f"preconditioned_{kind}")[chosen].tolist()
    gradients = (gradient(solver, sample.answers, sample.A_sol, [q], question_denominator(sample), cfg) for q in chosen)
    others = [other_predictions(solver, g, g_dev, cfg) for g in gradients]
    return out | {name: [row[name] for row in others] for name in sorted(others[0])}


def question_denominator(sample):
    """m Tbar of the sample, as in influence_scores."""
    kept = [sample.answers[q] for q in sample.mixed]
    return len(kept[0]) * mean_length(kept)


# ---------------------------------------------------------------- what is measured

class Objective:
    """The dev set's objectives, set up at the solver's present weights. values() is one forward pass over a tree per question."""

    def __init__(self, world, sample):
        cfg, solver = world.cfg, world.solver
        self.cfg, self.trees = cfg, expected.plant(solver, world.dev)
        self.exact = all(question.choices for question in world.dev) and \
            expected.grow(solver, copy.deepcopy(self.trees[:1]), cfg) and expected.grow(solver, self.trees, cfg)
        if not self.exact:                                  # the first question, or a later one, has too many answers
            self.trees = expected.plant(solver, world.dev)
        rows = {"loss": (sample.dev_answers, sample.A_dev)} | ({} if self.exact else {"fresh": second_answers(world)})
        nodes = {name: [tree.add_answer(x.response) for tree, group in zip(self.trees, answers) for x in group]
                 for name, (answers, _) in rows.items()}
        self.layout = expected.Layout(solver, self.trees, cfg)
        self.accuracy = expected.Accuracy(self.layout) if self.exact else None
        self.old = self.layout.logps(solver, cfg)                                           # (nodes,)
        self.losses = {name: self.weigh(nodes[name], *rows[name]) for name in rows}

    def weigh(self, nodes, answers, A):
        """-> (tokens,) node of each token of the kept answers, (tokens,) A w / (N Tbar)."""
        m, kept = A.shape[1], has_gradient(A)
        denominator = int(kept.sum()) * m * mean_length([answers[q] for q in kept.nonzero()[:, 0].tolist()])
        tokens = [(self.layout.start[i // m] + node, lp, float(A[i // m, i % m])) for i, path in enumerate(nodes) if kept[i // m]
                  for node, lp in zip(path, answers[i // m][i % m].logp)]
        index, sampler, A_token = (torch.tensor(column, dtype=torch.float64) for column in zip(*tokens))
        index = index.long()
        w = (self.old.cpu()[index] - sampler).clamp(-20, 20).exp().clamp(max=self.cfg.tis_cap)
        return index, A_token * w / denominator

    def parts(self, logp):
        """(nodes,) logp -> {"loss", "fresh" or "accuracy" and "mass"}: differentiable scalars."""
        logp = logp.cpu()
        out = {name: -(weight * (logp[index] - self.old.cpu()[index]).exp()).sum() for name, (index, weight) in self.losses.items()}
        return out | (dict(zip(("accuracy", "mass"), self.accuracy(logp))) if self.exact else {})

    def values(self, solver):
        return {name: float(value) for name, value in self.parts(self.layout.logps(solver, self.cfg)).items()}

    def exact_gradient(self, solver, cfg):
        """Gradient of minus the expected accuracy, like g_dev; None where it cannot be enumerated."""
        return self.layout.gradient(solver, cfg, lambda logp: -self.parts(logp)["accuracy"]) if self.exact else None


def second_answers(world):
    """-> answers and advantages of the dev questions, drawn independently of those that g_dev comes from."""
    key = (world.cfg.seed, world.iteration + 1, "solver", "fresh")
    with Verifier() as verifier:
        return answered(world, world.dev, world.cfg.answers_per_question, key, verifier)


def adamw(solver, **changes):
    """A new AdamW without history for the solver, with the settings of its own but for the changes."""
    settings = {name: solver.optimizer.defaults[name] for name in ("lr", "betas", "eps", "weight_decay")}
    return torch.optim.AdamW(solver.params, **settings | changes)


@contextlib.contextmanager
def after(solver, take, lr, beta1=0.0, weight_decay=0.0):
    """Inside: the solver after take() with a copy of its AdamW. Afterwards weights and AdamW are what they were, bit for bit."""
    weights, own = [p.detach().clone() for p in solver.params], solver.optimizer
    solver.optimizer = adamw(solver, lr=lr, betas=(beta1, own.defaults["betas"][1]), weight_decay=weight_decay)
    for p, state in own.state.items():
        solver.optimizer.state[p] = {name: tensor.clone() for name, tensor in state.items()}
    try:
        take()
        yield
    finally:
        solver.optimizer = own
        with torch.no_grad():
            for p, weight in zip(solver.params, weights):
                p.copy_(weight)


@contextlib.contextmanager
def without_history(solver):
    """Inside: the solver's AdamW has taken no step yet."""
    own, solver.optimizer = solver.optimizer, adamw(solver)
    try:
        yield
    finally:
        solver.optimizer = own


def step_along(solver, g):
    """One step of solver.optimizer with gradient g."""
    with borrowed_gradients(solver.params):
        for p, part in zip(solver.params, g):
            p.grad = part
        solver.optimizer.step()


class Measure:
    """Real changes, as improvements: {objective: number}, positive where the dev set got better."""

    def __init__(self, world, sample, objective):
        self.world, self.sample, self.objective = world, sample, objective
        self.before = objective.values(world.solver)

    def improvement(self, take, lr, **settings):
        with after(self.world.solver, take, lr, **settings):
            now = self.objective.values(self.world.solver)
        return {name: (now[name] - self.before[name]) * (1 if name in ("accuracy", "mass") else -1) for name in now}

    def along(self, chosen, denominator, lr):
        """A step without momentum or decay along the gradient of some questions."""
        solver, sample, cfg = self.world.solver, self.sample, self.world.cfg
        g = gradient(solver, sample.answers, sample.A_sol, chosen, denominator, cfg)
        return self.improvement(lambda: step_along(solver, g), lr)

    def trainer(self, chosen, lr):
        """The run's own update on each question alone, less the step of a zero gradient -> list of improvements."""
        solver, sample, cfg = self.world.solver, self.sample, self.world.cfg
        settings = dict(lr=lr, beta1=cfg.beta1, weight_decay=cfg.weight_decay)
        still = self.improvement(lambda: step_along(solver, [torch.zeros_like(p) for p in solver.params]), **settings)
        own = [self.improvement(lambda: update(solver, [sample.answers[q]], sample.A_sol[q:q + 1], cfg), **settings)
               for q in bar(chosen, "trainer")]
        return [{name: x[name] - still[name] for name in x} for x in own]


def bar(items, what):
    return tqdm(items, desc=what, unit="step", leave=False)


def columns(rows):
    """List of {name: number} -> {name: list}."""
    return {name: [row[name] for row in rows] for name in rows[0]}


# ---------------------------------------------------------------- do they agree

def ranks_of(x):
    """(..., Q) -> ranks along the last axis, ties sharing their mean."""
    below = (x[..., None, :] < x[..., :, None]).sum(-1)
    return below + ((x[..., None, :] == x[..., :, None]).sum(-1) + 1) / 2


def correlation(x, y):
    """(..., Q) twice -> Pearson's r along the last axis; nan where one of them does not vary."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


STATISTICS = {"pearson": correlation,
              "spearman": lambda x, y: correlation(ranks_of(x), ranks_of(y)),
              "sign": lambda x, y: (np.sign(x) == np.sign(y)).mean(-1)}


def bootstrap(statistic, n, repeats=1000, seed=0):
    """statistic: (B, n) item numbers -> (B,). Returns [value, low, high], a 95 % percentile interval over items; nan below 3."""
    again = np.random.default_rng(seed).integers(0, n, (repeats, n))
    values = np.concatenate([statistic(some) for some in np.array_split(again, max(1, again.size * n // 10 ** 7))])
    low, high = np.nanpercentile(values, [2.5, 97.5]) if n > 2 and not np.isnan(values).all() else (np.nan, np.nan)
    return [float(statistic(np.arange(n)[None])[0]), float(low), float(high)]


def agreement(predicted, real):
    """(Q,) twice -> {"pearson", "spearman", "sign": [value, low, high]}."""
    x, y = np.array(predicted, dtype=float), np.array(real, dtype=float)
    return {name: bootstrap(lambda some: statistic(x[some], y[some]), len(x)) for name, statistic in STATISTICS.items()}


def lead(predicted, other, real):
    """-> [value, low, high]: how much larger Spearman's correlation with what is real is for one prediction than for another, paired."""
    x, other, y = (np.array(column, dtype=float) for column in (predicted, other, real))
    rho = STATISTICS["spearman"]
    return bootstrap(lambda some: rho(x[some], y[some]) - rho(other[some], y[some]), len(x))


# ---------------------------------------------------------------- one state

def study(world, sample, chosen, sizes, batches, warm):
    """-> what is reported of one state: predictions and changes per question, their agreement, and how batches add up."""
    cfg, solver = world.cfg, world.solver
    objective = Objective(world, sample)
    g_dev, g_exact = dev_gradient(solver, sample.dev_answers, sample.A_dev, cfg), objective.exact_gradient(solver, cfg)
    predicted = predictions(world, sample, chosen, g_dev, g_exact)
    measure, alone = Measure(world, sample, objective), question_denominator(sample)                                    # m Tbar
    share = cfg.minibatch_rows * alone / len(sample.answers[0])                                                         # B Tbar
    steps = lambda denominator, lr, what: columns([measure.along([q], denominator, lr) for q in bar(chosen, what)])
    real = {f"gamma {size:g}": steps(alone, size * cfg.solver_lr, f"learning rate x {size:g}") for size in sizes}
    if warm:
        real["trainer 1"] = columns(measure.trainer(chosen, cfg.solver_lr))
    result = {"before": measure.before, "exact": objective.exact, "cosine of g_dev with the exact gradient": cosine(g_dev, g_exact),
              "predicted": predicted, "real": real, "agreement": {step: agreements(predicted, changes) for step, changes in real.items()},
              "method less raw": {step: leads(predicted, changes) for step, changes in real.items()}}
    if batches:
        real["share 1"] = steps(share, cfg.solver_lr, "shares")
        result["batches"] = add_up(measure, chosen, real, share, batches, cfg)
    return result


def leads(predicted, changes):
    """-> {objective: by how much the method's Spearman is above the raw cosine's}."""
    return {goal: lead(predicted[METHOD], predicted["cosine"], y) for goal, y in changes.items() if goal != "mass"}


def agreements(predicted, changes):
    """-> {prediction: {objective: agreement}}; the mass of a tree is no objective."""
    return {name: {goal: agreement(x, y) for goal, y in changes.items() if goal != "mass"} for name, x in predicted.items()}


def cosine(a, b):
    return None if a is None or b is None else float(sum((x * y).sum() for x, y in zip(a, b))) / (norm(a) * norm(b))


def add_up(measure, chosen, real, share, batches, cfg):
    """One step on a mini-batch against its questions' single steps -> {"size", objective: {"batch", "sum of shares", ...}}."""
    k, rng, parts = min(len(chosen), cfg.minibatch_rows // cfg.answers_per_question), random.Random(cfg.seed), []
    while len(parts) < batches:                             # random partitions of the questions into mini-batches
        order = rng.sample(range(len(chosen)), len(chosen))
        parts += [order[i:i + k] for i in range(0, len(order) - k + 1, k)]
    parts = parts[:batches]
    whole = columns([measure.along([chosen[i] for i in part], share, cfg.solver_lr) for part in bar(parts, "batches")])
    out = {"size": k}
    for goal in whole:
        singles = {"sum of shares": [sum(real["share 1"][goal][i] for i in part) for part in parts]}
        if "gamma 1" in real:
            singles["mean of gamma"] = [sum(real["gamma 1"][goal][i] for i in part) / k for part in parts]
        out[goal] = {"batch": whole[goal]} | singles | {f"{name}: agreement": agreement(x, whole[goal]) for name, x in singles.items()} | \
            {f"{name}: ratio": sum(x) / sum(whole[goal]) for name, x in singles.items()}
    return out


# ---------------------------------------------------------------- the figure

COLOURS = {"cosine": "#475569", METHOD: "#c2410c", "preconditioned_dot": "#0f766e"}
NAMES = {"cosine": "raw cosine", METHOD: "influence", "preconditioned_dot": "its dot product"}
MARKS = {"warm": "o", "cold": "x", "anchor": "+"}
STYLES = {"warm": ("-", "solid"), "cold": ("--", "dashed"), "anchor": (":", "dotted")}


def pyplot():
    """matplotlib, a guest: asked for only when a figure is."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("--figure needs matplotlib: pip install matplotlib")
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 8.5})
    return plt


def line_with_interval(ax, x, values, colour, label, style="-", band=True):
    """values: [value, low, high] at each x."""
    value, low, high = zip(*values)
    ax.plot(x, value, style, color=colour, label=label, marker="o", markersize=3)
    if band:
        ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def finish(figure, axes, path):
    for ax in axes:
        ax.set_title(ax.get_title(), fontsize=8.5)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    figure.patch.set_facecolor("white")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None, dpi=150)


def draw_figure(report, path):
    """Predicted against real in the first run's first state and in the second run's, or, of one run, by the raw cosine. Below, all states
    of the first run: Spearman by size of step, and batches against their questions.
    """
    plt, runs = pyplot(), report["runs"]
    states = runs[0]["states"]
    state = next(iter(states.values()))
    figure, axes = plt.subplots(2, 2, figsize=(6.25, 5.4))
    draw_gains(axes[0, 0], runs[0], METHOD)
    draw_gains(axes[0, 1], runs[min(1, len(runs) - 1)], METHOD if len(runs) > 1 else "cosine")
    goal, unit, scale = goal_of(state)
    for label, one in states.items():
        sizes = sorted(float(key.split()[1]) for key in one["agreement"] if key.startswith("gamma"))
        for prediction in COLOURS:
            rows = [one["agreement"][f"gamma {size:g}"][prediction][goal]["spearman"] for size in sizes]
            name = NAMES[prediction] if one is state else None
            line_with_interval(axes[1, 0], sizes, rows, COLOURS[prediction], name, STYLES[label][0], band=prediction == METHOD)
    axes[1, 0].set(title="Spearman, " + ", ".join(f"{label}: {STYLES[label][1]}" for label in states),
                   xlabel="size of the step, times the learning rate", xscale="log", ylim=(None, 1.02))
    axes[1, 0].set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes[1, 0].minorticks_off()
    axes[1, 0].legend(frameon=False, fontsize=7)
    draw_batches(axes[1, 1], states, goal, unit, scale)
    finish(figure, axes.flat, path)


def goal_of(state):
    """-> the objective to show, its unit, and what to multiply it by."""
    return ("accuracy", "accuracy, points", 100) if state["exact"] else ("fresh", "dev loss", 1)


def draw_gains(ax, run, prediction):
    """Each point a question of the run's first state: what was predicted, and what its step did."""
    name, state = next(iter(run["states"].items()))
    (goal, unit, scale), step = goal_of(state), "gamma 1" if "gamma 1" in state["real"] else next(iter(state["real"]))
    gain = [scale * y for y in state["real"][step][goal]]
    ax.plot(state["predicted"][prediction], gain, "o", markersize=3.5, alpha=0.8, color=COLOURS[prediction])
    rho = state["agreement"][step][prediction][goal]["spearman"][0]
    ax.set(title=f"{NAMES[prediction]}, {name}, after {state['iteration']}: Spearman {rho:.2f}", xlabel="predicted",
           ylabel=f"real gain ({unit})")
    ax.axhline(0, color="#94a3b8", linewidth=0.8)
    ax.axvline(0, color="#94a3b8", linewidth=0.8)


def draw_batches(ax, states, goal, unit, scale):
    """Each point a mini-batch: the sum of its questions' steps against one step on all of them."""
    ends = []
    for label, one in states.items():
        if "batches" in one:
            x, y = ([scale * value for value in one["batches"][goal][key]] for key in ("sum of shares", "batch"))
            ax.plot(x, y, MARKS[label], markersize=4, label=label, color="#c2410c" if label == "warm" else "#475569")
            ends += x + y
    if ends:
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#94a3b8", linewidth=0.8)
        ax.legend(frameon=False)
    ax.set(title="one step on a mini-batch", xlabel="sum of its questions' gains", ylabel=f"real gain ({unit})")


# ---------------------------------------------------------------- the command

def table(name, state):
    """One state -> lines to print."""
    before = ", ".join(f"{goal} {value:.4f}" for goal, value in state["before"].items())
    lines = ["", f"{name}: {len(state['predicted'][METHOD])} questions; dev before: {before}"]
    if state["exact"]:
        lines.append(f"cosine of g_dev with the gradient of the exact accuracy: {state['cosine of g_dev with the exact gradient']:.3f}")
    lines.append(f"{'step':12}{'prediction':24}{'of':10}{'Pearson':>22}{'Spearman':>22}{'same sign':>22}")
    for step, rows in state["agreement"].items():
        shown = rows if step in ("gamma 1", "trainer 1") else {x: rows[x] for x in ("cosine", METHOD, "preconditioned_dot")}
        for prediction, goals in shown.items():
            for goal, values in goals.items():
                numbers = "".join(f"{v:8.2f} [{low:5.2f},{high:5.2f}]" for v, low, high in values.values())
                lines.append(f"{step:12}{prediction:24}{goal:10}{numbers}")
    for step, goals in state["method less raw"].items():
        differences = ", ".join(f"{goal} {value:+.2f} [{low:+.2f}, {high:+.2f}]" for goal, (value, low, high) in goals.items())
        lines.append(f"{step}: Spearman of {METHOD} less that of the raw cosine: {differences}")
    return lines + batch_lines(state.get("batches", {"size": 0}))


def batch_lines(batches):
    lines = []
    for goal, values in batches.items():
        for single in [key for key in ("sum of shares", "mean of gamma") if goal not in ("size", "mass") and key in values]:
            r = values[f"{single}: agreement"]["pearson"]
            lines.append(f"one step on {batches['size']} questions, {goal}: {single} / batch {values[f'{single}: ratio']:.2f}, "
                         f"Pearson over {len(values['batch'])} batches {r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]")
    return lines


def run_states(run, args, report):
    """Adds one run to the report. Prints a table and writes the file after each state, since a state takes minutes."""
    out, worlds = {"run": run_name(run), "states": {}}, {}
    report["runs"].append(out)
    for name in args.states:
        anchor = name == "anchor"
        if anchor not in worlds:
            worlds = {anchor: load(run, anchor, args.dev, args.threads)}
            world = worlds[anchor]
            sample = draw(world, world.cfg.answers_per_question, args.questions)
            chosen = sorted(random.Random(world.cfg.seed).sample(sample.mixed, min(args.questions, len(sample.mixed))))
        out.update(seed=world.cfg.seed, solver_lr=world.cfg.solver_lr, dev_questions=len(world.dev))
        with contextlib.nullcontext() if name == "warm" else without_history(world.solver):
            state = study(world, sample, chosen, args.sizes, args.batches, warm=name == "warm")
        state |= {"iteration": world.iteration, "adam_steps": checkpoint.policy_steps(world.solver) if name == "warm" else 0,
                  "documents": [sample.slots[q] for q in chosen], "questions": [vars(sample.questions[q]) for q in chosen]}
        out["states"][name] = state
        tqdm.write("\n".join(table(f"{run}, {name}, after iteration {world.iteration}", state)))
        sys.stdout.flush()
        if args.json:
            write_json(args.json, report)


def listed(kind, allowed=None):
    """-> what argparse needs to read a list with commas."""
    def read(text):
        values = [kind(word) for word in text.split(",")]
        if allowed and set(values) - set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}")
        return values
    return read


def run_name(run):
    return os.path.basename(os.path.normpath(run))


def heading(script, argv):
    """-> {"command", "commit"} of a report. The commit is that of this folder's code, "-dirty" if changed since; None outside git."""
    words = [run_name(word) if os.sep in word else word for word in (sys.argv[1:] if argv is None else argv)]     # no machine's paths
    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=config.ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    return {"command": " ".join(["python", script] + words), "commit": commit or None}


def write_json(path, report):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(rounded(report), f)
        f.write("\n")


def rounded(x):
    """The same, numbers to six digits and nan as None, which JSON has no word for.

    >>> rounded({"r": [0.12345678, float("nan")], "n": 3})
    {'r': [0.123457, None], 'n': 3}
    """
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return (float(f"{x:.6g}") if math.isfinite(x) else None) if isinstance(x, float) else x


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--questions", type=int, default=48, help="how many questions with mixed answers to step on")
    parser.add_argument("--states", type=listed(str, STATES), default=["warm", "cold"], help="some of warm,cold,anchor")
    parser.add_argument("--sizes", type=listed(float), default=list(SIZES), help="times the run's learning rate")
    parser.add_argument("--batches", type=int, default=16, help="mini-batches to compare with the sum of their questions; 0: none")
    parser.add_argument("--dev", type=int, help="only the first so many dev questions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figure", metavar="FILE", help="needs matplotlib")
    args = parser.parse_args(argv)
    if args.questions < 3:
        raise InputError(f"--questions {args.questions}: expected at least 3, there is no correlation of fewer")
    report = heading("reality.py", argv) | {"runs": []}
    for run in args.runs:
        run_states(run, args, report)
    if args.figure:
        draw_figure(report, args.figure)


if __name__ == "__main__":
    run_script(main)
