"""Does a question do what its score says? One real AdamW step of the solver on one question at a
time: what becomes of the dev set?

    python -m studies.reality RUN               # tables; the embedded world takes 10 core minutes
    python -m studies.reality RUN --questions 16 --states warm --json out.json --figure out.svg

    real            L(theta) - L(theta after the step on q); positive: the dev set got better
    predicted       cosine or dot product of g_dev and a direction:

    cosine, dot           g_q, raw
    preconditioned_*      Gamma = g_q / (sqrt(v' / (1 - beta2^t)) + eps); _cosine is the method
    first_moment_*        m' / (1 - beta1^t) / (the same root + eps), m' = beta1 m + (1 - beta1) g_q
    frozen_*              g_q / (sqrt(v / (1 - beta2^k)) + eps): the history alone
    exact_dev_*           Gamma, against the gradient of the exact accuracy instead of g_dev

    L       loss, which g_dev differentiates; minus the accuracy over all likely answers; fresh,
            where these cannot be enumerated: the loss on dev answers drawn a second time
    step    gamma: along g_q, as the score has it; trainer: the run's own update on q alone;
            share: q's part of a mini-batch; batch: a whole mini-batch, against its shares
    state   warm: the newest checkpoint; cold: its weights, AdamW without history; anchor

Weights and AdamW are put back bit for bit. Intervals are 95 % percentile bootstraps over questions.
Ours: neither the paper nor the released code has such a measurement that we know of. Each step,
objective and state in full: docs/results/scores.md.
"""
import argparse
import contextlib
import json
import math
import os
import random
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch

from engine import checkpoint
from engine.arguments import MANY, Parser
from engine.outputs import pyplot
import config
from studies import expected, frozen
import generator as generator_role
import influence
import solver as solver_role
import train
from data import InputError, document_batch
from dugrpo import has_gradient
from engine.progress import bar as progress_bar
from influence import borrowed_gradients, dev_gradient, influence_scores, norm, second_moment
from policy import Policy, mean_length, update
from tools.quality import run_config
from engine.speech import run_script
from engine.verify import Verifier

STATES = ("warm", "cold", "anchor")
SIZES = (1.0, 0.1, 10.0, 100.0)
METHOD = "preconditioned_cosine"


# ---------------------------------------------------------------- a run, and what it samples next

@dataclass
class World:
    cfg: object
    solver: Policy
    generator: Policy
    documents: list
    dev: list
    iteration: int          # of the weights: 0 for the anchors


def load(run, anchor=False, dev=None, threads=1):
    """Run folder -> World: models and AdamW states of the newest checkpoint, or the anchors.

    dev: only the first so many dev questions. InputError if there is no run, or no checkpoint that
    is whole.
    """
    if threads:
        torch.set_num_threads(threads)
    cfg = run_config(run)
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    generator = Policy("generator", cfg.generator_anchor, cfg.generator_lr, cfg)
    state, average = {"iteration": 0}, None
    if not anchor:
        state, average = restore(run, {"solver": solver, "generator": generator})

    silent = SimpleNamespace(say=lambda text: None, inputs={})
    recipe, _ = train.load_data(cfg, solver, generator, silent)
    if not recipe.pool:
        raise InputError(f"{run}: its generator read no documents; "
                         "expected a run that has --documents")
    questions = recipe.dev
    if state.get("study"):
        # --dev_refresh has put others in their place
        recipe.load(state["study"], average)
        questions = recipe.refreshed.questions
    return World(cfg, solver, generator, recipe.pool, questions[:dev], state["iteration"])


