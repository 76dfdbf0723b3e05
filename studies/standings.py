"""Who stands where after a race: arms compared over seeds, with intervals and in words.

    mean(x) +- t std(x) / sqrt(S)    95 % interval of x_1, ..., x_S; t the 97.5 % point of
                                     Student's distribution with S - 1 degrees of freedom
    d_s = x_s - y_s                  difference of two arms on the same seed; its interval and
                                     t-test are those of S numbers
    #{flips of signs} / 2^S          exact p-value of d without normality: flips whose |sum| is
                                     as large; never below 2 / 2^S

    code      symbol    shape           meaning
    x, y      x_s, y_s  {seed: number}  the final measure of an arm
    d         d_s       (S,)            paired differences
    curve               (S, T or E)     a metric: a list per seed, an entry per iteration or
                                        evaluation; None where there is none

The final measure is the test accuracy after the last iteration. What it costs to reach 75 % is
counted in tokens and seconds, a straight line between two evaluations. Two arms are told apart if
the paired t-test has p < 0.05 after Holm's correction for all the pairs of its family: all pairs of
ways to pay a generator are one family, the other arms against influence another.

Departs from the textbook: a standard deviation below one test question counts as one. Accuracies
move in such steps, so a few seeds can differ by the same amount: an interval of no width.
"""
import itertools
import math

import numpy as np

# one of the test questions of the embedded world
STEP = 1 / 400
# the test accuracy whose price is asked
THRESHOLD = 0.75
# the first once an evaluation, the others once an iteration
METRICS = ("test_accuracy", "key_accuracy", "target_share", "valid_share", "solved_share")


# ---------------------------------------------------------------- statistics

def t_weights(df):
    """-> a (200,000,), the middles of fine steps from 0 to pi/2; |t|'s probability in each.

    Student's t with df degrees of freedom is sqrt(df) tan(a), where a in (-pi/2, pi/2) has a
    density that goes as cos(a)^(df - 1).
    """
    a = (np.arange(200_000) + 0.5) * np.pi / 400_000
    weight = np.cos(a) ** (df - 1)
    return a, weight / weight.sum()


def t_quantile(df):
    """The 97.5 % point.

    >>> [round(t_quantile(df), 3) for df in (1, 2, 7)]
    [12.706, 4.303, 2.365]
    """
    a, share = t_weights(df)
    return math.sqrt(df) * math.tan(np.interp(0.95, np.cumsum(share), a))


def t_p_value(t, df):
    """Two-sided: how often |t| is as large by chance.

    >>> round(t_p_value(4.303, 2), 4)
    0.05
    """
    a, share = t_weights(df)
    return float(share[a > math.atan(abs(t) / math.sqrt(df))].sum())


def standard_error(values):
    return max(STEP, float(np.std(values, ddof=1))) / math.sqrt(len(values))


def t_interval(values):
    """List of S numbers -> {"mean", "low", "high", "n"}: the mean with its 95 % t-interval.

    None where there is nothing: no mean of no number, no interval of fewer than two.
    """
    n = len(values)
    mean = float(np.mean(values)) if values else None
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "n": n}

    half = t_quantile(n - 1) * standard_error(values)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def flip_p_value(d):
    """List of S paired differences -> share of the 2^S ways to flip their signs with a sum as far
    from 0.

    >>> flip_p_value([1, 2, 3, 4])
    0.125
    """
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    return float(np.mean(np.abs(sums) >= abs(sum(d)) - 1e-9))


def paired(x, y):
    """{seed: value} of two arms -> interval of x - y over the seeds they share, and three more.

    "wins" of x; "p" of the t-test and "p_flip", None for fewer than two seeds.
    """
    d = [x[seed] - y[seed] for seed in x if seed in y]
    found = t_interval(d)
    found["wins"] = sum(value > 0 for value in d)
    if len(d) < 2:
        return found | {"p": None, "p_flip": None}

    t = found["mean"] / standard_error(d)
    return found | {"p": t_p_value(t, len(d) - 1), "p_flip": flip_p_value(d)}


