"""A rival's reward: pay for questions that the solver gets right half of the time."""
import torch

from classroom.compare import expect, mistake

NAME = "learnability"
SYMBOL = "4 p (1 - p)"
FILE = "rewards.py"
BLANKS = ["learnability"]
# the default run pays by influence; what this reward does is in docs/results/race.md
RUN = False

HINTS = (
    "p (Q,) is the share of right answers to each question. What nobody or everybody solves "
    "teaches nothing.",
    "A yes-or-no answer that is right with probability p has the variance p (1 - p).",
    "That is at most 1/4, at p = 1/2; four times it is between 0 and 1.",
)

MISTAKES = (
    mistake("it is the variance itself, at most 1/4; the reward is four times that, so that it "
            "lies between 0 and 1",
            ("learnability", "4 * p * (1 - p)", "p * (1 - p)")),
    mistake("it pays for being hard (1 - p): a question with a wrong key, which nobody solves, "
            "would be the best of all",
            ("learnability", "4 * p * (1 - p)", "1 - p")),
    mistake("it pays for being easy (p): the generator would learn to ask what is known",
            ("learnability", "4 * p * (1 - p)", "p")),
    mistake("it is turned over: 0 at one half and 1 at both ends",
            ("learnability", "4 * p * (1 - p)", "1 - 4 * p * (1 - p)")),
    mistake("it is the standard deviation, the root of the variance: too flat near one half",
            ("learnability", "4 * p * (1 - p)", "2 * (p * (1 - p)).sqrt()")),
)

P = torch.tensor([0., 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.])


def by_hand(m):
    expect(m.learnability(P), torch.tensor([0., .4375, .75, 1., .75, 0.]),
           "learnability of 0, 1/8, 1/4, 1/2, 3/4, 1")


def oracle(m):
    """Four times the variance of the m answers themselves."""
    answers = torch.tensor([[1., 0., 0., 0., 0., 0., 0., 0.], [1., 1., 1., 0., 0., 1., 0., 1.]])
    expected = 4 * answers.double().var(dim=1, unbiased=False).float()
    expect(m.learnability(answers.mean(dim=1)), expected, "learnability of 1 and 5 right of 8")


def probe(m):
    return m.learnability(P)