def restore(run, roles):
    """{role: Policy} take the weights and AdamW of the run's newest checkpoint -> its state, and
    the running mean of g_dev, if there is one.

    InputError if no checkpoint is whole.
    """
    folder, state = checkpoint.find(run)
    if folder is None:
        raise InputError(f"{run}: no whole checkpoint in it; "
                         "expected the folder of a run of train.py")
    return state, checkpoint.load(folder, state, roles)


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
    """-> Sample: what train.py samples in the iteration after the checkpoint.

    If fewer than `wanted` questions are mixed, documents of later iterations follow, of at most
    `most` in all; the models stay as they are. InputError if nothing has a gradient.
    """
    cfg = world.cfg
    t = world.iteration + 1
    questions, slots, answers = [], [], []
    A_sol = torch.zeros(0, m)
    with Verifier() as verifier:
        seed_words = (cfg.seed, t, "solver", "dev")
        dev_answers, A_dev = answered(world, world.dev, m, seed_words, verifier)

        for later in range(t, t + most):
            valid = valid_questions(world, later)
            slots += [(later - t) * cfg.docs_per_step + d for d, _ in valid]
            new_questions = [question for _, question in valid]
            questions += new_questions
            if valid:
                seed_words = (cfg.seed, later, "solver", "answer")
                new, A_new = answered(world, new_questions, m, seed_words, verifier)
                answers += new
                A_sol = torch.cat([A_sol, A_new])                           # (Q, m)
            mixed = has_gradient(A_sol).nonzero()[:, 0].tolist()
            if len(mixed) >= wanted:
                break

    mixed_dev = int(has_gradient(A_dev).sum())
    if not mixed or not mixed_dev:
        raise InputError(
            f"nothing to measure: {len(mixed)} of {len(questions)} generated questions and "
            f"{mixed_dev} of {len(world.dev)} dev questions have mixed answers; "
            "expected at least one each")
    n_documents = (later - t + 1) * cfg.docs_per_step
    return Sample(dev_answers, A_dev, questions, slots, answers, A_sol, mixed, n_documents)


def valid_questions(world, t):
    """What the generator writes in iteration t -> [(number of the document, question), ...]."""
    cfg = world.cfg
    numbers = document_batch(len(world.documents), cfg.docs_per_step, cfg.seed, t - 1)
    batch = [world.documents[i] for i in numbers]
    seed_words = (cfg.seed, t, "generator", "write")
    drafts = generator_role.write_questions(
        world.generator, batch, seed_words, cfg, world.solver)              # (D, n)

    valid = []
    for d, group in enumerate(drafts):
        valid += [(d, draft.question) for draft in group if draft.question]
    return valid


def answered(world, questions, m, seed_words, verifier):
    """-> (Q, m) answers, (Q, m) advantages."""
    answers = solver_role.answer_questions(
        world.solver, questions, m, seed_words, world.cfg, what=seed_words[3])
    r = solver_role.shared_rewards(questions, answers, verifier)            # (Q, m)
    return answers, solver_role.advantages(r)


def scores(solver, answers, A_sol, g_dev, cfg, similarity=METHOD):
    """(Q, m) answers -> (Q,) s_hat."""
    cfg = replace(cfg, similarity=similarity)
    return influence_scores(solver, answers, A_sol, g_dev, cfg)[0]


# ---------------------------------------------------------------- what is predicted

def gradient(solver, answers, A_sol, chosen, denominator, cfg):
    """Gradient of the loss on the chosen questions' answers, like solver.params.

    Divided by m Tbar it is g_q; by B Tbar, a part of a mini-batch.
    """
    groups = [(q, answers[q]) for q in chosen]
    return influence.gradient(solver, groups, A_sol, denominator, cfg)


def other_directions(g, m, v, k, cfg):
    """One tensor's gradient, both moments and step count -> {name: direction}.

    Those that influence.py does not offer. "still" is the step of a zero gradient, common to all
    questions; "frozen" needs a history.
    """
    t = k + 1
    v_new = cfg.beta2 * v + (1 - cfg.beta2) * g * g
    root = (v_new / (1 - cfg.beta2 ** t)).sqrt() + cfg.adam_eps
    still_root = (cfg.beta2 * v / (1 - cfg.beta2 ** t)).sqrt() + cfg.adam_eps
    m_new = cfg.beta1 * m + (1 - cfg.beta1) * g

    directions = {"first_moment": m_new / (1 - cfg.beta1 ** t) / root,
                  "still": cfg.beta1 * m / (1 - cfg.beta1 ** t) / still_root}
    if k:
        directions["frozen"] = g / ((v / (1 - cfg.beta2 ** k)).sqrt() + cfg.adam_eps)
    return directions