def holm(p):
    """List of p-values -> those corrected by Holm, in the same order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [None] * len(p)
    so_far = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = so_far
    return corrected


def compare(final, pairs):
    """{arm: {seed: x}}, the pairs of one family -> what `paired` finds of each, better arm first.

    Pairs that do not share two seeds are left out. Beside it "p_holm" and "told_apart".
    """
    compared = []
    for a, b in pairs:
        found = paired(final[a], final[b])
        if found["p"] is None:
            continue
        if found["mean"] >= 0:
            compared.append({"better": a, "other": b} | found)
        else:
            compared.append({"better": b, "other": a} | paired(final[b], final[a]))

    for pair, p in zip(compared, holm([pair["p"] for pair in compared])):
        pair["p_holm"] = p
        pair["told_apart"] = p < 0.05
    return compared


# ---------------------------------------------------------------- results

def standings(arms, runs):
    """{arm: {"ablation": bool, "keys": {seed: key}, ...}}, {key: record} -> the results
    {"conclusion", "iterations", "evaluated", "pairs", "arms"}.

    Whatever else an arm brings is passed on. All runs have the same iterations and evaluations.
    """
    final = {arm: final_measure(runs_of(x, runs)) for arm, x in arms.items()}
    rewards = [arm for arm in arms if not arms[arm]["ablation"]]
    ablations = [arm for arm in arms if arms[arm]["ablation"]]
    with_influence = [(arm, "influence") for arm in ablations if "influence" in arms]

    evaluated = next(iter(runs_of(next(iter(arms.values())), runs).values()))["evaluated"]
    found = {
        "iterations": evaluated[-1],
        "evaluated": evaluated,
        "pairs": {
            "rewards": compare(final, itertools.combinations(rewards, 2)),
            "ablations": compare(final, with_influence),
        },
        "arms": {},
    }
    costs = {arm: costs_of(runs_of(x, runs)) for arm, x in arms.items()}
    of_fixed = runs_of(arms["fixed"], runs) if "fixed" in arms else {}
    for arm, x in arms.items():
        found["arms"][arm] = standing(arm, x, runs_of(x, runs), final, costs)
        found["arms"][arm]["whole"] = whole_runs(runs_of(x, runs), of_fixed)
    return {"conclusion": conclusion(found)} | found


def runs_of(arm, runs):
    """An arm of the results -> {seed: record}. In a file the seeds are text."""
    return {int(seed): runs[key] for seed, key in arm["keys"].items()}


def final_measure(runs):
    """{seed: record} -> {seed: test accuracy after the last iteration}."""
    return {seed: record["test_accuracy"][-1] for seed, record in runs.items()}


def standing(arm, x, runs, final, costs):
    """One arm: where it ended, how far from the fixed generator and from influence seed by seed,
    what it cost."""
    records = list(runs.values())
    last_three = [float(np.mean(record["test_accuracy"][1:][-3:])) for record in records]
    against = {}
    for other in ("fixed", "influence"):
        if other in final and other != arm:
            against[other] = paired(final[arm], final[other])

    return x | {
        "seeds": list(runs),
        "hours": round(sum(record["hours"] for record in records), 3),
        "final": t_interval(list(final[arm].values())),
        "last_three": t_interval(last_three),
        "late": {metric: late_mean(values_of(records, metric)) for metric in METRICS[1:]},
        "against": against,
        "cost": cost(costs[arm], costs.get("influence", {}), arm),
    }


def curves(found, arm):
    """-> {metric: (S, T or E)} of an arm of a results file."""
    x = found["arms"][arm]
    if "curves" in x:
        # a file of the first race
        return x["curves"]
    records = runs_of(x, found["runs"]).values()
    return {metric: values_of(records, metric) for metric in METRICS}


def values_of(records, metric):
    return [record[metric] for record in records]


def late_mean(curve, iterations=5):
    """(S, T) -> mean over seeds and the last iterations, or None."""
    late = []
    for values in curve:
        late += [value for value in values[-iterations:] if value is not None]
    return float(np.mean(late)) if late else None


# ---------------------------------------------------------------- what it costs to get there

def costs_of(runs):
    """{seed: record} -> {seed: (tokens, seconds) to reach the threshold, or None}."""
    found = {}
    for seed, record in runs.items():
        place = reached(record["test_accuracy"])
        found[seed] = None
        if place is not None:
            found[seed] = at(record["tokens"], place), at(record["seconds"], place)
    return found


def reached(accuracy, threshold=THRESHOLD):
    """Evaluations -> where they first reach the threshold, a straight line between two; or None.

    >>> reached([0.4, 0.7, 0.8, 0.6]), reached([0.4, 0.5])
    (1.5, None)
    """
    for i, x in enumerate(accuracy):
        if x >= threshold:
            before = accuracy[i - 1] if i else threshold
            return i - round((x - threshold) / (x - before), 9) if i else 0.0
    return None


def at(values, place):
    """A value between two of a list.

    >>> at([0, 10, 30], 1.5)
    20.0
    """
    return float(np.interp(place, range(len(values)), values))


def cost(mine, influence, arm):
    """-> how many seeds reach the threshold, tokens and seconds until then, and what of
    influence's that is: geometric means of ratios on the same seed, where both reach it."""
    there = {seed: x for seed, x in mine.items() if x}
    shared = [seed for seed in there if influence.get(seed) and arm != "influence"]
    found = {"reached": len(there), "of": len(mine)}
    for i, name in enumerate(("tokens", "seconds")):
        found[name] = t_interval([there[seed][i] for seed in there])
        logs = t_interval([math.log(there[seed][i] / influence[seed][i]) for seed in shared])
        ratio = {part: None if logs[part] is None else math.exp(logs[part])
                 for part in ("mean", "low", "high")}
        found[f"{name}_ratio"] = ratio | {"n": logs["n"]}
    return found


