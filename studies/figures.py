"""Draws the figures of these studies, and those of the authors' text from runs of one's own.

    python -m studies.figures race docs/results/race.json
    python -m studies.figures regimes docs/results/regimes.json
    python -m studies.figures ablations docs/results/race.json
    python -m studies.figures quality docs/results/quality.json
    python -m studies.figures curves infuser=RUN,RUN,... fixed=RUN,RUN,...
    python -m studies.figures curves influence=FILE.json:influence fixed=FILE.json:fixed
    python -m studies.figures gains REPORT.json infuser=MODEL,MODEL,... fixed=MODEL,...

and so categories, radar, passk and length: REPORT.json is what `evaluate.py --json` wrote, its
first model the base; the models of a method are its seeds (studies/pictures.py). Each writes
BASE.svg and BASE.png, where BASE is --out, or stands beside the first file.

race: four panels over the iterations, a row for the ways to pay and one for what is compared with
influence. A line is the mean over seeds, its band the 95 % t-interval over seeds; what is measured
in every iteration is first averaged from one evaluation to the next. The race calls it at its end.
curves: validation accuracy, test accuracy in runs without it, and right keys where the truth is
known. A thin line is one seed, a thick one their mean, the band its 95 % t-interval; of the keys
five iterations are averaged.

All need matplotlib, which nothing that trains does. The same input gives the same file.
"""
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np

from data import InputError
from engine.arguments import Parser
from engine.outputs import pyplot
from engine.speech import run_script
from studies import pictures
from studies.pictures import read_json
from studies.standings import curves as curves_in
from studies.standings import t_interval
from studies.style import LOOKS, look, refuse_unwritable, save, tidy

RACE_PANELS = {
    "test_accuracy": "test accuracy (%)",
    "key_accuracy":  "questions with a right key (%)",
    "target_share":  "questions on the dev set's skill (%)",
    "valid_share":   "valid drafts (%)",
}
CURVES_PANELS = {
    "valid_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%), held-out questions",
    "key_accuracy":  "right answer keys (%), mean of 5 iterations",
}
OF_REPORTS = ("gains", "categories", "radar", "passk", "length")
RACE_FILE = "the race.json of studies.race"
QUALITY_FILE = "the file of tools.quality --json"


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
        x = t_interval([value for value in values if value is not None])
        if x["n"]:
            low = x["mean"] if x["low"] is None else x["low"]
            high = x["mean"] if x["high"] is None else x["high"]
            points.append((t, 100 * x["mean"], 100 * low, 100 * high))

    return list(zip(*points)) or [()] * 4


def draw_race(plt, results, base=None):
    """race.json -> the path of the figure beside it, or at base, without its .svg and .png.

    One row of panels for the ways to pay a generator; one for the arms that are compared with
    influence alone, if there are any.
    """
    found = read_json(results, RACE_FILE, "arms", "evaluated")
    compared = [arm for arm, x in found["arms"].items() if x["ablation"]]
    rows = [[arm for arm in found["arms"] if arm not in compared]]
    if compared:
        beside = ("influence", *compared, "fixed")
        rows.append([arm for arm in beside if arm in found["arms"]])
    rows = [arms for arms in rows if arms]

    figure = plt.figure(figsize=(3.4 * len(RACE_PANELS), 3.5 * len(rows)), layout="constrained")
    for part, arms in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows):
        row = part.subplots(1, len(RACE_PANELS))
        draw_row(row, found, arms)
        part.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
                    fontsize=8, handlelength=3, ncols=len(arms))
    base = base or os.path.splitext(results)[0]
    save(plt, figure, base)
    return [base]


def draw_row(row, found, arms):
    """Some arms in every panel."""
    for ax, metric in zip(row, RACE_PANELS):
        for arm in arms:
            draw_arm(ax, found, arm, metric)
        tidy(ax, RACE_PANELS[metric])
        ax.set_ylim(max(0, ax.get_ylim()[0]), min(101, ax.get_ylim()[1]))
        ax.set_xlabel("iteration")
        ax.set_xticks(found["evaluated"])


def draw_arm(ax, found, arm, metric):
    """One line with its band."""
    evaluated = found["evaluated"]
    curve = curves_in(found, arm)[metric]
    if metric != "test_accuracy":
        curve = between(curve, evaluated)

    t, mean, low, high = band(curve, evaluated)
    colour, dash = LOOKS[arm]
    width = 2.4 if arm == "influence" else 1.5
    ax.plot(t, mean, color=colour, linestyle=dash, linewidth=width, label=arm)
    ax.fill_between(t, low, high, color=colour, alpha=0.12, linewidth=0)


# ---------------------------------------------------------------- one knob at a time

