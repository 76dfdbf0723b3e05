"""The other ways to pay a generator: for difficulty, as self-play methods do, and two controls.

    name          reward of a valid question                        source
    influence     s_hat                                             influence.py
    spice         exp( -(Var - 1/4)^2 / 0.02 ),  Var = p (1 - p)    SPICE, arXiv 2510.24684
    rzero         max( 0, 1 - 2 |p_maj - 1/2| - |cluster| / Q )     R-Zero, arXiv 2508.05004
    azr           0 if p = 0 else 1 - p                             Absolute Zero, arXiv 2505.03335
    learnability  4 p (1 - p)                                       the quadratic form of that idea
    random        a seeded uniform number                           control
    invalid       0, where an invalid draft earns -1                a term for sums
    fixed         none: the generator is not updated                control

--reward is a name or a weighted sum, "influence + 0.5 spice", each term with advantages of its own.

    code      symbol    shape     meaning
    r         r         (Q, m)    1 where an answer matches the draft's key, else 0; nan: not known
    p         p         (Q,)      share of the m answers that match the key
    given               (Q, m)    what each answer gave: a letter, a boxed text, or None for neither
    p_maj     p_maj     (Q,)      share of the answer given most often, whatever the key says
    clusters  |cluster| (Q,)      how many of the Q questions are near-duplicates, itself included

The difficulty rewards pay for questions the solver is unsure of. With four choices chance is
p = 1/4, so they pay for guessing too, and a wrong key that the solver hits now and then looks just
right to them; rzero does not look at the key at all. These are the papers' forms, from which the
code of R-Zero and Absolute Zero departs.
"""
import functools
import math
import random
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

# torch is not imported: only methods of the tensors that come in are used, so that config.py can
# read REWARDS, and `python train.py --help` answer, without waiting for torch.


# To try a reward of your own: a function here, and its line in REWARDS below. --reward NAME, --help
# and the error messages follow. Each gets p (Q,), the Q data.Questions, the answers given and seed
# words, and returns (Q,); *_ is what a function does not look at.

def spice(p, *_):
    """(Q,) -> (Q,): a bell over the variance of a yes-or-no answer, 1 where half are right.

    >>> import torch
    >>> spice(torch.tensor([0., 1/8, 1/2]))
    tensor([0.0439, 0.3720, 1.0000])
    """
    return (-(p * (1 - p) - 0.25) ** 2 / 0.02).exp()


def azr(p, *_):
    """(Q,) -> (Q,): the harder the better, unless nobody solves it.

    >>> import torch
    >>> azr(torch.tensor([0., 1/8, 1.]))
    tensor([0.0000, 0.8750, 0.0000])
    """
    return (1 - p).masked_fill(p == 0, 0.0)


def learnability(p, *_):
    """(Q,) -> (Q,): four times the variance of a yes-or-no answer.

    >>> import torch
    >>> learnability(torch.tensor([0., 1/8, 1/2]))
    tensor([0.0000, 0.4375, 1.0000])
    """
    return 4 * p * (1 - p)


def rzero(p, questions, given, *_):
    """(Q,) -> (Q,): an even vote is worth most, a near-duplicate less; blind to the key."""
    clusters = cluster_sizes([question.question_text for question in questions])
    return split_vote(p.new_tensor(majority_share(given)), p.new_tensor(clusters))


def uniform(p, questions, given, seed_words):
    """(Q,) -> (Q,): a number from 0 to below 1, the same for the same words."""
    rng = random.Random(repr(seed_words))
    return p.new_tensor([rng.random() for _ in questions])


def nothing(p, *_):
    """(Q,) -> (Q,): 0 for whoever is valid."""
    return p * 0


REWARDS = {             # name: (what a valid question earns, what an invalid draft earns)
    "influence":    (None, 0.0),                # s_hat
    "spice":        (spice, -0.1),
    "rzero":        (rzero, 0.0),
    "azr":          (azr, -1.0),
    "learnability": (learnability, 0.0),
    "random":       (uniform, 0.0),
    "invalid":      (nothing, -1.0),
    "fixed":        (None, 0.0),                # nobody is paid
}


# ---------------------------------------------------------------- sums of rewards

class Term(NamedTuple):
    """A term of --reward."""
    name: str
    weight: float = 1.0             # of its advantages in A_gen
    advantage: str | None = None    # how its scores become advantages (dugrpo.py); None: the run's
    invalid: float | None = None    # what an invalid draft earns; None: the run's, or the reward's


TERM = re.compile(r"(?:(-?\d*\.?\d+)\s*\*?\s*)?([A-Za-z]\w*)(?::(\w+))?")


@functools.cache
def parse(text):
    """--reward -> its Terms. ValueError says what is wrong with it.

    >>> [tuple(term)[:3] for term in parse("influence + 0.5 spice:group_std")]
    [('influence', 1.0, None), ('spice', 0.5, 'group_std')]
    """
    terms = []
    for part in text.split("+"):
        match = TERM.fullmatch(part.strip())
        if not match or match[2] not in REWARDS:
            known = ", ".join(REWARDS)
            raise ValueError(f"{part.strip()!r} is no reward; expected one, or a sum such as "
                             f"'influence + 0.5 spice:group_std', of {known}")
        weight, name, advantage = match.groups()
        terms.append(Term(name, 1.0 if weight is None else float(weight), advantage))

    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError("expected each reward once")
    if not all(term.weight for term in terms):
        raise ValueError("expected weights other than 0")
    if "fixed" in names and terms != [Term("fixed")]:
        raise ValueError("expected 'fixed' alone: nobody is paid")
    return terms


def terms_of(text, advantage, invalid):
    """--reward -> its Terms, with what they leave open filled in by the run's own settings."""
    found = []
    for term in parse(text):
        own = REWARDS[term.name][1] if invalid is None else invalid
        found.append(term._replace(advantage=term.advantage or advantage, invalid=own))
    return found


