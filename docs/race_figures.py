"""Draws the figures of a race from its results: FILE.svg and .png with the rewards, FILE-ablations.svg and .png with the ablations.

    python docs/race_figures.py docs/race.json          race.py calls it at its end

Four panels over the iterations. A line is the mean over seeds, its band the 95 % t-interval over seeds; what is measured in every iteration
is first averaged from one evaluation to the next. Needs matplotlib, which nothing that trains does.
"""
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from standings import interval

# Colours of Okabe and Ito, which the colour-blind can tell apart; dashes for print.
DASH, DOT, MIX, LONG, DENSE = (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 1.5)), (0, (2, 1))
LOOKS = {"influence": ("#D55E00", "-"), "fixed": ("#000000", "-"),
         "spice": ("#0072B2", DASH), "rzero": ("#56B4E9", MIX), "azr": ("#009E73", DOT),
         "learnability": ("#CC79A7", LONG), "random": ("#E69F00", DENSE),
         "cosine": ("#0072B2", DASH), "group_std": ("#56B4E9", MIX), "batch_std": ("#009E73", DOT),
         "none": ("#CC79A7", LONG), "dev_only": ("#E69F00", DENSE)}
PANELS = {"test_accuracy": "test accuracy (%)", "key_accuracy": "questions with a right key (%)",
          "target_share": "questions on the dev set's skill (%)", "valid_share": "valid drafts (%)"}


def between(curve, evaluated):
    """(S, T) -> (S, E): means over the iterations from one evaluation to the next, the first row entry None."""
    mean = lambda values: float(np.mean(values)) if values else None
    return [[None] + [mean([x for x in row[a:b] if x is not None]) for a, b in zip(evaluated, evaluated[1:])] for row in curve]


def band(curve, evaluated):
    """(S, E) -> iterations, mean, low, high in percent, where any seed has a value; without an interval low and high are the mean."""
    columns = [(t, interval([x for x in column if x is not None])) for t, column in zip(evaluated, zip(*curve))]
    rows = [(t, *(100 * (x["mean"] if x[name] is None else x[name]) for name in ("mean", "low", "high"))) for t, x in columns if x["n"]]
    return list(zip(*rows)) or [()] * 4


def draw(plt, found, arms, path):
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True)
    for ax, (metric, title) in zip(axes.flat, PANELS.items()):
        for arm in arms:
            curve, (colour, dash) = found["arms"][arm]["curves"][metric], LOOKS[arm]
            t, mean, low, high = band(curve if metric == "test_accuracy" else between(curve, found["evaluated"]), found["evaluated"])
            ax.plot(t, mean, color=colour, linestyle=dash, linewidth=2.4 if arm == "influence" else 1.5, label=arm)
            ax.fill_between(t, low, high, color=colour, alpha=0.12, linewidth=0)
        ax.set_title(title, fontsize=9)
        ax.set_ylim(max(0, ax.get_ylim()[0]), min(101, ax.get_ylim()[1]))
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[1]:
        ax.set_xlabel("iteration")
        ax.set_xticks(found["evaluated"])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=len(arms), frameon=False, fontsize=8.5, handlelength=3)
    figure.patch.set_facecolor("white")
    figure.tight_layout(rect=(0, 0.045, 1, 1))
    figure.savefig(f"{path}.svg", metadata={"Date": None})
    figure.savefig(f"{path}.png", dpi=150)
    plt.close(figure)


def main():
    try:
        import matplotlib
        matplotlib.use("svg")
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("no figures: matplotlib is not installed (pip install matplotlib)")
    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 9})
    with open(sys.argv[1], encoding="utf-8") as f:
        found = json.load(f)
    base, ablations = os.path.splitext(sys.argv[1])[0], [arm for arm, x in found["arms"].items() if x["ablation"]]
    sets = {base: [arm for arm in found["arms"] if arm not in ablations]}
    sets |= {f"{base}-ablations": [arm for arm in ("influence", *ablations, "fixed") if arm in found["arms"]]} if ablations else {}
    for path, arms in sets.items():
        if arms:
            draw(plt, found, arms, path)
            print(f"{path}.svg, {path}.png")


if __name__ == "__main__":
    main()
