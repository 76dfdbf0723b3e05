"""How noisy is the reward? The same score from two disjoint halves of the answers, or of the dev set: how far do the two agree?

    python noise.py runs/NAME                                               the tables; the embedded world takes minutes
    python noise.py runs/NAME --questions 96 --json out.json --figure out.svg

    r(s1, s2)   = Pearson's correlation over questions of the two halves' scores: the reliability of a score made of one half
    doubled     = 2 r / (1 + r)                                     Spearman-Brown: what to expect of a score made of both halves
    share_d     = sum of A_gen^2 of document d / sum of all A_gen^2         how much of the generator's update is about that document
    repeated    = <A1, A2> / (|A1| |A2|)                            over all drafts; 1: the same update twice, 0: noise

    code     symbol     shape      meaning
    s1, s2   s_hat      (Q,)       scores of all valid questions from two halves; 0 where a half is all right or all wrong
    m        m          ()         answers per question in each half
    M        M          ()         dev questions in each half
    sigma    sigma_d    (D,)       standard deviation of a document's n scores, invalid drafts included: the mean of both halves'
    A1, A2   A_gen      (D, n)     advantages from s1 and from s2, under each --advantage

    split    halves are made of
    answers  the answers to each generated question; one g_dev, from all dev answers
    both     the answers to generated and to dev questions: the whole reward, measured twice at the same weights
    dev      the dev questions; the same answers to the generated ones

Advantages are those of 'both' at the run's own m. The sample is what train.py would draw next (reality.py), with more answers to each
question. Intervals are 95 % percentile bootstraps over questions, and over documents for advantages. Ours, not the paper's, which gives
noise as the reason for DuGRPO: this shows how large it is in a run.
"""
import argparse
import random

import numpy as np
import torch
from tqdm import tqdm

import reality
from data import InputError, run_script
from dugrpo import MODES, center, dugrpo
from influence import dev_gradient

ANSWERS, DEV = (2, 4, 8, 16), (10, 20, 40, 80)


# ---------------------------------------------------------------- scores of halves

def part(answers, A, columns):
    """(Q, m) answers and advantages -> those of some columns, the advantages centred again. Flat rows come out as zeros, as in training."""
    return [[group[i] for i in columns] for group in answers], center(A[:, columns])


def score(world, answers, A, dev_answers, A_dev):
    """-> (Q,) s_hat as an array."""
    g_dev = dev_gradient(world.solver, dev_answers, A_dev, world.cfg)
    return reality.scores(world.solver, answers, A, g_dev, world.cfg, world.cfg.similarity).double().numpy()


def split_answers(world, sample, m, g_dev_columns):
    """Two halves of m answers each -> (s1, s2). g_dev_columns: which dev answers each half is compared with."""
    half = sample.A_sol.shape[1] // 2
    return [score(world, *part(sample.answers, sample.A_sol, list(range(start, start + m))),
                  *part(sample.dev_answers, sample.A_dev, columns)) for start, columns in zip((0, half), g_dev_columns)]


def split_dev(world, sample, M, m, seed):
    """Two disjoint sets of M dev questions, m answers to every question -> (s1, s2)."""
    order = random.Random(f"{world.cfg.seed} {M} {seed}").sample(range(len(world.dev)), 2 * M)
    columns = list(range(m))
    answers, A = part(sample.answers, sample.A_sol, columns)
    dev_answers, A_dev = part(sample.dev_answers, sample.A_dev, columns)
    return [score(world, answers, A, [dev_answers[i] for i in some], A_dev[some]) for some in (order[:M], order[M:])]


def reliability(pairs):
    """[(s1, s2), ...] of the same questions, a pair per way of halving -> {"r": [value, low, high], "doubled": by Spearman-Brown}."""
    both = [(np.asarray(s1), np.asarray(s2)) for s1, s2 in pairs]
    r = lambda some: np.mean([reality.correlation(s1[some], s2[some]) for s1, s2 in both], axis=0)
    value = reality.bootstrap(r, len(both[0][0]))
    return {"r": value, "doubled": [spearman_brown(x) for x in value]}


def spearman_brown(r):
    """Reliability of a half -> of a test twice as long; of no use at r = -1.

    >>> spearman_brown(0.5)
    0.6666666666666666
    """
    return 2 * r / (1 + r) if r > -1 else float("nan")


# ---------------------------------------------------------------- what the normalisations make of it