def regimes(plt, words):
    """regimes.json -> a panel a knob: accuracy with its interval over the values of the knob."""
    file = only(words)
    found = read_json(file, "the file of studies.regimes", "knobs")["knobs"]
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 3 * rows), squeeze=False)
    for ax, (knob, x) in zip(axes.flat, found.items()):
        for place, (arm, line) in enumerate(x["arms"].items()):
            draw_line(ax, line, place, *look(arm, place), arm)
        ax.set_xticks(range(len(x["values"])), x["values"])
        ax.set_xlabel(x["label"])
        tidy(ax, knob)
        ax.legend(frameon=False, fontsize=7)
    for ax in list(axes.flat)[len(found):]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("test accuracy (%)")
    figure.tight_layout()
    return figure


def draw_line(ax, line, place, colour, dash, label):
    """The points of an arm, a little beside those of the others, so that intervals can be seen."""
    known = [(i, point["final"]) for i, point in enumerate(line) if point]
    at = [i + 0.06 * (place - 1.5) for i, _ in known]
    mean = [100 * x["mean"] for _, x in known]
    half = [100 * (x["high"] - x["mean"]) if x["high"] is not None else 0 for _, x in known]
    ax.errorbar(at, mean, half, color=colour, linestyle=dash, linewidth=1.6, marker="o",
                markersize=3, capsize=2, elinewidth=0.9, label=label)


# ---------------------------------------------------------------- curves of several methods

def sources(word):
    """"label=RUN,FILE.json:ARM" -> (label, {metric: [(iterations, percent) of each seed]})."""
    label, given, texts = word.partition("=")
    if not given or not label or not texts:
        raise InputError(f"{word}: expected LABEL=RUN,RUN or LABEL=FILE.json:ARM")
    found = {metric: [] for metric in CURVES_PANELS}
    for text in texts.split(","):
        file, colon, arm = text.rpartition(":")
        if colon and file.endswith(".json"):
            add(found, curves_of_arm(file, arm))
        else:
            add(found, curves_of_run(text))
    return label, {metric: curves for metric, curves in found.items() if curves}


def add(found, more):
    for metric, curves in more.items():
        found[metric] += curves


def curves_of_arm(file, arm):
    """An arm of race.json -> {metric: [(iterations, percent) of each seed]}."""
    race = read_json(file, RACE_FILE, "arms", "evaluated")
    if arm not in race["arms"]:
        raise InputError(f"{file}: has no arm {arm!r}, expected one of {', '.join(race['arms'])}")
    curves = curves_in(race, arm)
    found = {"test_accuracy": [], "key_accuracy": []}
    for seed in curves["test_accuracy"]:
        found["test_accuracy"].append((race["evaluated"], [100 * x for x in seed]))
    for seed in curves["key_accuracy"]:
        found["key_accuracy"].append(smoothed(range(1, len(seed) + 1), seed))
    return found


def curves_of_run(run):
    """A run folder -> {metric: [(iterations, percent)]}, of one seed.

    Accuracies start with the anchor's at iteration 0.
    """
    lines = lines_of(run)
    found = {}
    for metric in ("valid_accuracy", "test_accuracy"):
        known = [line for line in lines if line.get(metric) is not None]
        start = lines[0].get(f"{metric}_anchor")
        points = [(0, start)] if start is not None else []
        points += [(line["iteration"], line[metric]) for line in known]
        if known:
            found[metric] = [([t for t, _ in points], [100 * x for _, x in points])]

    keys = [line.get("key_accuracy") for line in lines]
    found["key_accuracy"] = [smoothed([line["iteration"] for line in lines], keys)]
    return found


def lines_of(run):
    """The lines of RUN/metrics.jsonl."""
    path = Path(run, "metrics.jsonl")
    try:
        text = path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except OSError:
        raise InputError(f"{path}: no such file, expected a run folder of train.py") from None
    except ValueError:
        raise InputError(f"{path}: a line that is not JSON, expected a run's own file") from None
    if not lines:
        raise InputError(f"{path}: is empty, expected a run that has ended an iteration")
    if not all(isinstance(line, dict) and "iteration" in line for line in lines):
        raise InputError(f"{path}: a line without an iteration, expected a run's own file")
    return lines


def smoothed(iterations, shares):
    known = [(t, 100 * x) for t, x in zip(iterations, shares) if x is not None]
    return [t for t, _ in known], smooth([x for _, x in known])


