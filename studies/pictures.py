"""Figures like the authors', from files of numbers: reports of evaluate.py, race and quality.json.

    report    the file of `evaluate.py --json`: its first model is the base
    methods   {label: [model, ...]}, the models of one method, a seed each

    gains        relative gain over the base, a bar a question set
    categories   mean of each category, gain over the base in brackets
    radar        accuracy of each method, an axis a question set
    passk        pass@k against k, a panel a question set
    length       accuracy against the mean length of an answer, a mark a seed
    quality      three solvers on the questions of each iteration's generator, and the gap
    ablations    where questions come from, how scores are normalised, with or without the optimizer

A bar, a line or a corner is the mean over a method's seeds, a dot one seed; whiskers and bands of
race.json and quality.json are the 95 % intervals that stand there. Every function takes pyplot and
what it draws, and returns the figure.
"""
import json
import math
from pathlib import Path

from data import InputError
from engine.statistics import powers_of_two
from studies.style import MARKS, look, tidy

SOLVERS = {"base": "base solver", "cotrained": "co-trained solver", "reference": "reference",
           "truth": "right keys"}
SOLVER_LOOKS = {"base": ("#777777", "-"), "cotrained": ("#D55E00", "-"),
                "reference": ("#0072B2", (0, (4, 1.5))), "truth": ("#009E73", (0, (1, 1)))}
# title: {arm of the race: how the figure calls it}
ABLATIONS = {
    "questions come from": {
        "fixed": "fixed\ngenerator", "frozen": "frozen\nbetter one", "dev_only": "dev set\nalone",
        "influence": "co-trained"},
    "normalisation": {
        "influence": "dugrpo", "group_std": "group_std", "batch_std": "batch_std", "none": "none"},
    "similarity": {"influence": "AdamW's\ndirection", "cosine": "raw\ngradient"},
}


# ---------------------------------------------------------------- reading

