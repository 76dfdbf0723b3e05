"""The other ways to pay a generator: rewards of self-play methods, which pay for difficulty, and controls. Influence has a file of its own.

    name          reward of a valid question                                    invalid    source
    influence     s_hat                                                          0         influence.py
    spice         exp( -(Var - 1/4)^2 / 0.02 ),  Var = p (1 - p)                -0.1       SPICE, arXiv 2510.24684
    rzero         max( 0, 1 - 2 |p_maj - 1/2| - |cluster| / Q )                  0         R-Zero, arXiv 2508.05004
    azr           0 if p = 0 else 1 - p                                         -1         Absolute Zero, arXiv 2505.03335
    learnability  4 p (1 - p)                                                    0         the quadratic form of the same idea
    random        a seeded uniform number                                        0         control
    fixed         none: the generator is not updated                             -         control

    code      symbol    shape     meaning
    r         r         (Q, m)    1 where an answer matches the generator's key, else 0; nan where that is not known
    p         p         (Q,)      share of the m answers that match the key
    p_maj     p_maj     (Q,)      share of the answer given most often, whatever the key says
    clusters  |cluster| (Q,)      how many of the batch's questions are near-duplicates of this one, itself included

All of them pay for questions the solver is unsure of. With four options chance is p = 1/4, so they pay for pure guessing too, and a wrong key that the solver
hits now and then looks just right to them. rzero does not look at the key at all.

Near-duplicates: distance 1 - sentence BLEU, average linkage, clusters merged while closer than 0.5. BLEU is not symmetric; the distance here is that of the mean of
both directions, so that the order of the batch does not matter (our choice).

The papers' forms; the released code of R-Zero and Absolute Zero departs from them. What an invalid draft earns is config.INVALID_SCORES.
"""
import math
import random
from collections import Counter

import numpy as np
import torch

from solver import extract_answer, last_boxed


def scores(name, questions, answers, r, key):
    """Q valid questions, their (Q, m) answers and rewards -> (Q,) what each earns. ValueError for an unknown name.

    key: words that make random's numbers unique, e.g. (seed, iteration). A question none of whose answers could be checked earns 0.
    """
    if name == "random":
        rng = random.Random(repr(key))
        return torch.tensor([rng.random() for _ in questions])
    if name == "rzero":
        return rzero(majority_share(questions, answers), cluster_sizes([question.question_text for question in questions]))
    if name not in BY_SHARE_SOLVED:
        raise ValueError(f"reward {name!r} is unknown; expected one of {', '.join([*BY_SHARE_SOLVED, 'rzero', 'random'])}")
    return BY_SHARE_SOLVED[name](r.nanmean(dim=1)).nan_to_num(0.0)


def spice(p):
    """(Q,) -> (Q,): a bell over the variance of a yes-or-no answer, 1 where half of the answers are right.

    >>> spice(torch.tensor([0., 1/8, 1/2]))
    tensor([0.0439, 0.3720, 1.0000])
    """
    return torch.exp(-(p * (1 - p) - 0.25) ** 2 / 0.02)


def azr(p):
    """(Q,) -> (Q,): the harder the better, unless nobody solves it.

    >>> azr(torch.tensor([0., 1/8, 1.]))
    tensor([0.0000, 0.8750, 0.0000])
    """
    return torch.where(p == 0, torch.zeros_like(p), 1 - p)


def learnability(p):
    """(Q,) -> (Q,): four times the variance of a yes-or-no answer.

    >>> learnability(torch.tensor([0., 1/8, 1/2]))
    tensor([0.0000, 0.4375, 1.0000])
    """
    return 4 * p * (1 - p)


BY_SHARE_SOLVED = {"spice": spice, "azr": azr, "learnability": learnability}


# ---------------------------------------------------------------- R-Zero: its majority vote and its near-duplicates

def rzero(p_maj, clusters):
    """(Q,) shares of the majority answer, (Q,) cluster sizes -> (Q,): 1 where the vote is split in half, less the share of near-duplicates.

    >>> rzero(torch.tensor([0.5, 0.75, 1.0]), torch.tensor([1, 1, 2]))
    tensor([0.6667, 0.1667, 0.0000])
    """
    return (1 - 2 * (p_maj - 0.5).abs() - clusters / max(1, len(clusters))).clamp(min=0)


def majority_share(questions, answers):
    """(Q, m) answers -> (Q,): share of the answer given most often. An answer with nothing in its box counts among the m, never as a vote."""
    shares = []
    for question, group in zip(questions, answers):
        given = [extract_answer(a.text, len(question.choices)) if question.choices else last_boxed(a.text) for a in group]
        votes = Counter(answer for answer in given if answer is not None)
        shares.append(max(votes.values(), default=0) / len(group))
    return torch.tensor(shares)


def cluster_sizes(texts, threshold=0.5):
    """Q texts -> (Q,) how many of them stand in each one's cluster, by average linkage.

    >>> cluster_sizes(["What is 2 plus 3 ?", "Who came last ?", "What is 2 plus 4 ?"])
    tensor([2, 1, 2])
    """
    distance = bleu_distances(texts)
    np.fill_diagonal(distance, np.inf)
    members = [[i] for i in range(len(texts))]
    while len(texts) > 1:
        i, j = sorted(np.unravel_index(distance.argmin(), distance.shape))
        if not distance[i, j] < threshold:
            break
        n, k = len(members[i]), len(members[j])
        merged = (n * distance[i] + k * distance[j]) / (n + k)      # the mean over all pairs of the two clusters, kept up to date
        merged[i] = np.inf
        distance[i], distance[:, i] = merged, merged
        distance[j], distance[:, j] = np.inf, np.inf
        members[i], members[j] = members[i] + members[j], []
    sizes = torch.zeros(len(texts), dtype=torch.long)
    for cluster in members:
        sizes[cluster] = len(cluster)
    return sizes


def bleu_distances(texts):
    """Q texts -> (Q, Q) symmetric array of 1 - BLEU; 0 between texts whose words are the same."""
    words = [text.lower().split() for text in texts]
    grams = [[Counter(zip(*(w[k:] for k in range(order)))) for order in (1, 2, 3, 4)] for w in words]
    distance = np.zeros((len(texts), len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if words[i] != words[j]:
                common = [sum((a & b).values()) for a, b in zip(grams[i], grams[j])]        # the same in both directions
                bleu = (bleu_score(common, len(words[i]), len(words[j])) + bleu_score(common, len(words[j]), len(words[i]))) / 2
                distance[i, j] = distance[j, i] = 1 - bleu
    return distance


def bleu_score(common, length, reference_length):
    """Numbers of shared n-grams (n = 1 to 4) and two lengths in words -> sentence BLEU; an order without a match counts 0.1 (smoothing as in nltk's method 1).

    >>> round(bleu_score([6, 4, 3, 2], 9, 9), 4)        # 6/9, 4/8, 3/7, 2/6: their geometric mean
    0.4671
    """
    if not length or not common[0]:
        return 0.0
    precisions = [max(n, 0.1) / max(1, length - order) for order, n in enumerate(common)]
    brevity = min(1.0, math.exp(1 - reference_length / length))
    return brevity * math.exp(sum(map(math.log, precisions)) / 4)
