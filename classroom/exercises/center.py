"""A_sol: what an answer earned more than the others to the same question."""
import math

import torch

from classroom.compare import expect, mistake, raises

NAME = "center"
SYMBOL = "A_sol = r - mean of its group"
FILE = "dugrpo.py"
BLANKS = ["center"]
RUN = True

HINTS = (
    "r has one row for each question and one column for each answer to it. The group of an answer "
    "is its row.",
    "Take the mean over the columns, and keep that dimension (keepdim=True) so that it can be "
    "taken away from every answer of its row.",
    "Compute in float64 (r.double()) and return what like_input(A_sol, r) gives. A row whose "
    "rewards are all equal must come out as exact zeros: masked_fill with all_equal(r)[:, None]. "
    "checked(r, \"rewards\"), a line of its own before all that, raises for what is not a finite "
    "table; it returns nothing.",
)

MISTAKES = (
    mistake(
        "the sign is turned: an answer that earned more than its group has A > 0, and here it has "
        "A < 0, so the solver would unlearn what is right",
        ("center", "r.double() - r.double().mean(dim=1, keepdim=True)",
         "r.double().mean(dim=1, keepdim=True) - r.double()")),
    mistake(
        "the mean is taken over the questions (dim=0): an answer is compared with other "
        "questions' answers, so easy questions look good and hard ones bad; a group is a row",
        ("center", "r.double().mean(dim=1, keepdim=True)",
         "r.double().mean(dim=0, keepdim=True)")),
    mistake(
        "the mean is that of the whole table: a question that everybody answers gets advantages, "
        "although it says nothing about which answer was better",
        ("center", "r.double() - r.double().mean(dim=1, keepdim=True)",
         "r.double() - r.double().mean()"),
        ("center", ".masked_fill(all_equal(r)[:, None], 0.0)", "")),
    mistake(
        "it is divided by the standard deviation, as GRPO does: a question of which 1 in 8 "
        "answers is right then weighs as much as one of which half are, by the sum of A^2; Dr. "
        "GRPO and this paper do not",
        ("center", "r.double() - r.double().mean(dim=1, keepdim=True)",
         "(r.double() - r.double().mean(dim=1, keepdim=True))"
         " / (r.double().std(dim=1, keepdim=True) + 1e-6)")),
    mistake(
        "each answer is left out of the mean it is compared with (leave-one-out): a fair estimate "
        "too, but m / (m - 1) times larger than the paper's",
        ("center", "r.double() - r.double().mean(dim=1, keepdim=True)",
         "(r.double() - r.double().mean(dim=1, keepdim=True)) * r.shape[1] / (r.shape[1] - 1)")),
)

# one right of four; all right; half right
TABLE = torch.tensor([[1., 0., 0., 0.], [1., 1., 1., 1.], [1., 1., 0., 0.]])


def by_hand(m):
    expect(m.center(TABLE[:1]), torch.tensor([[0.75, -0.25, -0.25, -0.25]]),
           "center([[1, 0, 0, 0]])")
    expect(m.center(TABLE[1:2]), torch.zeros(1, 4), "center([[1, 1, 1, 1]])")
    tenths = m.center(torch.full((1, 8), 0.1))
    expect(bool((tenths == 0).all()), True, "center([[.1, .1, .1, .1, .1, .1, .1, .1]]) == 0")
    expect(str(tenths.dtype), "torch.float32", "the dtype of center of fp32 rewards")
    expect(raises(ValueError, m.center, torch.tensor([[1., math.nan]])), True,
           "center([[1, nan]]) raises ValueError, as checked(r, \"rewards\") does; that")


def oracle(m):
    """Against a loop over single answers."""
    r = torch.randint(0, 2, (6, 8), generator=torch.Generator().manual_seed(1)).float()
    expected = torch.zeros(6, 8)
    for q in range(6):
        for i in range(8):
            others = [float(r[q, j]) for j in range(8)]
            expected[q, i] = float(r[q, i]) - sum(others) / len(others)
    expect(m.center(r), expected, "center of six random rows of eight")


def probe(m):
    return m.center(TABLE)
