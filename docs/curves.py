"""Draws docs/curves.svg, the README's figure: test accuracy and key accuracy over iterations, INFUSER against a fixed generator.

    python docs/curves.py infuser=runs/toy-influence-seed0,runs/toy-influence-seed1 fixed=runs/toy-fixed-seed0,runs/toy-fixed-seed1

Needs matplotlib. A thin line is one seed, a thick one their mean.
"""
import json
import os
import sys

import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt

COLOURS = {"infuser": "#c2410c", "fixed": "#475569"}


def curve(run, key):
    """-> (iterations, percent) of one metric; test accuracy starts with the anchor's at iteration 0."""
    lines = [json.loads(line) for line in open(os.path.join(run, "metrics.jsonl"))]
    points = [(x["iteration"], 100 * x[key]) for x in lines if x[key] is not None]
    if key == "test_accuracy":
        points = [(0, 100 * lines[0]["test_accuracy_anchor"])] + points
    return zip(*points)


def smooth(values, k=5):
    return [sum(values[max(0, i - k + 1):i + 1]) / len(values[max(0, i - k + 1):i + 1]) for i in range(len(values))]


def main():
    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 9})
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 2.9))
    panels = [("test_accuracy", "test accuracy (%), held-out questions"), ("key_accuracy", "right answer keys (%), mean of 5 iterations")]
    for ax, (key, title) in zip(axes, panels):
        for group in sys.argv[1:]:
            name, runs = group.split("=")
            curves = [[list(part) for part in curve(run, key)] for run in runs.split(",")]
            curves = [(t, smooth(v) if key == "key_accuracy" else v) for t, v in curves]
            for t, v in curves:
                ax.plot(t, v, color=COLOURS[name], alpha=0.3, linewidth=0.8)
            ax.plot(curves[0][0], [sum(column) / len(column) for column in zip(*(v for _, v in curves))], color=COLOURS[name], linewidth=2,
                    label={"infuser": "INFUSER", "fixed": "fixed generator"}[name])
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("iteration")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.patch.set_facecolor("white")
    figure.tight_layout()
    figure.savefig(os.path.join(os.path.dirname(os.path.abspath(__file__)), "curves.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