def read_json(path, what, *keys):
    """A JSON file that has these keys -> its object; InputError says what was expected."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected {what}") from None
    except ValueError:
        raise InputError(f"{path}: is not JSON, expected {what}") from None
    if not isinstance(found, dict) or any(not found.get(key) for key in keys):
        raise InputError(f"{path}: has no {' or '.join(keys)}, expected {what}")
    return found


def read_report(path):
    """-> (report, its models, the base first)."""
    report = read_json(path, "the file of evaluate.py --json", "sets")
    try:
        models = list(next(iter(report["sets"].values()))["models"])
        for one in report["sets"].values():
            for model in models:
                one["models"][model]["accuracy"], one["models"][model]["mean_tokens"]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: a set without its models' accuracy, expected the file of "
                         "evaluate.py --json") from None
    return report, models


def methods_of(words, models, path):
    """["infuser=MODEL,MODEL"] -> {"base": [first model], label: [model, ...]}.

    Without words every model after the first is a method of its own.
    """
    if len(models) < 2:
        raise InputError(f"{path}: has one model, expected a base and at least one other")
    methods = {"base": models[:1]}
    for word in words:
        label, given, names = word.partition("=")
        if not given or not label or not names:
            raise InputError(f"{word}: expected LABEL=MODEL,MODEL with models of {path}")
        if label in methods:
            raise InputError(f"{word}: {label!r} stands for other models already, expected "
                             "another label")
        methods[label] = names.split(",")
        for name in methods[label]:
            if name not in models:
                raise InputError(f"{word}: {path} has no model {name!r}, expected some of "
                                 f"{', '.join(models)}")
    if not words:
        methods |= {model: [model] for model in models[1:]}
    return methods


def values(one, models, name="accuracy"):
    """A set's (or group's) part of a report -> the known numbers of these models."""
    found = [one[model].get(name) for model in models]
    return [x for x in found if x is not None]


def mean(numbers):
    return sum(numbers) / len(numbers) if numbers else math.nan


def short(name):
    """A file or a short name -> what stands under a bar."""
    return Path(name).stem


def others(methods):
    return {label: models for label, models in methods.items() if label != "base"}


# ---------------------------------------------------------------- from a report

def gains(plt, report, methods):
    """Relative gain over the base in percent of it, for each set; dots are seeds."""
    labels = others(methods)
    figure, ax = plt.subplots(figsize=(1.6 + 1.5 * len(report["sets"]), 3.2))
    width = 0.8 / len(labels)
    names = []
    for place, (name, one) in enumerate(report["sets"].items()):
        before = mean(values(one["models"], methods["base"]))
        names.append(f"{short(name)}\n(base {100 * before:.1f} %)")
        for i, (label, models) in enumerate(labels.items()):
            relative = []
            for x in values(one["models"], models):
                relative.append(100 * (x / before - 1) if before else math.nan)
            at = place + (i - (len(labels) - 1) / 2) * width
            bar_with_dots(ax, at, 0.9 * width, relative, look(label, i)[0],
                          label if place == 0 else None)
            gain = mean(relative)
            # beside the dots, above or below the bar
            ax.annotate(f"{gain:+.1f} %", (at, max([gain, 0, *relative])), ha="center", va="bottom",
                        xytext=(0, 5), textcoords="offset points", fontsize=8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.margins(y=0.15)
    ax.set_xticks(range(len(names)), names)
    tidy(ax, "relative gain in accuracy over the base model (%)")
    ax.legend(frameon=False)
    figure.tight_layout()
    return figure


def bar_with_dots(ax, at, width, numbers, colour, label):
    ax.bar(at, mean(numbers), width, color=colour, alpha=0.75, label=label)
    if len(numbers) > 1:
        ax.plot([at] * len(numbers), numbers, "o", color="black", markersize=3, alpha=0.7)


def categories(plt, report, methods):
    """A table: the mean of each category, and its gain over the base in brackets."""
    if not report.get("groups"):
        raise InputError("the report has no categories, expected one made with --benchmarks, "
                         "--in_domain or --out_domain")
    rows = []
    for group, x in report["groups"].items():
        before = mean(values(x, methods["base"]))
        cells = [group, str(len(x["sets"])), percent(before)]
        for models in others(methods).values():
            after = mean(values(x, models))
            gain = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
            cells.append(percent(after) + gain)
        rows.append(cells)

    heads = ["mean of", "sets", *methods]
    figure, ax = plt.subplots(figsize=(3 + 1.7 * len(methods), 0.7 + 0.3 * len(rows)))
    ax.axis("off")
    table = ax.table(rows, colLabels=heads, loc="center", cellLoc="right", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.4)
    table.auto_set_column_width(list(range(len(heads))))
    for (line, column), cell in table.get_celld().items():
        cell.set_edgecolor("#999999")
        if line == 0:
            cell.set_text_props(weight="bold")
        if column == 0:
            cell.set_text_props(ha="left")
    ax.set_title("accuracy (%), and the gain relative to the base", fontsize=9)
    figure.tight_layout()
    return figure


def percent(x):
    return "-" if math.isnan(x) else f"{100 * x:.1f}"


def radar(plt, report, methods):
    """An axis for each question set, a polygon for each method."""
    names = list(report["sets"])
    if len(names) < 3:
        raise InputError(f"a radar needs at least 3 question sets, the report has {len(names)}")
    angles = [2 * math.pi * i / len(names) for i in range(len(names))]
    figure, ax = plt.subplots(figsize=(4.6, 4.2), subplot_kw={"projection": "polar"})
    highest = 0
    for i, (label, models) in enumerate(methods.items()):
        corners = [100 * mean(values(one["models"], models)) for one in report["sets"].values()]
        highest = max([highest, *corners])
        colour, dash = look(label, i)
        ax.plot(angles + angles[:1], corners + corners[:1], color=colour, linestyle=dash,
                linewidth=2, label=label, marker=MARKS[i % len(MARKS)], markersize=4)
        ax.fill(angles, corners, color=colour, alpha=0.08)
    ax.set_theta_offset(math.pi / 2)
    ax.set_xticks(angles, [short(name) for name in names])
    ax.tick_params(axis="x", pad=10)
    highest = min(100, 10 * math.ceil(highest / 10))
    ax.set_ylim(0, highest)
    ax.set_yticks(range(20, highest + 1, 20))
    ax.set_rlabel_position(180 / len(names))
    ax.grid(alpha=0.35)
    ax.set_title("accuracy (%) by benchmark family", fontsize=9, pad=18)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.92, 1.1), fontsize=8)
    figure.tight_layout()
    return figure


def passk(plt, report, methods):
    """pass@k against k; a thin line is a seed, a thick one the mean over seeds."""
    sets = {name: one for name, one in report["sets"].items() if one["samples"] > 1}
    if not sets:
        raise InputError("the report has one answer to a question, expected --samples above 1")
    across = min(4, len(sets))
    down = math.ceil(len(sets) / across)
    figure, axes = plt.subplots(down, across, figsize=(0.8 + 3 * across, 0.5 + 2.6 * down),
                                squeeze=False)
    for ax in axes.flat[len(sets):]:
        ax.axis("off")
    for ax, (name, one) in zip(axes.flat, sets.items()):
        ks = powers_of_two(one["samples"])
        for i, (label, models) in enumerate(methods.items()):
            curves = [pass_at(one["models"][model], ks) for model in models]
            lines_of_seeds(ax, ks, curves, *look(label, i), label)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.set_xlabel("k")
        tidy(ax, f"pass@k (%): {short(name)}")
    axes[0, 0].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    return figure


def pass_at(found, ks):
    """A model's part of a set -> its pass@k in percent, nan where it has none."""
    shares = [found.get(f"pass@{k}") for k in ks]
    return [math.nan if x is None else 100 * x for x in shares]