def other_predictions(solver, g, g_dev, cfg):
    """Gradient of one question -> {"first_moment_cosine": ..., "first_moment_dot": ...}.

    And frozen_cosine, frozen_dot, if AdamW has a history. The dot of the first moment is less that
    of a zero gradient.
    """
    totals = {}
    for p, part, dev in zip(solver.params, g, g_dev):
        v, k = second_moment(solver.optimizer, p)
        m = solver.optimizer.state[p]["exp_avg"] if k else v
        for name, direction in other_directions(part, m, v, k, cfg).items():
            both = torch.stack([(dev * direction).sum(), direction.square().sum()])
            totals[name] = totals.get(name, 0) + both.double()

    still = float(totals.pop("still")[0])
    predicted = {}
    for name, both in totals.items():
        dot, squares = both.tolist()
        predicted[f"{name}_cosine"] = dot / max(norm(g_dev) * math.sqrt(squares), 1e-12)
        predicted[f"{name}_dot"] = dot - (still if name == "first_moment" else 0.0)
    return predicted


def predictions(world, sample, chosen, g_dev, g_exact=None):
    """-> {name: (len(chosen),) list}: every prediction for every chosen question.

    g_exact: gradient of the exact accuracy, as a loss.
    """
    solver = world.solver
    cfg = world.cfg

    def scored(g, similarity):
        s_hat = scores(solver, sample.answers, sample.A_sol, g, cfg, similarity)    # (Q,)
        return s_hat[chosen].tolist()

    predicted = {similarity: scored(g_dev, similarity) for similarity in config.SIMILARITIES}
    if g_exact:
        for kind in ("cosine", "dot"):
            predicted[f"exact_dev_{kind}"] = scored(g_exact, f"preconditioned_{kind}")

    others = []
    denominator = question_denominator(sample)
    for q in chosen:
        g = gradient(solver, sample.answers, sample.A_sol, [q], denominator, cfg)
        others.append(other_predictions(solver, g, g_dev, cfg))
    together = columns(others)
    return predicted | {name: together[name] for name in sorted(together)}


def question_denominator(sample):
    """m Tbar of the sample, as in influence_scores."""
    kept = [sample.answers[q] for q in sample.mixed]
    return len(kept[0]) * mean_length(kept)


def columns(lines):
    """List of {name: number} -> {name: list}."""
    found = {}
    for name in lines[0]:
        found[name] = [line[name] for line in lines]
    return found


# ---------------------------------------------------------------- what is measured

class Objective:
    """The dev set's objectives, set up at the solver's present weights.

    values() is one forward pass over a tree per question. losses: {"loss", and where accuracy is
    not exact "fresh": see weigh()}.
    """

    def __init__(self, world, sample):
        cfg = world.cfg
        solver = world.solver
        self.cfg = cfg
        trees = enumerated(solver, world.dev, sample.dev_answers, cfg)
        self.exact = trees is not None
        self.trees = trees if self.exact else expected.plant(solver, world.dev, cfg.prompts)

        # Sampled answers stand in the same trees.
        answered_twice = {"loss": (sample.dev_answers, sample.A_dev)}
        if not self.exact:
            answered_twice["fresh"] = second_answers(world)
            if not has_gradient(answered_twice["fresh"][1]).any():
                raise InputError(f"of {len(world.dev)} dev questions, answered again, none got "
                                 "right and wrong answers, so there is no loss; expected more, by "
                                 "--dev")
        nodes = {}
        for name, (answers, _) in answered_twice.items():
            nodes[name] = add_answers(self.trees, answers)

        self.layout = expected.Layout(solver, self.trees, cfg)
        self.accuracy = expected.Accuracy(self.layout) if self.exact else None
        self.old = self.layout.logps(solver, cfg)                           # (nodes,)
        self.losses = {}
        for name, (answers, A) in answered_twice.items():
            self.losses[name] = self.weigh(nodes[name], answers, A)

    def weigh(self, nodes, answers, A):
        """-> (tokens,) node of each token of the kept answers, (tokens,) A w / (N Tbar)."""
        kept = has_gradient(A).nonzero()[:, 0].tolist()
        N = len(kept) * A.shape[1]
        denominator = N * mean_length([answers[q] for q in kept])

        index, sampler, A_token = [], [], []
        for q in kept:
            for path, answer, advantage in zip(nodes[q], answers[q], A[q].tolist()):
                index += [self.layout.start[q] + node for node in path]
                sampler += answer.logp
                A_token += [advantage] * len(path)

        index = torch.tensor(index)
        sampler = torch.tensor(sampler, dtype=torch.float64)
        A_token = torch.tensor(A_token, dtype=torch.float64)
        w = (self.old.cpu()[index] - sampler).clamp(-20, 20).exp().clamp(max=self.cfg.tis_cap)
        return index, A_token * w / denominator

    def parts(self, logp):
        """(nodes,) logp -> {"loss", "fresh" or "accuracy" and "mass"}: differentiable scalars."""
        logp = logp.cpu()
        old = self.old.cpu()
        values = {}
        for name, (index, weight) in self.losses.items():
            rho = (logp[index] - old[index]).exp()                          # (tokens,)
            values[name] = -(weight * rho).sum()
        if self.exact:
            values["accuracy"], values["mass"] = self.accuracy(logp)
        return values

    def values(self, solver):
        parts = self.parts(self.layout.logps(solver, self.cfg))
        return {name: float(value) for name, value in parts.items()}

    def exact_gradient(self, solver, cfg):
        """Gradient of minus the expected accuracy, like g_dev; None where it cannot be enumerated.
        """
        if not self.exact:
            return None
        return self.layout.gradient(solver, cfg, lambda logp: -self.parts(logp)["accuracy"])


