"""Draws the figures of the race, and INFUSER's curves against a fixed generator.

    python -m studies.figures race docs/results/race.json
        FILE.svg and .png with the rewards, FILE-ablations.svg and .png with the ablations;
        the race calls it at its end
    python -m studies.figures curves infuser=RUN,RUN,... fixed=RUN,RUN,...
        docs/results/curves.svg

race: four panels over the iterations. A line is the mean over seeds, its band the 95 % t-interval
over seeds; what is measured in every iteration is first averaged from one evaluation to the next.
curves: test accuracy and right keys. A thin line is one seed, a thick one their mean.

Both need matplotlib, which nothing that trains does. The same input gives the same file.
"""
import argparse
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np

from studies.standings import interval

CURVES = Path(__file__).resolve().parent.parent / "docs/results/curves.svg"

# Colours of Okabe and Ito, which the colour-blind can tell apart; dashes for print.
DASH = (0, (4, 1.5))
DOT = (0, (1, 1))
MIX = (0, (4, 1, 1, 1))
LONG = (0, (7, 1.5))
DENSE = (0, (2, 1))
LOOKS = {
    "influence":    ("#D55E00", "-"),
    "fixed":        ("#000000", "-"),
    "spice":        ("#0072B2", DASH),
    "rzero":        ("#56B4E9", MIX),
    "azr":          ("#009E73", DOT),
    "learnability": ("#CC79A7", LONG),
    "random":       ("#E69F00", DENSE),
    "cosine":       ("#0072B2", DASH),
    "group_std":    ("#56B4E9", MIX),
    "batch_std":    ("#009E73", DOT),
    "none":         ("#CC79A7", LONG),
    "dev_only":     ("#E69F00", DENSE),
}
RACE_PANELS = {
    "test_accuracy": "test accuracy (%)",
    "key_accuracy":  "questions with a right key (%)",
    "target_share":  "questions on the dev set's skill (%)",
    "valid_share":   "valid drafts (%)",
}

CURVES_LOOKS = {"infuser": ("#c2410c", "INFUSER"), "fixed": ("#475569", "fixed generator")}
CURVES_PANELS = {
    "test_accuracy": "test accuracy (%), held-out questions",
    "key_accuracy":  "right answer keys (%), mean of 5 iterations",
}


def pyplot():
    """-> matplotlib.pyplot, set so that it writes the same file every time; ImportError without."""
    # Here, not at the top: the race draws at its end, and runs without matplotlib too.
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 9})
    return plt


def tidy(ax, title):
    ax.set_title(title, fontsize=9)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


# ---------------------------------------------------------------- the race

def between(curve, evaluated):
    """(S, T) -> (S, E): means from one evaluation to the next, None at the first.

    >>> between([[1, 3, None, 5]], [0, 2, 4])
    [[None, 2.0, 5.0]]
    """
    means = []
    for values in curve:
        pieces = [values[a:b] for a, b in itertools.pairwise(evaluated)]
        means.append([None] + [mean_known(piece) for piece in pieces])
    return means


def mean_known(values):
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None


def band(curve, evaluated):
    """(S, E) -> iterations, mean, low, high in percent, where any seed has a value.

    Without an interval low and high are the mean.
    """
    points = []
    for t, values in zip(evaluated, zip(*curve)):
        x = interval([value for value in values if value is not None])
        if x["n"]:
            low = x["mean"] if x["low"] is None else x["low"]
            high = x["mean"] if x["high"] is None else x["high"]
            points.append((t, 100 * x["mean"], 100 * low, 100 * high))

    return list(zip(*points)) or [()] * 4


def draw_race(plt, results):
    """race.json -> the paths of the figures beside it, without their .svg and .png."""
    found = json.loads(Path(results).read_text(encoding="utf-8"))
    ablations = [arm for arm, x in found["arms"].items() if x["ablation"]]
    rewards = [arm for arm in found["arms"] if arm not in ablations]

    base = os.path.splitext(results)[0]
    figures = {base: rewards}
    if ablations:
        compared = ("influence", *ablations, "fixed")
        figures[f"{base}-ablations"] = [arm for arm in compared if arm in found["arms"]]

    drawn = [path for path, arms in figures.items() if arms]
    for path in drawn:
        draw_arms(plt, found, figures[path], path)
    return drawn