def earnings(terms, s_hat, questions, given, r, seed_words):
    """What Q questions earn by each term -> {term: (Q,) scores}.

    None for a term that pays nobody: fixed, or influence without s_hat. given(): what the answers
    gave, as scores takes it; called where a term wants it.
    """
    earned = {}
    for term in terms:
        if term.name == "influence":
            earned[term] = s_hat
        elif term.name == "fixed":
            earned[term] = None
        else:
            earned[term] = scores(term.name, questions, given(), r, seed_words)
    return earned


def total(earned):
    """{term: (Q,) scores, or None where it pays nobody} -> (Q,) their weighted sum; None: nobody.

    For the log and for solver_keep top; the generator learns from each term by itself.
    """
    paid = [term.weight * score for term, score in earned.items() if score is not None]
    return sum(paid[1:], paid[0]) if paid else None


def scores(name, questions, given, r, seed_words):
    """Q valid questions, what their answers gave and earned -> (Q,) what each question earns.

    given and r are (Q, m). seed_words make random's numbers unique, e.g. (seed, iteration). Where
    no answer could be checked a question earns 0. ValueError for a name without a function here.
    """
    reward, _ = REWARDS.get(name, (None, None))
    if reward is None:
        known = ", ".join(name for name, (function, _) in REWARDS.items() if function)
        raise ValueError(f"reward {name!r} is unknown; expected one of {known}")
    p = r.nanmean(dim=1)                                                # (Q,)
    # 0 where no answer could be checked, also of those that look at no r
    return reward(p, questions, given, seed_words).masked_fill(p.isnan(), 0.0)  # (Q,)


# ---------------------------------------------------------------- R-Zero: votes, near-duplicates
# Near-duplicates: distance 1 - sentence BLEU, average linkage, merged while closer than 0.5; the
# mean of both directions, so that order does not matter (our choice).

def split_vote(p_maj, clusters):
    """(Q,) majority shares, (Q,) cluster sizes -> (Q,): 1 for an even vote, less near-duplicates.

    >>> import torch
    >>> split_vote(torch.tensor([0.5, 0.75, 1.0]), torch.tensor([1, 1, 2]))
    tensor([0.6667, 0.1667, 0.0000])
    """
    duplicates = clusters / max(1, len(clusters))
    return (1 - 2 * (p_maj - 0.5).abs() - duplicates).clamp(min=0)


def majority_share(given):
    """What (Q, m) answers gave -> Q shares of what was given most often.

    An answer with nothing in its box counts among the m, never as a vote.

    >>> majority_share([["A", "A", "B", None], [None, None, None, None]])
    [0.5, 0.0]
    """
    shares = []
    for group in given:
        votes = Counter(answer for answer in group if answer is not None)
        shares.append(max(votes.values(), default=0) / len(group))
    return shares


def cluster_sizes(texts, threshold=0.5):
    """Q texts -> for each, how many of them stand in its cluster, by average linkage.

    >>> cluster_sizes(["What is 2 plus 3 ?", "Who came last ?", "What is 2 plus 4 ?"])
    [2, 1, 2]
    """
    distance = bleu_distances(texts)
    np.fill_diagonal(distance, np.inf)
    members = [[i] for i in range(len(texts))]
    while len(texts) > 1:
        i, j = sorted(np.unravel_index(distance.argmin(), distance.shape))
        if not distance[i, j] < threshold:
            break
        merge(distance, members, i, j)

    sizes = [0] * len(texts)
    for cluster in members:
        for i in cluster:
            sizes[i] = len(cluster)
    return sizes


def merge(distance, members, i, j):
    """Cluster j joins i, in place; a distance stays the mean over all pairs of two clusters."""
    size_i = len(members[i])
    size_j = len(members[j])
    merged = (size_i * distance[i] + size_j * distance[j]) / (size_i + size_j)
    merged[i] = np.inf
    distance[i], distance[:, i] = merged, merged
    distance[j], distance[:, j] = np.inf, np.inf
    members[i], members[j] = members[i] + members[j], []


def bleu_distances(texts):
    """Q texts -> (Q, Q) symmetric array of 1 - BLEU; 0 between texts whose words are the same."""
    words = [text.lower().split() for text in texts]
    grams = [n_grams(w) for w in words]
    distance = np.zeros((len(texts), len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if words[i] == words[j]:
                continue
            # the same in both directions; only the lengths change sides
            common = [sum((a & b).values()) for a, b in zip(grams[i], grams[j])]
            there = bleu_score(common, len(words[i]), len(words[j]))
            back = bleu_score(common, len(words[j]), len(words[i]))
            distance[i, j] = distance[j, i] = 1 - (there + back) / 2
    return distance


def n_grams(words):
    """Words -> how often each of their n-grams comes, for n = 1 to 4."""
    counts = []
    for n in (1, 2, 3, 4):
        shifted = [words[start:] for start in range(n)]
        counts.append(Counter(zip(*shifted)))
    return counts


def bleu_score(common, length, reference_length):
    """Numbers of shared n-grams (n = 1 to 4) and two lengths in words -> sentence BLEU.

    An order without a match counts 0.1 (smoothing as in nltk's method 1). Below, 6/9, 4/8, 3/7
    and 2/6: their geometric mean.

    >>> round(bleu_score([6, 4, 3, 2], 9, 9), 4)
    0.4671
    """
    if not length or not common[0]:
        return 0.0
    precisions = [max(n, 0.1) / max(1, length - order) for order, n in enumerate(common)]
    brevity = min(1.0, math.exp(1 - reference_length / length))
    return brevity * math.exp(sum(map(math.log, precisions)) / 4)
