"""A_gen by DuGRPO, and what each wrong normalisation does to a generator."""
import math

import torch

from classroom.compare import expect, mistake, raises

NAME = "dugrpo"
SYMBOL = "A_gen = (s - mu_d) / (sigma_d + sigma_B + eps)"
FILE = "dugrpo.py"
BLANKS = ["two_sigmas", "dugrpo"]
RUN = True

HINTS = (
    "Two functions: two_sigmas is the formula on ready numbers; dugrpo makes them from s. A group "
    "is a document's n drafts, a row of s. Documents whose scores are all equal say nothing: they "
    "get zeros, and are in no mean.",
    "In dugrpo: x = s.double(), and alive = ~all_equal(s) says which rows count. Of those rows: "
    "centred (D', n) is the row less its mean, sigma (D', 1) its unbiased std, sigma_B the mean "
    "of sigma.",
    "Begin with checked(s, \"scores\"), which raises or returns nothing, and a ValueError for a "
    "mode that is not in ADVANTAGES. If no document is alive return "
    "like_input(x.new_zeros(x.shape), s). Else A_gen is zeros, with A_gen[alive] = "
    "ADVANTAGES[mode](centred, sigma, sigma_B, eps); return like_input(A_gen, s).",
)

DIVISION = "centred / (sigma + sigma_B + eps)"
MISTAKES = (
    mistake(
        "only sigma_d is in the denominator: that is GRPO; a document whose scores differ by "
        "noise alone then weighs as much as one with real differences",
        ("two_sigmas", DIVISION, "centred / (sigma + eps)")),
    mistake(
        "only sigma_B is in the denominator: every document is on one scale, and the one with the "
        "widest scores drives the update",
        ("two_sigmas", DIVISION, "centred / (sigma_B + eps)")),
    mistake(
        "nothing is divided: the document with the widest scores drives the update; the scale that "
        "all have in common does not matter, since AdamW divides by it",
        ("two_sigmas", DIVISION, "centred")),
    mistake(
        "the standard deviation is the population's (divided by n), not the sample's (n - 1)",
        ("dugrpo", "x[alive].std(dim=1, keepdim=True)",
         "x[alive].std(dim=1, keepdim=True, unbiased=False)")),
    mistake(
        "documents that are all equal are in sigma_B: their zeros make it smaller, the more of "
        "them there are",
        ("dugrpo", "sigma.mean()", "sigma.sum() / len(x)")),
    mistake(
        "sigma_B is the std of all scores of the batch: differences between documents, which no "
        "draft can help, are in it; it is the mean of the sigma_d",
        ("dugrpo", "sigma.mean()", "x.std()")),
    mistake(
        "the mean is that of the batch and not of the document: drafts of a document that is easy "
        "to write from get A > 0 whatever they are",
        ("dugrpo", "x[alive] - x[alive].mean(dim=1, keepdim=True)", "x[alive] - x.mean()")),
    mistake(
        "the two sigmas multiply; they are added",
        ("two_sigmas", DIVISION, "centred / (sigma * sigma_B + eps)")),
)

# wide, narrow, all equal
TABLE = torch.tensor([[-.3, -.1, .1, .5], [.01, .02, .03, .05], [.2, .2, .2, .2]])


def by_hand(m):
    s = torch.tensor([[-1., -1., 1., 1.], [-.1, -.1, .1, .1]]) * 0.1 * 3 ** 0.5
    expected = torch.tensor([0.17320508 / 0.310001, 0.017320508 / 0.130001])
    expect(m.two_sigmas(s[:, 3:], torch.tensor([[.2], [.02]]), torch.tensor(.11), 1e-6),
           expected[:, None], "two_sigmas of the header's example")
    expect(m.dugrpo(s)[:, 3], expected, "dugrpo of the docstring's example, last column")
    expect(m.dugrpo(torch.full((2, 4), .1)), torch.zeros(2, 4), "dugrpo of eight equal scores")
    expect(m.dugrpo(s, "none"), s, "dugrpo of the same with mode=\"none\", which only centres,")
    one = torch.ones(1, 1)
    expect(m.two_sigmas(one, one, torch.tensor(1.), 2.0), one / 4,
           "two_sigmas(1, 1, 1, eps=2)")
    flat = torch.tensor([[-1., 1.], [0., 0.]])
    expect(m.dugrpo(flat, "batch_std"), flat / 2 ** 0.5,
           "dugrpo([[-1, 1], [0, 0]], \"batch_std\"), whose flat document is in no std,")
    expect(raises(ValueError, m.dugrpo, TABLE, "group"), True,
           "dugrpo(s, \"group\") raises ValueError; that")
    expect(raises(ValueError, m.dugrpo, TABLE * math.nan), True,
           "dugrpo of scores that are no numbers raises ValueError; that")


def oracle(m):
    """Against a loop over documents, by Python's own statistics."""
    import statistics
    rows = TABLE.tolist()
    stds = [statistics.stdev(row) for row in rows[:2]]
    both = sum(stds) / 2
    expected = torch.zeros(3, 4)
    for d, std in enumerate(stds):
        mean = statistics.mean(rows[d])
        for j in range(4):
            expected[d, j] = (rows[d][j] - mean) / (std + both + 1e-6)
    expect(m.dugrpo(TABLE), expected, "dugrpo of a wide, a narrow and an all-equal document")


def probe(m):
    return m.dugrpo(TABLE)
