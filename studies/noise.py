"""How noisy is the reward? The same score from two disjoint halves of the answers, or of the dev
set: how far do the two agree?

    python -m studies.noise runs/NAME               # tables; the embedded world takes minutes
    python -m studies.noise runs/NAME --questions 96 --json out.json --figure out.svg

    r(s1, s2)   = Pearson's correlation over questions: the reliability of a score from one half
    doubled     = 2 r / (1 + r), Spearman-Brown: what to expect of a score from both halves
    share_d     = sum of A_gen^2 of document d / sum of all A_gen^2: its part of the update
    repeated    = <A1, A2> / (|A1| |A2|) over all drafts; 1: the same update twice, 0: noise

    code     symbol     shape      meaning
    s1, s2   s_hat      (Q,)       scores of all valid questions from two halves; 0 where flat
    m        m          ()         answers per question in each half
    M        M          ()         dev questions in each half
    sigma    sigma_d    (D,)       std of a document's n scores, invalid drafts too; of both halves
    A1, A2   A_gen      (D, n)     advantages from s1 and from s2, under each --advantage

Halves are made of `answers` to each generated question, with one g_dev from all dev answers; of
answers to generated and to dev questions, `both`, the whole reward measured twice at the same
weights; or of `dev` questions, with the same answers. Advantages are those of `both` at the run's
own m. The sample is what train.py would draw next, with more answers to each question. Intervals
are 95 % percentile bootstraps over questions, and over documents for advantages. Ours: the paper
gives noise as the reason for DuGRPO, this shows how large it is in a run.
"""
import random

import numpy as np
import torch

from studies import reality
from data import InputError
from dugrpo import MODES, center, dugrpo
from engine.outputs import pyplot
from engine.progress import bar
from engine.speech import run_script
from influence import dev_gradient
from rewards import REWARDS

ANSWERS = (2, 4, 8, 16)
DEV = (10, 20, 40, 80)


# ---------------------------------------------------------------- scores of halves

def part(answers, A, columns):
    """(Q, m) answers and advantages -> those of some columns, the advantages centred again.

    Flat groups come out as zeros, as in training.
    """
    chosen = []
    for group in answers:
        chosen.append([group[i] for i in columns])
    return chosen, center(A[:, columns])


def score(world, answers, A, dev_answers, A_dev):
    """-> (Q,) s_hat as an array."""
    cfg = world.cfg
    g_dev = dev_gradient(world.solver, dev_answers, A_dev, cfg)
    s_hat = reality.scores(world.solver, answers, A, g_dev, cfg, cfg.similarity)
    return s_hat.double().numpy()


def split_answers(world, sample, m, g_dev_columns):
    """Two halves of m answers each -> [s1, s2].

    g_dev_columns: which dev answers each half is compared with.
    """
    half = sample.A_sol.shape[1] // 2
    scored = []
    for start, columns in zip((0, half), g_dev_columns):
        mine = part(sample.answers, sample.A_sol, list(range(start, start + m)))
        dev = part(sample.dev_answers, sample.A_dev, columns)
        scored.append(score(world, *mine, *dev))
    return scored


def split_dev(world, sample, M, m, seed):
    """Two disjoint sets of M dev questions, m answers to every question -> [s1, s2]."""
    rng = random.Random(f"{world.cfg.seed} {M} {seed}")
    order = rng.sample(range(len(world.dev)), 2 * M)
    columns = list(range(m))
    answers, A = part(sample.answers, sample.A_sol, columns)
    dev_answers, A_dev = part(sample.dev_answers, sample.A_dev, columns)

    scored = []
    for some in (order[:M], order[M:]):
        scored.append(score(world, answers, A, [dev_answers[i] for i in some], A_dev[some]))
    return scored


