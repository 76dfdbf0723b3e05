"""From the answers to questions to numbers: pass@k, votes, means with errors, paired differences.

    accuracy       = mean over questions of c / N
    pass@k         = mean over questions of 1 - C(N - c, k) / C(N, k)    k = 1, 2, 4, ... <= N
    standard error = std over questions of that number / sqrt(Q)
    relative gain  = difference / accuracy of the first model on the same questions

    code       symbol   shape    meaning
    right      c        (Q, N)   1 right, 0 wrong or nothing in a box, None where nobody knows; c
                                 counts the 1s
    values              (Q,)     one number per question, nan where unknown

pass@1 is the accuracy. Error bars are over questions, since answers to one question are not
independent; intervals are 95 %, 1.96 standard errors. An unknown answer (None) is counted and left
out: its question then has fewer answers, and no pass@k for a k beyond them. Knows nothing of models
or files.
"""
import math
from collections import Counter
from itertools import chain

import torch


def mean_and_error(values):
    """(Q,) numbers -> (mean, its standard error) of the known ones; None where there are too few.

    >>> mean_and_error([1.0, 0.0, 1.0, 0.0, float("nan")])
    (0.5, 0.28867513459481287)
    """
    known = torch.as_tensor(values, dtype=torch.float64)
    known = known[~known.isnan()]
    if not len(known):
        return None, None
    error = float(known.std() / len(known) ** 0.5) if len(known) > 1 else None
    return float(known.mean()), error


def interval(mean, error):
    """A mean and its standard error -> its 95 % interval, or None."""
    return None if error is None else [mean - 1.96 * error, mean + 1.96 * error]


def combine(pairs):
    """[(mean, standard error)] of independent sets -> (their mean, its standard error).

    None where one of them is.

    >>> combine([(0.5, 0.03), (0.7, 0.04)])
    (0.6, 0.025)
    """
    means, errors = zip(*pairs)
    mean = None if None in means else sum(means) / len(means)
    return mean, None if None in errors else math.hypot(*errors) / len(errors)


# ---------------------------------------------------------------- one question

def pass_at_k(n, c, k):
    """Chance that k answers drawn from n, of which c are right, hold a right one.

    Unbiased, and exact up to the last division. Source: Chen et al. 2021, arXiv 2107.03374.
    ValueError unless 0 <= c <= n and 1 <= k <= n.

    >>> [round(pass_at_k(32, 3, k), 6) for k in (1, 2, 4, 8, 16, 32)]
    [0.09375, 0.181452, 0.339516, 0.591935, 0.887097, 1.0]
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} right answers among {n}: expected 0 <= c <= n and "
                         "1 <= k <= n")
    return (math.comb(n, k) - math.comb(n - c, k)) / math.comb(n, k)


def majority(given, right):
    """N answers, and whether each is right -> chance that the most frequent one is.

    An answer of None (nothing in a box) has no vote; nan if no verdict is known. Of equally
    frequent answers one is drawn. Right answers count as one answer, wrong ones by their text.

    >>> majority(["A", "B", "B", None], [0, 1, 1, 0])
    1.0
    >>> majority(["A", "B"], [0, 1]), majority([None, None], [0, 0])
    (0.5, 0.0)
    """
    known = [(answer, r) for answer, r in zip(given, right) if r is not None]
    if not known:
        return math.nan
    # "1/2" and "0.5": one answer if both are right
    votes = Counter(True if r else answer for answer, r in known if answer is not None)
    most = [answer for answer, count in votes.items() if count == max(votes.values())]
    return (True in most) / max(1, len(most))


def share(right):
    """Known answers' share of right ones; nan if none is known."""
    known = [r for r in right if r is not None]
    return sum(known) / len(known) if known else math.nan


def powers_of_two(n):
    """1, 2, 4, ... <= n."""
    return [2 ** i for i in range(n.bit_length())]


# ---------------------------------------------------------------- many questions