def draw_arms(plt, found, arms, path):
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True)
    for ax, metric in zip(axes.flat, RACE_PANELS):
        for arm in arms:
            draw_arm(ax, found, arm, metric)
        tidy(ax, RACE_PANELS[metric])
        ax.set_ylim(max(0, ax.get_ylim()[0]), min(101, ax.get_ylim()[1]))

    for ax in axes[1]:
        ax.set_xlabel("iteration")
        ax.set_xticks(found["evaluated"])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=len(arms),
                  frameon=False, fontsize=8.5, handlelength=3)

    figure.patch.set_facecolor("white")
    figure.tight_layout(rect=(0, 0.045, 1, 1))
    figure.savefig(f"{path}.svg", metadata={"Date": None})
    figure.savefig(f"{path}.png", dpi=150)
    plt.close(figure)


def draw_arm(ax, found, arm, metric):
    """One line with its band."""
    evaluated = found["evaluated"]
    curve = found["arms"][arm]["curves"][metric]
    if metric != "test_accuracy":
        curve = between(curve, evaluated)

    t, mean, low, high = band(curve, evaluated)
    colour, dash = LOOKS[arm]
    width = 2.4 if arm == "influence" else 1.5
    ax.plot(t, mean, color=colour, linestyle=dash, linewidth=width, label=arm)
    ax.fill_between(t, low, high, color=colour, alpha=0.12, linewidth=0)


# ---------------------------------------------------------------- INFUSER's curves

def curve_of(run, metric):
    """-> (iterations, percent) of one metric, smoothed if it is that of the answer keys.

    Test accuracy starts with the anchor's at iteration 0.
    """
    text = Path(run, "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    known = [line for line in lines if line[metric] is not None]
    iterations = [line["iteration"] for line in known]
    values = [100 * line[metric] for line in known]

    if metric == "test_accuracy":
        return [0] + iterations, [100 * lines[0]["test_accuracy_anchor"]] + values
    return iterations, smooth(values)


def smooth(values, width=5):
    """Means over the last `width` values, fewer at the start.

    >>> smooth([1, 2, 3, 4], width=2)
    [1.0, 1.5, 2.5, 3.5]
    """
    windows = [values[max(0, i - width + 1):i + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def draw_curves(plt, runs, path):
    """{"infuser": [run folder, ...], "fixed": [...]} -> the figure at path."""
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 2.9))
    for ax, metric in zip(axes, CURVES_PANELS):
        for name, folders in runs.items():
            draw_seeds(ax, [curve_of(run, metric) for run in folders], *CURVES_LOOKS[name])
        tidy(ax, CURVES_PANELS[metric])
        ax.set_xlabel("iteration")

    axes[0].legend(frameon=False)
    figure.patch.set_facecolor("white")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_seeds(ax, curves, colour, label):
    """Thin lines, one a seed, and their mean."""
    for iterations, values in curves:
        ax.plot(iterations, values, color=colour, alpha=0.3, linewidth=0.8)

    iterations = curves[0][0]
    columns = zip(*[values for _, values in curves])
    mean = [sum(column) / len(column) for column in columns]
    ax.plot(iterations, mean, color=colour, linewidth=2, label=label)


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = argparse.ArgumentParser(prog="python -m studies.figures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    race = commands.add_parser("race", help="the figures of a race")
    race.add_argument("results", metavar="FILE", help="race.json; the figures go beside it")
    curves = commands.add_parser("curves", help="INFUSER's curves against a fixed generator")
    curves.add_argument("runs", nargs="+", metavar="NAME=RUN,RUN",
                        help=f"run folders of {' and of '.join(CURVES_LOOKS)}")
    args = parser.parse_args(argv)

    if args.what == "curves":
        args.runs = dict(text.partition("=")[::2] for text in args.runs)
        for name in args.runs:
            if name not in CURVES_LOOKS:
                names = " or ".join(CURVES_LOOKS)
                parser.error(f"{name!r}: expected NAME=RUN,RUN where NAME is {names}")
    return args


def main(argv=None):
    """-> exit code: 0, 1 without matplotlib, which is said."""
    args = read_flags(argv)
    try:
        plt = pyplot()
    except ImportError:
        print("no figures: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return 1

    if args.what == "race":
        for path in draw_race(plt, args.results):
            print(f"{path}.svg, {path}.png")
    else:
        runs = {name: folders.split(",") for name, folders in args.runs.items()}
        draw_curves(plt, runs, CURVES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