def lines_of_seeds(ax, x, curves, colour, dash, label):
    """Thin lines, one a seed, and their mean."""
    if len(curves) > 1:
        for curve in curves:
            ax.plot(x, curve, color=colour, alpha=0.35, linewidth=0.8)
    middle = [mean(column) for column in zip(*curves)]
    ax.plot(x, middle, color=colour, linestyle=dash, linewidth=2, label=label)


def length(plt, report, methods):
    """Accuracy against the mean length of an answer, both means over the sets; a mark is a seed."""
    figure, ax = plt.subplots(figsize=(4.6, 3.2))
    for i, (label, models) in enumerate(methods.items()):
        tokens, right = [], []
        for model in models:
            found = [one["models"][model] for one in report["sets"].values()]
            # a coding tool's results have no lengths
            found = [x for x in found if None not in (x["mean_tokens"], x["accuracy"])]
            if not found:
                raise InputError(f"{model}: no set has both an accuracy and a mean length")
            tokens.append(mean([x["mean_tokens"] for x in found]))
            right.append(100 * mean([x["accuracy"] for x in found]))
        ax.plot(tokens, right, MARKS[i % len(MARKS)], color=look(label, i)[0], label=label,
                markersize=6, alpha=0.8)
    ax.set_xlabel("mean length of an answer (tokens)")
    tidy(ax, "accuracy (%) against length, a mark a seed")
    ax.margins(0.15)
    ax.legend(frameon=False)
    figure.tight_layout()
    return figure


# ---------------------------------------------------------------- from quality.json and race.json

def quality(plt, rows):
    """The rows of quality.json -> accuracies on the left, the strong-against-weak gap right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.2))
    iterations = [row["iteration"] for row in rows]
    for name, title in SOLVERS.items():
        if name in rows[0]["accuracy"]:
            with_band(left, iterations, [row["accuracy"][name] for row in rows],
                      *SOLVER_LOOKS[name], title)
    tidy(left, "right by the generator's key (%)")

    gap = next(iter(rows[0]["swg"]))
    with_band(right, iterations, [row["swg"][gap] for row in rows], "#0072B2", "-", None)
    right.axhline(0, color="black", linewidth=0.8)
    tidy(right, f"strong-against-weak gap: {gap} less base (points)")
    for ax in (left, right):
        ax.set_xlabel("iteration of the generator")
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False,
                  fontsize=8.5, handlelength=3)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def with_band(ax, iterations, found, colour, dash, label):
    """[{"value", "interval"}] over the iterations."""
    known = [(t, x) for t, x in zip(iterations, found) if x["value"] is not None]
    ax.plot([t for t, _ in known], [100 * x["value"] for _, x in known], color=colour,
            linestyle=dash, linewidth=2, marker="o", markersize=3, label=label)
    banded = [(t, x["interval"]) for t, x in known if x.get("interval")]
    ax.fill_between([t for t, _ in banded], [100 * low for _, (low, _) in banded],
                    [100 * high for _, (_, high) in banded], color=colour, alpha=0.12, linewidth=0)


def ablations(plt, found):
    """race.json -> bars of the final test accuracy with 95 % intervals; "not run" where one is
    missing.
    """
    sizes = [len(arms) for arms in ABLATIONS.values()]
    figure, axes = plt.subplots(1, len(sizes), figsize=(9.6, 3.2), sharey=True,
                                width_ratios=sizes)
    for ax, (title, arms) in zip(axes, ABLATIONS.items()):
        for place, arm in enumerate(arms):
            if arm in found["arms"]:
                bar_with_interval(ax, place, found["arms"][arm]["final"], look(arm, place)[0])
            else:
                ax.text(place, 3, "not run", rotation=90, ha="center", va="bottom", fontsize=8,
                        color="#777777")
        ax.set_xticks(range(len(arms)), arms.values(), fontsize=8)
        ax.set_xlim(-0.6, len(arms) - 0.4)
        tidy(ax, title)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].set_ylim(0, 108)
    figure.tight_layout()
    return figure


def bar_with_interval(ax, place, final, colour):
    middle = 100 * final["mean"]
    ax.bar(place, middle, 0.7, color=colour, alpha=0.75)
    top = middle
    if final["low"] is not None:
        top = 100 * final["high"]
        ax.errorbar(place, middle, [[middle - 100 * final["low"]], [top - middle]],
                    color="black", capsize=3, linewidth=1)
    ax.text(place, top + 1, f"{middle:.1f}\nn = {final['n']}", ha="center", va="bottom", fontsize=7)