def smooth(values, width=5):
    """Means over the last `width` values, fewer at the start.

    >>> smooth([1, 2, 3, 4], width=2)
    [1.0, 1.5, 2.5, 3.5]
    """
    windows = [values[max(0, i - width + 1):i + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def all_have(methods, metric):
    """Has every method a value of this metric?"""
    for found in methods.values():
        if not any(iterations for iterations, _ in found.get(metric, ())):
            return False
    return True


def draw_curves(plt, methods):
    """{label: {metric: curves}} -> the figure."""
    shown = [metric for metric in CURVES_PANELS if all_have(methods, metric)]
    if "valid_accuracy" in shown and "test_accuracy" in shown:
        shown.remove("test_accuracy")
    if not shown:
        raise InputError("these runs have no accuracy in common, expected runs with --test")
    figure, axes = plt.subplots(1, len(shown), figsize=(4.1 * len(shown), 2.9), squeeze=False)
    for ax, metric in zip(axes[0], shown):
        for i, (label, found) in enumerate(methods.items()):
            draw_seeds(ax, found[metric], *look(label, i), label)
        tidy(ax, CURVES_PANELS[metric])
        ax.set_xlabel("iteration")
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    return figure


def draw_seeds(ax, curves, colour, dash, label):
    """Thin lines, one a seed; their mean and its band, where every seed has a value."""
    for iterations, values in curves:
        ax.plot(iterations, values, color=colour, alpha=0.3, linewidth=0.8)

    by_seed = [dict(zip(iterations, values)) for iterations, values in curves]
    common = sorted(set(by_seed[0]).intersection(*by_seed[1:]))
    found = []
    for t in common:
        found.append(t_interval([seed[t] for seed in by_seed]))
    ax.plot(common, [x["mean"] for x in found], color=colour, linestyle=dash, linewidth=2,
            label=label)
    if len(curves) > 1:
        ax.fill_between(common, [x["low"] for x in found], [x["high"] for x in found],
                        color=colour, alpha=0.12, linewidth=0)


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = Parser("python -m studies.figures", __doc__)
    parser.add_argument("what", metavar="NAME", choices=sorted(DRAWN),
                        help=f"one of {', '.join(DRAWN)}")
    parser.add_argument("sources", nargs="+", metavar="RUN",
                        help="files and LABEL=RUN,RUN as above")
    parser.add_argument("--out", metavar="BASE",
                        help="write BASE.svg and BASE.png (default: beside the first file)")
    return parser.parse_args(argv)


def only(words):
    """The one file of a command."""
    if len(words) > 1:
        raise InputError(f"{words[1]}: expected one file, {words[0]}, and nothing else")
    return words[0]


def curves(plt, words):
    methods = {}
    for word in words:
        label, found = sources(word)
        if label in methods:
            raise InputError(f"{word}: {label!r} stands for other runs already, expected another "
                             "label")
        methods[label] = found
    return draw_curves(plt, methods)


def quality(plt, words):
    file = only(words)
    rows = read_json(file, QUALITY_FILE, "iterations")["iterations"]
    if not isinstance(rows, list):
        raise InputError(f"{file}: iterations is not a list, expected {QUALITY_FILE}")
    for row in rows:
        if not isinstance(row, dict) or not {"iteration", "accuracy", "swg"} <= set(row):
            raise InputError(f"{file}: an iteration without accuracy or swg, expected "
                             f"{QUALITY_FILE}")
    if not rows or not rows[0]["swg"]:
        raise InputError(f"{file}: has no gap between a strong and the base solver, expected a run "
                         "of tools.quality with --reference")
    return pictures.quality(plt, rows)


def ablations(plt, words):
    file = only(words)
    race = read_json(file, RACE_FILE, "arms")
    for arm, found in race["arms"].items():
        if not isinstance(found, dict) or "mean" not in (found.get("final") or ()):
            raise InputError(f"{file}: arm {arm!r} has no final accuracy, expected {RACE_FILE}")
    return pictures.ablations(plt, race)


def of_report(plt, what, words):
    report, models = pictures.read_report(words[0])
    methods = pictures.methods_of(words[1:], models, words[0])
    return getattr(pictures, what)(plt, report, methods)


DRAWN = {"race": None, "regimes": regimes, "curves": curves, "quality": quality,
         "ablations": ablations} | \
    dict.fromkeys(OF_REPORTS)


def base_of(what, word):
    """The first source -> where its figure goes: FILE-NAME beside FILE.json, or RUN-NAME."""
    first = word.partition("=")[2].split(",")[0] or word
    if first.rpartition(":")[0].endswith(".json"):
        first = first.rpartition(":")[0]
    stem = os.path.splitext(first)[0] if first.endswith(".json") else first.rstrip("/")
    return f"{stem}-{what}"


def main(argv=None):
    """-> exit code: 0, 1 without matplotlib, which is said."""
    args = read_flags(argv)
    try:
        # the race draws at its end, and runs without matplotlib too
        plt = pyplot("a figure", **{"figure.facecolor": "white"})
    except InputError as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1

    if args.what == "race":
        for path in draw_race(plt, only(args.sources), args.out):
            print(f"{path}.svg, {path}.png")
        return 0

    base = args.out or base_of(args.what, args.sources[0])
    if args.what == "regimes" and not args.out:
        base = os.path.splitext(args.sources[0])[0]
    refuse_unwritable(base)
    if args.what in OF_REPORTS:
        figure = of_report(plt, args.what, args.sources)
    else:
        figure = DRAWN[args.what](plt, args.sources)
    save(plt, figure, base)
    print(f"{base}.svg, {base}.png")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