def enumerated(solver, questions, answers, cfg):
    """M questions, (M, m) sampled answers -> M trees of all likely answers and these, or None where
    they cannot be enumerated.
    """
    if not all(question.choices for question in questions):
        return None
    # one question tells soon where all have too many answers
    if not expected.grow(solver, expected.plant(solver, questions[:1], cfg.prompts), cfg):
        return None
    trees = expected.plant(solver, questions, cfg.prompts)
    add_answers(trees, answers)
    return trees if expected.grow(solver, trees, cfg) else None


def add_answers(trees, answers):
    """(M, m) answers put into their M trees -> (M, m) lists of nodes."""
    nodes = []
    for tree, group in zip(trees, answers):
        nodes.append([tree.add_answer(answer.response) for answer in group])
    return nodes


def second_answers(world, what="fresh", m=None):
    """-> answers and advantages of the dev questions, independent of those that g_dev comes from.

    The random numbers are those of `what`. m: answers to each, the run's own number unless given.
    """
    seed_words = (world.cfg.seed, world.iteration + 1, "solver", what)
    with Verifier() as verifier:
        return answered(
            world, world.dev, m or world.cfg.answers_per_question, seed_words, verifier)


def adamw(solver, **changes):
    """A new AdamW without history for the solver, with the settings of its own but for the changes.
    """
    names = ("lr", "betas", "eps", "weight_decay")
    settings = {name: solver.optimizer.defaults[name] for name in names}
    return torch.optim.AdamW(solver.params, **settings | changes)


@contextlib.contextmanager
def after(solver, take, lr, beta1=0.0, weight_decay=0.0):
    """Inside: the solver after take() with a copy of its AdamW.

    Afterwards weights and AdamW are what they were, bit for bit.
    """
    weights = [p.detach().clone() for p in solver.params]
    own = solver.optimizer
    betas = (beta1, own.defaults["betas"][1])
    solver.optimizer = adamw(solver, lr=lr, betas=betas, weight_decay=weight_decay)
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
    own = solver.optimizer
    solver.optimizer = adamw(solver)
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
        self.world = world
        self.sample = sample
        self.objective = objective
        self.before = objective.values(world.solver)
        self.still = {}         # {learning rate: what the trainer's step of a zero gradient does}

    def improvement(self, take, lr, **settings):
        with after(self.world.solver, take, lr, **settings):
            now = self.objective.values(self.world.solver)
        gains = {}
        for name, value in now.items():
            sign = 1 if name in ("accuracy", "mass") else -1
            gains[name] = (value - self.before[name]) * sign
        return gains

    def along(self, chosen, denominator, lr):
        """A step without momentum or decay along the gradient of some questions."""
        solver = self.world.solver
        g = gradient(solver, self.sample.answers, self.sample.A_sol, chosen, denominator,
                     self.world.cfg)
        return self.improvement(lambda: step_along(solver, g), lr)

    def trainer(self, q, lr):
        """The run's own update on one question alone.

        Less the step of a zero gradient, which is common to all questions and taken once.
        """
        solver = self.world.solver
        cfg = self.world.cfg
        settings = dict(lr=lr, beta1=cfg.beta1, weight_decay=cfg.weight_decay)

        def stand_still():
            step_along(solver, [torch.zeros_like(p) for p in solver.params])

        def train():
            update(solver, [self.sample.answers[q]], self.sample.A_sol[q:q + 1], cfg)

        if lr not in self.still:
            self.still[lr] = self.improvement(stand_still, **settings)
        own = self.improvement(train, **settings)
        return {name: own[name] - self.still[lr][name] for name in own}