def reliability(pairs):
    """[(s1, s2), ...] of the same questions, a pair per way of halving -> {"r", "doubled"}.

    Each [value, low, high]; doubled is r by Spearman-Brown.
    """
    both = [(np.asarray(s1), np.asarray(s2)) for s1, s2 in pairs]

    def r(some):
        return np.mean([reality.correlation(s1[some], s2[some]) for s1, s2 in both], axis=0)

    value = reality.bootstrap(r, len(both[0][0]))
    return {"r": value, "doubled": [spearman_brown(x) for x in value]}


def spearman_brown(r):
    """Reliability of a half -> of a test twice as long; of no use at r = -1.

    >>> spearman_brown(0.5)
    0.6666666666666666
    """
    return 2 * r / (1 + r) if r > -1 else float("nan")


# ---------------------------------------------------------------- what normalisations make of it

def grid(sample, s, n, invalid_score):
    """(Q,) scores -> (D, n) grid, the rest filled up with the score of an invalid draft.

    Order within a document does not matter here.
    """
    scores = [[] for _ in range(sample.n_documents)]
    for d, x in zip(sample.slots, s):
        scores[d].append(float(x))
    filled = [mine + [invalid_score] * (n - len(mine)) for mine in scores]
    return torch.tensor(filled, dtype=torch.float64)                        # (D, n)


