"""From the answers to questions to numbers: pass@k, votes, means with errors, paired differences.

    accuracy       = mean over questions of c / N
    pass@k         = mean over questions of 1 - C(N - c, k) / C(N, k)    k = 1, 2, 4, ... <= N
    standard error = std over questions of that number / sqrt(Q)

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
    per_question = {
        "accuracy": [share(x["right"]) for x in records],
        "majority": [majority(x["given"], x["right"]) for x in records]}            # (Q,) each
    for k in powers_of_two(max(len(x["right"]) for x in records)):
        per_question[f"pass@{k}"] = [known_pass_at_k(x["right"], k) for x in records]

    answers = sum(len(x["right"]) for x in records)
    result = {"questions": len(records), "answers": answers}
    for name, values in per_question.items():
        result[name], result[f"{name}_error"] = mean_and_error(values)

    def every(name):
        return list(chain.from_iterable(x[name] for x in records))

    return result | {
        "no_answer": every("given").count(None) / answers,
        "unknown": every("right").count(None),
        "cut": sum(not finished for finished in every("finished")) / answers,
        "mean_tokens": sum(every("tokens")) / answers}


def known_pass_at_k(right, k):
    """Of the answers whose verdict is known; nan where they are fewer than k."""
    known = [r for r in right if r is not None]
    return pass_at_k(len(known), sum(known), k) if k <= len(known) else math.nan


def paired(records, first):
    """A model's records and the first's -> their difference in accuracy over common questions.

    None where there are too few.
    """
    other = {x["question_id"]: share(x["right"]) for x in first}
    both = []
    for x in records:
        if x["question_id"] in other:
            both.append(share(x["right"]) - other[x["question_id"]])
    mean, error = mean_and_error(both)
    return {"difference": mean, "error": error, "interval": interval(mean, error),
            "questions": sum(not math.isnan(difference) for difference in both)}