def whole_runs(runs, of_fixed):
    """{seed: record}, those of fixed -> means over the seeds: tokens and seconds of a whole run,
    how far its generator moved, and the accuracy when as many tokens were spent as fixed takes
    for all its iterations; None where that is more than the run itself takes."""
    spent = {seed: x["tokens"][-1] for seed, x in of_fixed.items()}
    found = {"tokens": [], "seconds": [], "moved": [], "as_fixed": []}
    for seed, record in runs.items():
        found["tokens"].append(record["tokens"][-1])
        found["seconds"].append(record["seconds"][-1])
        found["moved"].append(record.get("moved"))
        there = None
        if seed in spent and record["tokens"][-1] >= spent[seed]:
            there = np.interp(spent[seed], record["tokens"], record["test_accuracy"])
        found["as_fixed"].append(there)
    return {name: None if None in values else float(np.mean(values))
            for name, values in found.items()}


# ---------------------------------------------------------------- in words

def ranking(found):
    """-> all arms, the best final measure first."""
    return sorted(found["arms"], key=lambda arm: -found["arms"][arm]["final"]["mean"])


def conclusion(found):
    """-> sentences: the order of the rewards, the pairs it is supported for, those that cannot be
    told apart; then one for each ablation."""
    ranked = [arm for arm in ranking(found) if not found["arms"][arm]["ablation"]]
    pairs = found["pairs"]["rewards"]
    apart = {(pair["better"], pair["other"]) for pair in pairs if pair["told_apart"]}

    text = []
    if len(ranked) > 1:
        text.append(order(ranked, apart, found["iterations"]))
        text.append(supported(ranked, apart))
        text.append(together(ranked, apart))
    return text + [ablation(pair) for pair in found["pairs"]["ablations"]]


def order(ranked, apart, iterations):
    chain = ranked[0]
    for better, other in itertools.pairwise(ranked):
        sign = ">" if (better, other) in apart else "~"
        chain += f" {sign} {other}"
    return (f"Test accuracy after {iterations} iterations: {chain} "
            "(>: told apart from the next, ~: not).")


def supported(ranked, apart):
    above = []
    for better in ranked:
        others = ", ".join(other for other in ranked if (better, other) in apart)
        if others:
            above.append(f"{better} above {others}")

    test = "paired t-tests over seeds, Holm's correction for all pairs, p < 0.05"
    if not above:
        return f"No order is supported ({test}): these seeds cannot tell."
    return f"Supported ({test}): {'; '.join(above)}."


def together(ranked, apart):
    unclear = [pair for pair in itertools.combinations(ranked, 2) if pair not in apart]
    if not unclear:
        return "Every pair is told apart."
    if not apart:
        return "Cannot be told apart: all of them."
    return f"Cannot be told apart: {'; '.join(f'{a} and {b}' for a, b in unclear)}."