def summarize(records):
    """Q records, one per question -> every number of the table.

    Shares, not percent; lengths in tokens; None where nothing is known.
    """
    answers = sum(len(x["right"]) for x in records)
    votes = [majority(x["given"], x["right"]) for x in records]                     # (Q,)
    majority_mean, majority_error = mean_and_error(votes)

    def every(name):
        return list(chain.from_iterable(x[name] for x in records))

    return scores(records) | {
        "majority": majority_mean, "majority_error": majority_error,
        "no_answer": every("given").count(None) / answers,
        "cut": sum(not finished for finished in every("finished")) / answers,
        "mean_tokens": sum(every("tokens")) / answers}


def scores(records):
    """Q records of which only "right" is known, as of programs -> what can be said of them."""
    per_question = {"accuracy": [share(x["right"]) for x in records]}               # (Q,) each
    for k in powers_of_two(max(len(x["right"]) for x in records)):
        per_question[f"pass@{k}"] = [known_pass_at_k(x["right"], k) for x in records]

    right = list(chain.from_iterable(x["right"] for x in records))
    result = {"questions": len(records), "answers": len(right), "unknown": right.count(None)}
    for name, values in per_question.items():
        result[name], result[f"{name}_error"] = mean_and_error(values)
    nothing = ("majority", "majority_error", "no_answer", "cut", "mean_tokens")
    return result | dict.fromkeys(nothing) | {"too_long": 0, "checked": {}, "differences": []}


def known_pass_at_k(right, k):
    """Of the answers whose verdict is known; nan where they are fewer than k."""
    known = [r for r in right if r is not None]
    return pass_at_k(len(known), sum(known), k) if k <= len(known) else math.nan


def paired(records, first):
    """A model's records and the first's -> their difference in accuracy over common questions.

    None where there are too few, or where the first has nothing right to be relative to.
    """
    other = {x["question_id"]: share(x["right"]) for x in first}
    both, before = [], []
    for x in records:
        if x["question_id"] in other:
            both.append(share(x["right"]) - other[x["question_id"]])
            before.append(math.nan if math.isnan(both[-1]) else other[x["question_id"]])
    mean, error = mean_and_error(both)
    return {"difference": mean, "error": error, "interval": interval(mean, error),
            "relative": relative(mean, mean_and_error(before)[0]),
            "questions": sum(not math.isnan(difference) for difference in both)}


def relative(difference, before):
    """
    >>> relative(0.1, 0.4), relative(0.1, 0.0)
    (0.25, None)
    """
    return difference / before if difference is not None and before else None


# ---------------------------------------------------------------- many sets

def group_means(sets, models, sizes):
    """Sets with a category or a group -> {its name: means over its sets}, each of the same weight.

    sizes: {category: how many sets are in its mean}, the authors' four. Where all are complete,
    the mean of their means follows. Means: {"sets", "of", model: {"accuracy", "accuracy_error",
    "against_first"}}.
    """
    members = {}
    for name, one in sets.items():
        for group in filter(None, (one["category"], one["group"])):
            members.setdefault(group, []).append(name)

    means = {}
    for group in [*(name for name in sizes if name in members),
                  *(name for name in members if name not in sizes)]:
        parts = [sets[name]["models"] for name in members[group]]
        means[group] = {"sets": members[group], "of": sizes.get(group)}
        means[group] |= mean_of(parts, models)
    complete = [name for name, size in sizes.items()
                if name in means and len(means[name]["sets"]) == size]
    if sizes and len(complete) == len(sizes):
        name = "mean of four categories"
        means[name] = {"sets": complete, "of": len(sizes)}
        means[name] |= mean_of([means[category] for category in complete], models)
    return means


def mean_of(parts, models):
    """Several {model: accuracy, its error, against_first} -> the same of their mean."""
    found = {}
    for model in models:
        mean, error = combine([(x[model]["accuracy"], x[model]["accuracy_error"]) for x in parts])
        found[model] = {"accuracy": mean, "accuracy_error": error}
        if model != models[0]:
            against = [x[model]["against_first"] for x in parts]
            mean, error = combine([(x["difference"], x["error"]) for x in against])
            found[model]["against_first"] = {
                "difference": mean, "error": error, "interval": interval(mean, error),
                "relative": relative(mean, found[models[0]]["accuracy"])}
    return found