def bar(items, what):
    return progress_bar(items, desc=what, unit="step")


# ---------------------------------------------------------------- do they agree

def ranks_of(x):
    """(..., Q) -> ranks along the last axis, ties sharing their mean."""
    below = (x[..., None, :] < x[..., :, None]).sum(-1)
    equal = (x[..., None, :] == x[..., :, None]).sum(-1)
    return below + (equal + 1) / 2


def correlation(x, y):
    """(..., Q) twice -> Pearson's r along the last axis; nan where one of them does not vary."""
    x = x - x.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def rank_correlation(x, y):
    """(..., Q) twice -> Spearman's rho along the last axis."""
    return correlation(ranks_of(x), ranks_of(y))


def same_sign(x, y):
    """(..., Q) twice -> share of pairs with one sign."""
    return (np.sign(x) == np.sign(y)).mean(-1)


STATISTICS = {"pearson": correlation, "spearman": rank_correlation, "sign": same_sign}


def bootstrap(statistic, n, repeats=1000, seed=0):
    """statistic: (B, n) item numbers -> (B,). Returns [value, low, high].

    A 95 % percentile interval over items; nan below 3.
    """
    again = np.random.default_rng(seed).integers(0, n, (repeats, n))
    # so many at once that (B, n, n) comparisons stay small
    pieces = np.array_split(again, max(1, again.size * n // 10 ** 7))
    values = np.concatenate([statistic(some) for some in pieces])           # (repeats,)
    low, high = np.nan, np.nan
    if n > 2 and not np.isnan(values).all():
        low, high = np.nanpercentile(values, [2.5, 97.5])
    return [float(statistic(np.arange(n)[None])[0]), float(low), float(high)]


def agreement(predicted, real):
    """(Q,) twice -> {"pearson", "spearman", "sign": [value, low, high]}."""
    x = np.array(predicted, dtype=float)
    y = np.array(real, dtype=float)
    found = {}
    for name, statistic in STATISTICS.items():
        found[name] = bootstrap(lambda some: statistic(x[some], y[some]), len(x))
    return found


def lead(predicted, other, real):
    """-> [value, low, high]: by how much Spearman's rho with what is real is above another's.

    Paired: every bootstrap sample holds the same questions for both predictions.
    """
    x = np.array(predicted, dtype=float)
    other = np.array(other, dtype=float)
    y = np.array(real, dtype=float)

    def difference(some):
        return rank_correlation(x[some], y[some]) - rank_correlation(other[some], y[some])

    return bootstrap(difference, len(x))


# ---------------------------------------------------------------- one state

def study(world, sample, chosen, sizes, batches, warm):
    """-> what is reported of one state.

    Predictions and changes per question, their agreement, and how mini-batches add up.
    """
    cfg = world.cfg
    solver = world.solver
    objective = Objective(world, sample)
    g_dev = dev_gradient(solver, sample.dev_answers, sample.A_dev, cfg)
    g_exact = objective.exact_gradient(solver, cfg)
    predicted = predictions(world, sample, chosen, g_dev, g_exact)

    measure = Measure(world, sample, objective)
    alone = question_denominator(sample)                                    # m Tbar
    share = cfg.minibatch_rows * alone / len(sample.answers[0])             # B Tbar

    def steps(denominator, lr, what):
        return columns([measure.along([q], denominator, lr) for q in bar(chosen, what)])

    real = {}
    for size in sizes:
        what = f"learning rate x {size:g}"
        real[f"gamma {size:g}"] = steps(alone, size * cfg.solver_lr, what)
    if warm:
        real["trainer 1"] = columns(
            [measure.trainer(q, cfg.solver_lr) for q in bar(chosen, "trainer")])

    result = {
        "before": measure.before, "exact": objective.exact,
        "cosine of g_dev with the exact gradient": cosine(g_dev, g_exact),
        "predicted": predicted, "real": real,
        "agreement": {step: agreements(predicted, gains) for step, gains in real.items()},
        "method less raw": {step: leads(predicted, gains) for step, gains in real.items()}}
    if batches:
        real["share 1"] = steps(share, cfg.solver_lr, "shares")
        result["batches"] = add_up(measure, chosen, real, share, batches, cfg)
    return result


def goals(gains):
    """{name: list} -> the same without the mass of a tree, which is no objective."""
    return {goal: values for goal, values in gains.items() if goal != "mass"}


def leads(predicted, gains):
    """-> {objective: by how much the method's Spearman is above the raw cosine's}."""
    found = {}
    for goal, y in goals(gains).items():
        found[goal] = lead(predicted[METHOD], predicted["cosine"], y)
    return found


def agreements(predicted, gains):
    """-> {prediction: {objective: agreement}}."""
    found = {}
    for name, x in predicted.items():
        found[name] = {goal: agreement(x, y) for goal, y in goals(gains).items()}
    return found


def cosine(a, b):
    """Two lists of tensors -> their cosine; None if one of them is None."""
    if a is None or b is None:
        return None
    return float(sum((x * y).sum() for x, y in zip(a, b))) / (norm(a) * norm(b))


def add_up(measure, chosen, real, share, batches, cfg):
    """One step on a mini-batch against its questions' single steps.

    -> {"size", objective: {"batch", "sum of shares", ...}}
    """
    size = min(len(chosen), cfg.minibatch_rows // cfg.answers_per_question)
    parts = partitions(len(chosen), size, batches, cfg.seed)
    gains = []
    for part in bar(parts, "batches"):
        gains.append(measure.along([chosen[i] for i in part], share, cfg.solver_lr))

    found = {"size": size}
    for goal, whole in columns(gains).items():
        singles = {"sum of shares": sums(real["share 1"][goal], parts)}
        if "gamma 1" in real:
            gammas = sums(real["gamma 1"][goal], parts)
            singles["mean of gamma"] = [x / size for x in gammas]
        found[goal] = {"batch": whole} | singles
        for name, x in singles.items():
            found[goal][f"{name}: agreement"] = agreement(x, whole)
        for name, x in singles.items():
            found[goal][f"{name}: ratio"] = sum(x) / sum(whole)
    return found


def partitions(n, size, wanted, seed):
    """-> so many lists of `size` numbers below n: random partitions into mini-batches."""
    rng = random.Random(seed)
    parts = []
    while len(parts) < wanted:
        order = rng.sample(range(n), n)
        parts += [order[i:i + size] for i in range(0, n - size + 1, size)]
    return parts[:wanted]


def sums(values, parts):
    """-> the sum of the values over each part."""
    found = []
    for part in parts:
        found.append(sum(values[i] for i in part))
    return found


# ---------------------------------------------------------------- the figure

RED = "#c2410c"
SLATE = "#475569"
GREY = "#94a3b8"

COLOURS = {"cosine": SLATE, METHOD: RED, "preconditioned_dot": "#0f766e"}
NAMES = {"cosine": "raw cosine", METHOD: "influence", "preconditioned_dot": "its dot product"}
MARKS = {"warm": "o", "cold": "x", "anchor": "+"}
STYLES = {"warm": ("-", "solid"), "cold": ("--", "dashed"), "anchor": (":", "dotted")}


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
    # without a date, the same numbers give the same file
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None, dpi=150)


def draw_figure(report, path):
    """Predicted against real in the first run's first state and in the second run's.

    Of one run, the second panel is by the raw cosine. Below, all states of the first run: Spearman
    by size of step, and mini-batches against their questions.
    """
    plt = pyplot("--figure", **{"font.size": 8.5})
    runs = report["runs"]
    states = runs[0]["states"]
    figure, axes = plt.subplots(2, 2, figsize=(6.25, 5.4))
    draw_gains(axes[0, 0], runs[0], METHOD)
    if len(runs) > 1:
        draw_gains(axes[0, 1], runs[1], METHOD)
    else:
        draw_gains(axes[0, 1], runs[0], "cosine")
    draw_sizes(axes[1, 0], states)
    draw_batches(axes[1, 1], states)
    finish(figure, axes.flat, path)


def goal_of(state):
    """-> the objective to show, its unit, and what to multiply it by."""
    return ("accuracy", "accuracy, points", 100) if state["exact"] else ("fresh", "dev loss", 1)


def draw_gains(ax, run, prediction):
    """Each point a question of the run's first state: what was predicted, and what its step did."""
    name, state = next(iter(run["states"].items()))
    goal, unit, scale = goal_of(state)
    step = "gamma 1" if "gamma 1" in state["real"] else next(iter(state["real"]))
    gain = [scale * y for y in state["real"][step][goal]]
    ax.plot(state["predicted"][prediction], gain, "o", markersize=3.5, alpha=0.8,
            color=COLOURS[prediction])

    rho = state["agreement"][step][prediction][goal]["spearman"][0]
    ax.set(title=f"{NAMES[prediction]}, {name}, after {state['iteration']}: Spearman {rho:.2f}",
           xlabel="predicted", ylabel=f"real gain ({unit})")
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.axvline(0, color=GREY, linewidth=0.8)


def draw_sizes(ax, states):
    """Spearman by size of step, a line per prediction and state."""
    first = next(iter(states))
    goal = goal_of(states[first])[0]
    for label, state in states.items():
        agreed = state["agreement"]
        sizes = sorted(float(step.split()[1]) for step in agreed if step.startswith("gamma"))
        for prediction, colour in COLOURS.items():
            rho = [agreed[f"gamma {size:g}"][prediction][goal]["spearman"] for size in sizes]
            name = NAMES[prediction] if label == first else None
            line_with_interval(ax, sizes, rho, colour, name, STYLES[label][0],
                               band=prediction == METHOD)

    ax.set(title="Spearman, " + ", ".join(f"{label}: {STYLES[label][1]}" for label in states),
           xlabel="size of the step, times the learning rate", xscale="log", ylim=(None, 1.02))
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=7)


def draw_batches(ax, states):
    """Each point a mini-batch: the sum of its questions' steps against one step on all of them."""
    goal, unit, scale = goal_of(next(iter(states.values())))
    ends = []
    for label, state in states.items():
        if "batches" in state:
            found = state["batches"][goal]
            x = [scale * value for value in found["sum of shares"]]
            y = [scale * value for value in found["batch"]]
            colour = RED if label == "warm" else SLATE
            ax.plot(x, y, MARKS[label], markersize=4, label=label, color=colour)
            ends += x + y
    if ends:
        diagonal = [min(ends), max(ends)]
        ax.plot(diagonal, diagonal, color=GREY, linewidth=0.8)
        ax.legend(frameon=False)
    ax.set(title="one step on a mini-batch", xlabel="sum of its questions' gains",
           ylabel=f"real gain ({unit})")


# ---------------------------------------------------------------- the command

def table(name, state):
    """One state -> lines to print."""
    before = ", ".join(f"{goal} {value:.4f}" for goal, value in state["before"].items())
    n = len(state["predicted"][METHOD])
    lines = ["", f"{name}: {n} questions; dev before: {before}"]
    if state["exact"]:
        with_exact = state["cosine of g_dev with the exact gradient"]
        lines.append(f"cosine of g_dev with the gradient of the exact accuracy: {with_exact:.3f}")

    lines.append(f"{'step':12}{'prediction':24}{'of':10}"
                 f"{'Pearson':>22}{'Spearman':>22}{'same sign':>22}")
    for step, agreed in state["agreement"].items():
        shown = agreed
        if step not in ("gamma 1", "trainer 1"):
            shown = {prediction: agreed[prediction] for prediction in COLOURS}
        for prediction, by_goal in shown.items():
            for goal, found in by_goal.items():
                numbers = "".join(map(with_interval, found.values()))
                lines.append(f"{step:12}{prediction:24}{goal:10}{numbers}")

    for step, by_goal in state["method less raw"].items():
        found = []
        for goal, (value, low, high) in by_goal.items():
            found.append(f"{goal} {value:+.2f} [{low:+.2f}, {high:+.2f}]")
        lines.append(f"{step}: Spearman of {METHOD} less that of the raw cosine: "
                     + ", ".join(found))
    return lines + batch_lines(state.get("batches", {"size": 0}))


def with_interval(x, width=8):
    """[value, low, high] -> text.

    >>> with_interval([0.5, -0.25, 1])
    '    0.50 [-0.25, 1.00]'
    """
    value, low, high = x
    return f"{value:{width}.2f} [{low:5.2f},{high:5.2f}]"


def batch_lines(batches):
    """What add_up found, or {"size": 0} -> lines to print."""
    lines = []
    objectives = {goal: found for goal, found in batches.items() if goal not in ("size", "mass")}
    for goal, found in objectives.items():
        for single in ("sum of shares", "mean of gamma"):
            if single not in found:
                continue
            r, low, high = found[f"{single}: agreement"]["pearson"]
            lines.append(f"one step on {batches['size']} questions, {goal}: "
                         f"{single} / batch {found[f'{single}: ratio']:.2f}, "
                         f"Pearson over {len(found['batch'])} batches "
                         f"{r:.2f} [{low:.2f}, {high:.2f}]")
    return lines


def run_states(run, args, report):
    """Adds one run to the report.

    Prints a table and writes the file after each state, since a state takes minutes.
    """
    found = {"run": run_name(run), "states": {}}
    report["runs"].append(found)
    loaded = None
    for name in args.states:
        # warm and cold share their weights, and what is sampled from them
        weights = "anchor" if name == "anchor" else "checkpoint"
        if weights != loaded:
            loaded = weights
            world = load(run, name == "anchor", args.dev, args.threads)
            sample = draw(world, world.cfg.answers_per_question, args.questions)
            n = min(args.questions, len(sample.mixed))
            chosen = sorted(random.Random(world.cfg.seed).sample(sample.mixed, n))

        found.update(seed=world.cfg.seed, solver_lr=world.cfg.solver_lr,
                     dev_questions=len(world.dev))
        warm = name == "warm"
        with contextlib.nullcontext() if warm else without_history(world.solver):
            state = study(world, sample, chosen, args.sizes, args.batches, warm)
        state |= {"iteration": world.iteration,
                  "adam_steps": checkpoint.policy_steps(world.solver) if warm else 0,
                  "documents": [sample.slots[q] for q in chosen],
                  "questions": [vars(sample.questions[q]) for q in chosen]}

        found["states"][name] = state
        title = f"{run}, {name}, after iteration {world.iteration}"
        print("\n".join(table(title, state)), flush=True)
        if args.json:
            write_json(args.json, report)


def listed(kind, allowed=None):
    """-> what argparse needs to read a list with commas."""
    def read(text):
        values = [kind(word) for word in text.split(",")]
        if kind is not str and not all(0 < value <= MANY for value in values):
            raise argparse.ArgumentTypeError(f"expected numbers above 0, up to {MANY:,}")
        if allowed and set(values) - set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}")
        return values
    return read