def ablation(pair):
    verdict = "told apart" if pair["told_apart"] else "cannot be told apart"
    return (f"Ablation: {pair['better']} before {pair['other']} by {points(pair)}, "
            f"p {p_text(pair['p_holm'])} after Holm's correction: {verdict}.")


def agreement(found, published):
    """Results, those of the published race -> a sentence: of the pairs told apart there, how many
    have the same arm ahead here?"""
    theirs = [pair for pair in published["pairs"]["rewards"] if pair["told_apart"]]
    theirs = [(pair["better"], pair["other"]) for pair in theirs]
    ours = {}
    for pair in found["pairs"]["rewards"]:
        ours[pair["better"], pair["other"]] = pair["told_apart"]

    same = [pair for pair in theirs if pair in ours]
    reverse = [pair[::-1] for pair in theirs if pair[::-1] in ours]
    return (f"Of the {len(theirs)} pairs that the published race tells apart, "
            f"{len(same)} have the same arm ahead here "
            f"(told apart: {sum(ours[pair] for pair in same)}) and {len(reverse)} the other "
            f"(told apart: {sum(ours[pair] for pair in reverse)})"
            + "".join(f"; {a} before {b}" for a, b in reverse) + ".")


def p_text(p):
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def percent(x, sign=""):
    return "-" if x is None else f"{100 * x:{sign}.1f}"


def points(x, sign="+"):
    """An interval in percent, signed if it is one of differences: mean [low, high]."""
    mean = percent(x["mean"], sign)
    if x["low"] is None:
        return mean
    return f"{mean} [{percent(x['low'], sign)}, {percent(x['high'], sign)}]"


# ---------------------------------------------------------------- as a table

COLUMNS = ("arm", "generator lr", "seeds", "test accuracy", "minus fixed", "minus influence",
           "ahead of influence", "right keys", "target share", "valid",
           f"reach {100 * THRESHOLD:.0f} %", "million tokens until then", "minutes", "tokens x",
           "seconds x")


def table(found):
    """Results -> a Markdown table, the best arm first."""
    rule = ("---", *["--:"] * (len(COLUMNS) - 1))
    lines = [COLUMNS, rule]
    for arm in ranking(found):
        lines.append(cells(arm, found["arms"][arm]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def whole_table(found):
    """Results -> Markdown: what whole runs took, in the order of the other table."""
    lines = ["| arm | generator moved | million tokens | minutes | accuracy at fixed's tokens |",
             "|---|--:|--:|--:|--:|"]
    for arm in ranking(found):
        x = found["arms"][arm]["whole"]
        moved = f"{x['moved']:.2f}" if x["moved"] else "-"
        lines.append(f"| {arm} | {moved} | {x['tokens'] / 1e6:.2f} | {x['seconds'] / 60:.2f} | "
                     f"{percent(x['as_fixed'])} |")
    return "\n".join(lines)


def cells(arm, x):
    """-> the texts of one line of the table."""
    fixed = x["against"].get("fixed")
    influence = x["against"].get("influence")
    wins = "-"
    if influence and influence["n"] > 1:
        p = p_text(influence["p_flip"])
        wins = f"{influence['wins']} of {influence['n']}, p {p}"

    late = [x["late"][metric] for metric in ("key_accuracy", "target_share", "valid_share")]
    cost = x["cost"]
    return (arm, x["generator_lr"] or "-", str(len(x["seeds"])), points(x["final"], ""),
            points(fixed) if fixed else "-", points(influence) if influence else "-", wins,
            *[percent(value) for value in late],
            f"{cost['reached']} of {cost['of']}",
            amount(cost["tokens"], 1e-6), amount(cost["seconds"], 1 / 60),
            amount(cost["tokens_ratio"]), amount(cost["seconds_ratio"]))


def amount(x, unit=1.0):
    """mean [low, high] of something that is no share; - without."""
    if x["mean"] is None:
        return "-"
    mean = f"{unit * x['mean']:.2f}"
    if x["low"] is None:
        return mean
    return f"{mean} [{unit * x['low']:.2f}, {unit * x['high']:.2f}]"