def grid(sample, s, n, invalid_score):
    """(Q,) scores -> (D, n) grid, the rest filled up with the score of an invalid draft. Order within a document does not matter here."""
    rows = [[] for _ in range(sample.n_documents)]
    for d, x in zip(sample.slots, s):
        rows[d].append(float(x))
    return torch.tensor([row + [invalid_score] * (n - len(row)) for row in rows], dtype=torch.float64)


def normalisations(s1, s2):
    """(D, n) scores of two halves -> {"sigma": (D,), mode: {"share": (D,), "repeated", "low_share"}, "each": (D,), "thirds", ...}.

    low_share: that of the half of the documents with the smaller sigma. thirds: repeated by third of sigma, each on its own scale.
    """
    alive = ((s1.amax(1) > s1.amin(1)) & (s2.amax(1) > s2.amin(1))).numpy()                 # flat in neither half
    if not alive.any():
        raise InputError(f"all of the {len(s1)} documents are flat in one of the halves, so there is no advantage; draw more --questions")
    sigma = ((s1.std(1) + s2.std(1)) / 2).numpy()[alive]                                    # (D alive,)
    order, out = np.argsort(sigma), {"documents": int(len(s1)), "flat": int((~alive).sum()), "sigma": sigma.tolist()}
    for mode in MODES:
        A1, A2 = (dugrpo(s, mode).numpy()[alive] for s in (s1, s2))                         # (D alive, n)
        share = (A1 ** 2 + A2 ** 2).sum(1) / (A1 ** 2 + A2 ** 2).sum()
        low = np.isin(np.arange(len(sigma)), order[:len(sigma) // 2])
        out[mode] = {"share": share.tolist(), "repeated": reality.bootstrap(lambda some: repeated(A1[some], A2[some]), len(sigma)),
                     "low_share": reality.bootstrap(lambda some: (share[some] * low[some]).sum(-1) / share[some].sum(-1), len(sigma))}
    A1, A2 = (dugrpo(s, "group_std").numpy()[alive] for s in (s1, s2))                      # every document on its own scale
    out["each"] = repeated(A1[:, None], A2[:, None]).tolist()
    for some in np.array_split(order, min(3, len(order))):
        value = reality.bootstrap(lambda i: repeated(A1[some][i], A2[some][i]), len(some))
        out["thirds"] = out.get("thirds", []) + [{"sigma": float(sigma[some].mean()), "repeated": value}]
    return out


def repeated(A1, A2):
    """(..., D, n) twice -> (...,) cosine over all drafts."""
    over = lambda x: x.sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return over(A1 * A2) / np.sqrt(over(A1 * A1) * over(A2 * A2))


# ---------------------------------------------------------------- the command

def study(world, args):
    """-> the report's numbers."""
    cfg, half = world.cfg, max(args.answers + [world.cfg.answers_per_question])
    sample = reality.draw(world, 2 * half, args.questions)
    everything, m = list(range(2 * half)), cfg.answers_per_question
    rows = {"answers": {}, "both": {}, "dev": {}}
    for size in tqdm(sorted({*args.answers, m}), desc="answers per question", leave=False):
        rows["answers"][size] = [split_answers(world, sample, size, (everything, everything))]
        rows["both"][size] = [split_answers(world, sample, size, (list(range(size)), list(range(half, half + size))))]
    for M in tqdm([M for M in args.dev if 2 * M <= len(world.dev)], desc="dev questions", leave=False):
        rows["dev"][M] = [split_dev(world, sample, M, m, i) for i in range(args.splits)]
    s1, s2 = (grid(sample, s, cfg.questions_per_doc, cfg.invalid_score or 0.0) for s in rows["both"][m][0])
    return {"iteration": world.iteration, "seed": cfg.seed, "m": m, "n": cfg.questions_per_doc, "dev_questions": len(world.dev),
            "questions": len(sample.questions), "documents_read": sample.n_documents,
            "reliability": {what: {size: reliability(pairs) for size, pairs in row.items()} for what, row in rows.items()},
            "scores": {what: {size: [[s.tolist() for s in pair] for pair in pairs] for size, pairs in row.items()}
                       for what, row in rows.items()},
            "advantage": normalisations(s1, s2)}


def table(run, report):
    """-> lines to print."""
    shown = lambda x: "{:6.2f} [{:5.2f},{:5.2f}]".format(*x)
    lines = ["", f"{run}, after iteration {report['iteration']}: {report['questions']} valid questions from {report['documents_read']} "
             f"documents, {report['dev_questions']} dev questions",
             f"{'split':10}{'size of a half':>16}{'r of the halves':>24}{'both together':>24}"]
    for what, rows in report["reliability"].items():
        unit = "dev" if what == "dev" else "answers"
        lines += [f"{what:10}{f'{size} {unit}':>16}{shown(row['r']):>24}{shown(row['doubled']):>24}" for size, row in rows.items()]
    advantage = report["advantage"]
    lines += ["", f"{len(advantage['sigma'])} documents that are not flat",
              f"{'advantage':12}{'repeated':>24}{'share of the calmer half':>28}"]
    lines += [f"{mode:12}{shown(advantage[mode]['repeated']):>24}{shown(advantage[mode]['low_share']):>28}" for mode in MODES]
    lines += [f"documents of sigma near {third['sigma']:.4f}: repeated {shown(third['repeated'])}" for third in advantage["thirds"]]
    return lines


COLOURS = {"dugrpo": "#c2410c", "group_std": "#475569", "batch_std": "#0f766e", "none": "#7c3aed"}


def draw_figure(report, path):
    """Four panels: reliability by answers and by dev questions; by sigma, a document's share of the update and how much of that repeats."""
    plt = reality.pyplot()
    figure, axes = plt.subplots(2, 2, figsize=(6.25, 5.2))
    reliability, advantage = report["reliability"], report["advantage"]
    draw_reliability(axes[0, 0], {"question's answers split": reliability["answers"], "dev answers too": reliability["both"]},
                     "same score twice: correlation", "answers per question, m")
    draw_reliability(axes[0, 1], {None: reliability["dev"]}, "two dev sets: correlation", "dev questions in each, M")
    for mode in MODES:                                      # batch_std and none differ by one factor: a ring around each dot
        ring = dict(markersize=6, fillstyle="none") if mode == "batch_std" else dict(markersize=3)
        axes[1, 0].plot(advantage["sigma"], [100 * x for x in advantage[mode]["share"]], "o", alpha=0.75, color=COLOURS[mode],
                        label=f"{mode}: repeats {advantage[mode]['repeated'][0]:.2f}", **ring)
    axes[1, 0].set(title="a document's part of the update (%)", xlabel="sigma of its scores", xlim=(0, None), ylim=(0, None))
    axes[1, 0].legend(frameon=False, fontsize=7)
    axes[1, 1].plot(advantage["sigma"], advantage["each"], "o", markersize=3, alpha=0.75, color="#94a3b8", label="a document")
    value, low, high = (np.array(column) for column in zip(*[third["repeated"] for third in advantage["thirds"]]))
    axes[1, 1].errorbar([third["sigma"] for third in advantage["thirds"]], value, [value - low, high - value], fmt="o-", color="#c2410c",
                        capsize=3, label="a third of them")
    axes[1, 1].set(title="the same advantages twice: cosine", xlabel="sigma of its scores", xlim=(0, None), ylim=(None, 1.02))
    axes[1, 1].legend(frameon=False)
    reality.finish(figure, axes.flat, path)


def draw_reliability(ax, rows, title, xlabel):
    """rows: {label: {size: reliability}}; the first is grey if there are two."""
    for (label, row), colour in zip(rows.items(), ("#475569", "#c2410c") if len(rows) > 1 else ("#c2410c",)):
        reality.line_with_interval(ax, [int(size) for size in row], [one["r"] for one in row.values()], colour, label)
        ax.set_xscale("log")
        ax.set_xticks([int(size) for size in row], [str(size) for size in row])
    ax.minorticks_off()
    ax.set(title=title, xlabel=xlabel, ylim=(min(0, ax.get_ylim()[0]), 1))
    if len(rows) > 1:
        ax.legend(frameon=False)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--questions", type=int, default=192, help="draw documents until so many questions have mixed answers")
    parser.add_argument("--answers", type=reality.listed(int), default=list(ANSWERS), help="answers per question in each half")
    parser.add_argument("--dev", type=reality.listed(int), default=list(DEV), help="dev questions in each half")
    parser.add_argument("--splits", type=int, default=3, help="ways of halving the dev set, averaged")
    parser.add_argument("--anchor", action="store_true", help="the run's anchors instead of its checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figure", metavar="FILE", help="needs matplotlib")
    args = parser.parse_args(argv)
    if min(args.answers) < 2 or args.questions < 3:
        raise InputError(f"--answers {min(args.answers)}, --questions {args.questions}: expected at least 2 and 3")
    world = reality.load(args.run, args.anchor, threads=args.threads)
    report = reality.heading("noise.py", argv) | {"run": reality.run_name(args.run)} | study(world, args)
    print("\n".join(table(report["run"], report)))
    if args.json:
        reality.write_json(args.json, report)
    if args.figure:
        draw_figure(report, args.figure)


if __name__ == "__main__":
    run_script(main)
