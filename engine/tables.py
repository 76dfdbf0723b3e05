"""What evaluate.py prints: numbers in percent, tables in columns.

    report --set_table, group_table, published_table--> lines of text

+- is half of a 95 % interval. A gain has two forms beside each other: points, and percent of what
the first model had.
"""
from engine.benchmarks import (ANCHORS, BENCHMARKS, METHODS, PUBLISHED, published_means)
from engine.statistics import powers_of_two


def percent(mean, error=None):
    """A share and its standard error -> text in percent; +- is half of a 95 % interval.

    >>> percent(0.442, 0.025), percent(0.442), percent(None)
    ('44.2 +- 4.9 %', '44.2 %', '-')
    """
    if mean is None:
        return "-"
    plus_minus = "" if error is None else f" +- {196 * error:.1f}"
    return f"{100 * mean:.1f}{plus_minus} %"


def points(x):
    """A paired difference -> points, their interval, and what they are of the first's accuracy.

    >>> points({"difference": 0.123, "interval": [0.091, 0.155], "relative": 0.25})
    '+12.3 points [+9.1, +15.5], +25.0 % of the first'
    """
    if x["difference"] is None:
        return "-"
    between = ""
    if x["interval"] is not None:
        between = " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in x["interval"]))
    gain = f", {100 * x['relative']:+.1f} % of the first" if x["relative"] is not None else ""
    return f"{100 * x['difference']:+.1f} points{between}{gain}"


def columns(rows):
    """Lists of texts -> lines, aligned: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append("  ".join([first.ljust(widths[0])] + cells))
    return "\n".join(lines)


# ---------------------------------------------------------------- one set

def set_table(name, one):
    """A set's part of the report -> its table, and what is to be known of it."""
    results = one["models"]
    first = next(iter(results))
    ks = [f"pass@{k}" for k in powers_of_two(one["samples"])[1:]]

    rows = [["  model", "accuracy", *ks, "majority", "no answer", "cut", "tokens", "unknown"]]
    for model, x in results.items():
        tokens = "-" if x["mean_tokens"] is None else f"{x['mean_tokens']:.0f}"
        rows.append([
            f"  {model}", percent(x["accuracy"], x["accuracy_error"]),
            *(percent(x.get(k)) for k in ks), percent(x["majority"]), percent(x["no_answer"]),
            percent(x["cut"]), tokens, str(x["unknown"])])

    differences, too_long, unknown = [], [], []
    for model, x in results.items():
        if "against_first" in x:
            against = x["against_first"]
            differences.append(f"  {model}: {points(against)} against {first}, over the same "
                               f"{against['questions']} questions")
        if x["too_long"]:
            too_long.append(f"  {model}: {x['too_long']} questions left out as too long")
        if x["unknown"]:
            unknown.append(f"  {model}: {x['unknown']} checks without a verdict, "
                           "those answers left out")

    title = f"\n{name}: {results[first]['questions']} questions x {one['samples']} answers"
    checked = ", ".join(f"{checker} ({n} questions)" for checker, n in one["checker"].items())
    notes = [f"  {note}" for note in one["notes"]]
    return "\n".join([title, columns(rows), *differences, *too_long, *unknown, *notes,
                      f"  right or wrong by: {checked}", *checker_lines(results)])


def checker_lines(results):
    """What each checker says of the same answers -> the lines of a table; none for one checker."""
    rows = [["  checker", "model", "answers", "right", "share", "unknown", "first right, it wrong",
             "first wrong, it right"]]
    for model, x in results.items():
        for checker, found in x["checked"].items():
            rows.append([f"  {checker}", model, str(found["answers"]), str(found["right"]),
                         percent(found["share"]), str(found["unknown"]), str(found["lost"]),
                         str(found["gained"])])
    return [columns(rows)] if len(rows) > 1 + len(results) else []


# ---------------------------------------------------------------- many sets

def group_table(groups, models):
    """The means over sets -> their table."""
    against = [f"{model} against {models[0]}" for model in models[1:]]
    rows = [["mean of sets", "sets", *models] + against]
    for group, x in groups.items():
        of = f" of {x['of']}" if x["of"] else ""
        means = [percent(x[model]["accuracy"], x[model]["accuracy_error"]) for model in models]
        differences = [points(x[model]["against_first"]) for model in models[1:]]
        rows.append([group, f"{len(x['sets'])}{of}", *means, *differences])
    return "\n" + columns(rows)


def published_table(sets, groups, models):
    """Sets that are benchmarks -> their numbers beside the authors'; "" if there is none."""
    rows = [["percent right", *models, *ANCHORS]]
    for one in sets.values():
        name = one["benchmark"]
        if name:
            found = [one["models"][model]["accuracy"] for model in models]
            ours = [percent(accuracy) for accuracy in found]
            rows.append([BENCHMARKS[name].title, *ours, *map(three, PUBLISHED[name])])
    if len(rows) == 1:
        return ""

    means = []
    for anchor in range(len(ANCHORS)):
        means.append([published_means(anchor, method) for method in range(len(METHODS))])
    for category in means[0][0]:
        # a mean over fewer sets than the authors' is not to be compared with theirs
        x = groups.get(category)
        if x and len(x["sets"]) == x["of"]:
            theirs = []
            for anchor in means:
                theirs.append(three(one[category] for one in anchor))
            rows.append([category, *(percent(x[model]["accuracy"]) for model in models), *theirs])
    return (f"\nbeside the authors' {' / '.join(METHODS)} (their repository; other prompts, and "
            "mathematics right by math-verify or a judge)\n" + columns(rows))


def three(numbers):
    return " / ".join(f"{x:.1f}" for x in numbers)
