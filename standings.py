"""Who stands where after a race: arms compared over seeds, with intervals, and what can be told apart, in words.

    mean(x) +- t std(x) / sqrt(S)    95 % interval of x_1, ..., x_S; t the 97.5 % point of Student's distribution, S - 1 degrees of freedom
    d_s = x_s - y_s                  difference of two arms on the same seed; its interval and t-test are those of S numbers
    #{flips of signs} / 2^S          exact p-value of d without normality: flips whose |sum| is as large; never below 2 / 2^S

    code      symbol    shape           meaning
    x, y      x_s, y_s  {seed: number}  the final measure of an arm
    d         d_s       (S,)            paired differences
    curve               (S, T or E)     a metric: a row per seed, a column per iteration or evaluation; None where there is none

The final measure is the test accuracy after the last iteration; beside it stands the mean of the last three evaluations. Two arms are told
apart if the paired t-test has p < 0.05 after Holm's correction for all the pairs of its family: all pairs of rewards are one family, the
ablations against influence another.

Departs from the textbook: a standard deviation below one test question counts as one test question. Accuracies move in such steps, so a few
seeds can differ by exactly the same amount and would have an interval of no width.
"""
import itertools
import math

import numpy as np

STEP = 1 / 400                                                  # one of the test questions of the embedded world
METRICS = ("test_accuracy", "key_accuracy", "target_share", "valid_share", "solved_share")


# ---------------------------------------------------------------- statistics

def t_weights(df):
    """Student's t with df degrees of freedom is sqrt(df) tan(a), where a in (-pi/2, pi/2) has a density that goes as cos(a)^(df - 1).

    -> (a at the middle of fine steps from 0 to pi/2, the share of |t|'s probability in each)
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


def interval(values):
    """List of S numbers -> {"mean", "low", "high", "n"}: the mean with its 95 % t-interval; no interval for fewer than two."""
    mean, n = float(np.mean(values)) if values else None, len(values)
    half = t_quantile(n - 1) * standard_error(values) if n > 1 else None
    return {"mean": mean, "low": None if half is None else mean - half, "high": None if half is None else mean + half, "n": n}


def flip_p_value(d):
    """List of S paired differences -> share of the 2^S ways to flip their signs with a sum as far from 0.

    >>> flip_p_value([1, 2, 3, 4])
    0.125
    """
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    return float(np.mean(np.abs(sums) >= abs(sum(d)) - 1e-9))


def paired(x, y):
    """{seed: value} of two arms -> interval of x - y over the seeds they share, "wins" of x, "p" of the t-test and "p_flip"."""
    d = [x[seed] - y[seed] for seed in x if seed in y]
    found = interval(d) | {"wins": sum(value > 0 for value in d), "p": None, "p_flip": None}
    if len(d) > 1:
        found |= {"p": t_p_value(found["mean"] / standard_error(d), len(d) - 1), "p_flip": flip_p_value(d)}
    return found


def holm(p):
    """List of p-values -> those corrected by Holm, in the same order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, so_far = [None] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        so_far = corrected[i] = max(so_far, min(1.0, (len(p) - rank) * p[i]))
    return corrected


def compare(final, pairs):
    """{arm: {seed: x}}, the pairs of one family -> a row for each pair that shares two seeds, the better arm first."""
    rows = []
    for a, b in pairs:
        row = paired(final[a], final[b])
        if row["p"] is not None:
            ahead = {"better": a, "other": b} | row
            rows.append(ahead if row["mean"] >= 0 else {"better": b, "other": a} | paired(final[b], final[a]))
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row |= {"p_holm": p, "told_apart": p < 0.05}
    return rows


# ---------------------------------------------------------------- results

def standings(arms, iterations, eval_every):
    """{arm: {"ablation": bool, "runs": {seed: lines of metrics.jsonl}, ...}} -> {"conclusion", "pairs", "arms", ...} for race.json.

    Whatever else an arm brings is passed on. All runs have the same iterations and evaluations.
    """
    evaluated = [0] + [t for t in range(1, iterations + 1) if t % eval_every == 0 or t == iterations]
    final = {arm: {seed: lines[-1]["test_accuracy"] for seed, lines in x["runs"].items()} for arm, x in arms.items()}
    rewards, ablations = [arm for arm in arms if not arms[arm]["ablation"]], [arm for arm in arms if arms[arm]["ablation"]]
    pairs = {"rewards": compare(final, itertools.combinations(rewards, 2)),
             "ablations": compare(final, [(arm, "influence") for arm in ablations if "influence" in arms])}
    found = {"iterations": iterations, "evaluated": evaluated, "pairs": pairs,
             "arms": {arm: standing(arm, x, final, evaluated) for arm, x in arms.items()}}
    return {"conclusion": conclusion(found)} | found