def run_name(run):
    return os.path.basename(os.path.normpath(run))


def heading(module, argv):
    """-> {"command", "commit"} of a report, without any machine's paths."""
    words = sys.argv[1:] if argv is None else argv
    words = [run_name(word) if os.sep in word else word for word in words]
    return {"command": " ".join(["python", "-m", module] + words), "commit": frozen.commit()}


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
    if isinstance(x, float):
        return float(f"{x:.6g}") if math.isfinite(x) else None
    return x


def parser_of(module, text):
    """-> an argparse parser whose help begins with a module's header."""
    return Parser(f"python -m {module}", text)


def read_arguments(argv):
    parser = parser_of("studies.reality", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--questions", type=int, default=48,
                        help="how many questions with mixed answers to step on")
    parser.add_argument("--states", type=listed(str, STATES), default=["warm", "cold"],
                        help="some of warm,cold,anchor")
    parser.add_argument("--sizes", type=listed(float), default=list(SIZES),
                        help="times the run's learning rate")
    parser.add_argument("--batches", type=int, default=16,
                        help="mini-batches to compare with the sum of their questions; 0: none")
    parser.add_argument("--dev", type=int, help="only the first so many dev questions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figure", metavar="FILE", help="needs matplotlib")
    args = parser.parse_args(argv)
    if args.questions < 3:
        raise InputError(f"--questions {args.questions}: expected at least 3, "
                         "there is no correlation of fewer")
    return args


def main(argv=None):
    args = read_arguments(argv)
    report = heading("studies.reality", argv) | {"runs": []}
    for run in args.runs:
        run_states(run, args, report)
    if args.figure:
        draw_figure(report, args.figure)


if __name__ == "__main__":
    run_script(main)