def normalisations(s1, s2):
    """(D, n) scores of two halves -> {"sigma": (D,), mode: {...}, "each": (D,), "thirds", ...}.

    Of each mode "share" (D,), "repeated", and "low_share", that of the half of the documents with
    the smaller sigma. thirds: repeated by third of sigma, each on its own scale. D counts the
    documents that are flat in neither half.
    """
    varies = (s1.amax(1) > s1.amin(1)) & (s2.amax(1) > s2.amin(1))
    alive = varies.numpy()
    if not alive.any():
        raise InputError(f"all of the {len(s1)} documents are flat in one of the halves, "
                         "so there is no advantage; draw more --questions")
    sigma = ((s1.std(1) + s2.std(1)) / 2).numpy()[alive]                    # (D alive,)
    D = len(sigma)
    order = np.argsort(sigma)
    low = np.isin(np.arange(D), order[:D // 2])

    found = {"documents": len(s1), "flat": int((~alive).sum()), "sigma": sigma.tolist()}
    for mode in MODES:
        A1, A2 = advantages(s1, s2, mode, alive)                            # (D alive, n)
        found[mode] = of_mode(A1, A2, low)

    # every document on its own scale
    A1, A2 = advantages(s1, s2, "group_std", alive)
    found["each"] = repeated(A1[:, None], A2[:, None]).tolist()
    found["thirds"] = []
    for some in np.array_split(order, min(3, D)):
        value = bootstrap_repeated(A1[some], A2[some])
        found["thirds"].append({"sigma": float(sigma[some].mean()), "repeated": value})
    return found


def advantages(s1, s2, mode, alive):
    """(D, n) scores of two halves -> A1, A2, (D alive, n) each."""
    return [dugrpo(s, mode).numpy()[alive] for s in (s1, s2)]


def of_mode(A1, A2, low):
    """(D, n) advantages twice, (D,) booleans -> {"share", "repeated", "low_share"}."""
    squares = A1 ** 2 + A2 ** 2
    share = squares.sum(1) / squares.sum()                                  # (D,)

    def low_share(some):
        return (share[some] * low[some]).sum(-1) / share[some].sum(-1)

    return {"share": share.tolist(), "repeated": bootstrap_repeated(A1, A2),
            "low_share": reality.bootstrap(low_share, len(share))}


def bootstrap_repeated(A1, A2):
    """(D, n) twice -> [value, low, high] of repeated() over documents."""
    return reality.bootstrap(lambda some: repeated(A1[some], A2[some]), len(A1))


def repeated(A1, A2):
    """(..., D, n) twice -> (...,) cosine over all drafts."""
    def over(x):
        return x.sum((-1, -2))

    with np.errstate(invalid="ignore", divide="ignore"):
        return over(A1 * A2) / np.sqrt(over(A1 * A1) * over(A2 * A2))


# ---------------------------------------------------------------- the command

def study(world, args):
    """-> the report's numbers."""
    cfg = world.cfg
    m = cfg.answers_per_question
    n = cfg.questions_per_doc
    half = max(args.answers + [m])
    sample = reality.draw(world, 2 * half, args.questions)
    pairs = every_split(world, sample, args, half)

    # whatever paid the run, these are scores of influence
    s1, s2 = [grid(sample, s, n, REWARDS["influence"][1]) for s in pairs["both"][m][0]]
    return {"iteration": world.iteration, "seed": cfg.seed, "m": m, "n": n,
            "dev_questions": len(world.dev), "questions": len(sample.questions),
            "documents_read": sample.n_documents,
            "reliability": by_split(pairs, reliability), "scores": by_split(pairs, as_lists),
            "advantage": normalisations(s1, s2)}


def every_split(world, sample, args, half):
    """-> {split: {size of a half: [[s1, s2] per way of halving]}}."""
    m = world.cfg.answers_per_question
    everything = list(range(2 * half))
    pairs = {"answers": {}, "both": {}, "dev": {}}
    for size in bar(sorted({*args.answers, m}), desc="answers per question"):
        one_g_dev = (everything, everything)
        own_g_dev = (list(range(size)), list(range(half, half + size)))
        pairs["answers"][size] = [split_answers(world, sample, size, one_g_dev)]
        pairs["both"][size] = [split_answers(world, sample, size, own_g_dev)]

    possible = [M for M in args.dev if 2 * M <= len(world.dev)]
    for M in bar(possible, desc="dev questions"):
        pairs["dev"][M] = [split_dev(world, sample, M, m, i) for i in range(args.splits)]
    return pairs


def by_split(pairs, of):
    """{split: {size: pairs}} -> {split: {size: of(pairs)}}."""
    found = {}
    for split, by_size in pairs.items():
        found[split] = {size: of(some) for size, some in by_size.items()}
    return found


def as_lists(pairs):
    return [[s1.tolist(), s2.tolist()] for s1, s2 in pairs]


def table(run, report):
    """-> lines to print."""
    def shown(x):
        return reality.with_interval(x, 6)

    lines = ["", f"{run}, after iteration {report['iteration']}: {report['questions']} valid "
             f"questions from {report['documents_read']} documents, {report['dev_questions']} "
             "dev questions",
             f"{'split':10}{'size of a half':>16}{'r of the halves':>24}{'both together':>24}"]
    for split, by_size in report["reliability"].items():
        unit = "dev" if split == "dev" else "answers"
        for size, x in by_size.items():
            lines.append(f"{split:10}{f'{size} {unit}':>16}"
                         f"{shown(x['r']):>24}{shown(x['doubled']):>24}")

    advantage = report["advantage"]
    lines += ["", f"{len(advantage['sigma'])} documents that are not flat",
              f"{'advantage':12}{'repeated':>24}{'share of the calmer half':>28}"]
    for mode in MODES:
        x = advantage[mode]
        lines.append(f"{mode:12}{shown(x['repeated']):>24}{shown(x['low_share']):>28}")
    for third in advantage["thirds"]:
        lines.append(f"documents of sigma near {third['sigma']:.4f}: "
                     f"repeated {shown(third['repeated'])}")
    return lines


# ---------------------------------------------------------------- the figure

COLOURS = {"dugrpo": reality.RED, "group_std": reality.SLATE, "batch_std": "#0f766e",
           "none": "#7c3aed"}


def draw_figure(report, path):
    """Four panels: reliability by answers and by dev questions; by sigma, a document's share of the
    update and how much of that repeats.
    """
    plt = pyplot("--figure", **{"font.size": 8.5})
    figure, axes = plt.subplots(2, 2, figsize=(6.25, 5.2))
    found = report["reliability"]
    by_answers = {"question's answers split": found["answers"], "dev answers too": found["both"]}
    draw_reliability(axes[0, 0], by_answers,
                     "same score twice: correlation", "answers per question, m")
    draw_reliability(axes[0, 1], {None: found["dev"]},
                     "two dev sets: correlation", "dev questions in each, M")
    draw_shares(axes[1, 0], report["advantage"])
    draw_repeated(axes[1, 1], report["advantage"])
    reality.finish(figure, axes.flat, path)


def draw_reliability(ax, curves, title, xlabel):
    """curves: {label: {size: reliability}}; the first is grey if there are two."""
    colours = (reality.SLATE, reality.RED) if len(curves) > 1 else (reality.RED,)
    for (label, curve), colour in zip(curves.items(), colours):
        sizes = [int(size) for size in curve]
        r = [x["r"] for x in curve.values()]
        reality.line_with_interval(ax, sizes, r, colour, label)
        ax.set_xscale("log")
        ax.set_xticks(sizes, [str(size) for size in curve])

    ax.minorticks_off()
    ax.set(title=title, xlabel=xlabel, ylim=(min(0, ax.get_ylim()[0]), 1))
    if len(curves) > 1:
        ax.legend(frameon=False)


def draw_shares(ax, advantage):
    """Each point a document under one mode: its part of the update, by sigma."""
    for mode in MODES:
        x = advantage[mode]
        # batch_std and none differ by one factor: a ring around each dot
        ring = dict(markersize=3)
        if mode == "batch_std":
            ring = dict(markersize=6, fillstyle="none")
        ax.plot(advantage["sigma"], [100 * share for share in x["share"]], "o", alpha=0.75,
                color=COLOURS[mode], label=f"{mode}: repeats {x['repeated'][0]:.2f}", **ring)
    ax.set(title="a document's part of the update (%)", xlabel="sigma of its scores",
           xlim=(0, None), ylim=(0, None))
    ax.legend(frameon=False, fontsize=7)


def draw_repeated(ax, advantage):
    """Each point a document, and thirds of them: how much of its update repeats, by sigma."""
    ax.plot(advantage["sigma"], advantage["each"], "o", markersize=3, alpha=0.75,
            color=reality.GREY, label="a document")
    thirds = advantage["thirds"]
    sigma = [third["sigma"] for third in thirds]
    value, low, high = np.array([third["repeated"] for third in thirds], dtype=float).T
    ax.errorbar(sigma, value, [value - low, high - value], fmt="o-", color=reality.RED,
                capsize=3, label="a third of them")
    ax.set(title="the same advantages twice: cosine", xlabel="sigma of its scores",
           xlim=(0, None), ylim=(None, 1.02))
    ax.legend(frameon=False)


def read_arguments(argv):
    parser = reality.parser_of("studies.noise", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--questions", type=int, default=192,
                        help="draw documents until so many questions have mixed answers")
    parser.add_argument("--answers", type=reality.listed(int), default=list(ANSWERS),
                        help="answers per question in each half")
    parser.add_argument("--dev", type=reality.listed(int), default=list(DEV),
                        help="dev questions in each half")
    parser.add_argument("--splits", type=int, default=3,
                        help="ways of halving the dev set, averaged")
    parser.add_argument("--anchor", action="store_true",
                        help="the run's anchors instead of its checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figure", metavar="FILE", help="needs matplotlib")
    args = parser.parse_args(argv)
    if min(args.answers) < 2 or args.questions < 3:
        raise InputError(f"--answers {min(args.answers)}, --questions {args.questions}: "
                         "expected at least 2 and 3")
    return args


def main(argv=None):
    args = read_arguments(argv)
    world = reality.load(args.run, args.anchor, threads=args.threads)
    report = reality.heading("studies.noise", argv) | {"run": reality.run_name(args.run)}
    report |= study(world, args)
    print("\n".join(table(report["run"], report)))
    if args.json:
        reality.write_json(args.json, report)
    if args.figure:
        draw_figure(report, args.figure)


if __name__ == "__main__":
    run_script(main)