def standing(arm, x, final, evaluated):
    """One arm: where it ended, how far from the fixed generator and from influence seed by seed, its curves."""
    runs, known = x["runs"].values(), lambda value: None if value is None else round(value, 5)
    curves = {metric: [[known(line.get(metric)) for line in lines] for lines in runs] for metric in METRICS}                # (S, T)
    curves["test_accuracy"] = [[known(lines[0]["test_accuracy_anchor"])] + [known(lines[t - 1]["test_accuracy"]) for t in evaluated[1:]]
                               for lines in runs]                                                                           # (S, E)
    return {name: value for name, value in x.items() if name != "runs"} | {
        "seeds": list(x["runs"]),
        "hours": round(sum(sum(line["seconds"].values()) for lines in runs for line in lines) / 3600, 3),
        "final": interval(list(final[arm].values())),
        "last_three": interval([float(np.mean(row[1:][-3:])) for row in curves["test_accuracy"]]),
        "late": {metric: late_mean(curves[metric]) for metric in METRICS if metric != "test_accuracy"},
        "against": {other: paired(final[arm], final[other]) for other in ("fixed", "influence") if other in final and other != arm},
        "curves": curves}


def late_mean(curve, k=5):
    """(S, T) -> mean over seeds and the last k iterations, or None."""
    values = [value for row in curve for value in row[-k:] if value is not None]
    return float(np.mean(values)) if values else None


def ranking(found):
    """-> all arms, the best final measure first."""
    return sorted(found["arms"], key=lambda arm: -found["arms"][arm]["final"]["mean"])


def conclusion(found):
    """-> sentences: the order of the rewards, the pairs it is supported for, and those that cannot be told apart."""
    ranked, text = [arm for arm in ranking(found) if not found["arms"][arm]["ablation"]], []
    apart = {(row["better"], row["other"]) for row in found["pairs"]["rewards"] if row["told_apart"]}
    if len(ranked) > 1:
        signs = [" > " if pair in apart else " ~ " for pair in itertools.pairwise(ranked)] + [""]
        text.append(f"Test accuracy after {found['iterations']} iterations: {''.join(map(''.join, zip(ranked, signs)))} "
                    "(>: told apart from the next, ~: not).")
        above = {a: ", ".join(b for b in ranked if (a, b) in apart) for a in ranked}
        supported = "; ".join(f"{a} above {others}" for a, others in above.items() if others)
        test = "paired t-tests over seeds, Holm's correction for all pairs, p < 0.05"
        text.append(f"Supported ({test}): {supported}." if supported else f"No order is supported ({test}): these seeds cannot tell.")
        together = "; ".join(f"{a} and {b}" for a, b in itertools.combinations(ranked, 2) if (a, b) not in apart)
        together = together if apart else "all of them"
        text.append(f"Cannot be told apart: {together}." if together else "Every pair is told apart.")
    for row in found["pairs"]["ablations"]:
        text.append(f"Ablation: {row['better']} before {row['other']} by {points(row)}, p {p_text(row['p_holm'])} after Holm's correction: "
                    + ("told apart." if row["told_apart"] else "cannot be told apart."))
    return text


def agreement(found, published):
    """Results, those of the published race -> a sentence: of the pairs told apart there, how many have the same arm ahead here?"""
    theirs = [(row["better"], row["other"]) for row in published["pairs"]["rewards"] if row["told_apart"]]
    ours = {(row["better"], row["other"]): row["told_apart"] for row in found["pairs"]["rewards"]}
    same, reverse = [pair for pair in theirs if pair in ours], [pair[::-1] for pair in theirs if pair[::-1] in ours]
    return (f"Of the {len(theirs)} pairs that the published race tells apart, {len(same)} have the same arm ahead here (told apart: "
            f"{sum(ours[pair] for pair in same)}) and {len(reverse)} the other (told apart: {sum(ours[pair] for pair in reverse)})"
            + "".join(f"; {a} before {b}" for a, b in reverse) + ".")


def p_text(p):
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def percent(x, sign=""):
    return "-" if x is None else f"{100 * x:{sign}.1f}"


def points(row, sign="+"):
    """An interval in percent, signed if it is one of differences: mean [low, high]."""
    width = f" [{percent(row['low'], sign)}, {percent(row['high'], sign)}]" if row["low"] is not None else ""
    return percent(row["mean"], sign) + width


def table(found):
    """Results -> a Markdown table, the best arm first."""
    columns = ("arm", "generator lr", "seeds", "test accuracy", "last three evaluations", "minus fixed", "minus influence",
               "ahead of influence", "right keys", "target share", "valid")
    rows = [columns, ("---", *["--:"] * (len(columns) - 1))]
    for arm in ranking(found):
        x = found["arms"][arm]
        fixed, influence = x["against"].get("fixed"), x["against"].get("influence")
        wins = f"{influence['wins']} of {influence['n']}, p {p_text(influence['p_flip'])}" if influence and influence["n"] > 1 else "-"
        rows.append((arm, x["generator_lr"] or "-", str(len(x["seeds"])), points(x["final"], ""), points(x["last_three"], ""),
                     points(fixed) if fixed else "-", points(influence) if influence else "-", wins,
                     *(percent(x["late"][metric]) for metric in ("key_accuracy", "target_share", "valid_share"))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
