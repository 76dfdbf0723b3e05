"""Drawing a token by the inverse of its distribution, from a number that belongs to the row."""
import torch

from classroom.compare import Wrong, expect, mistake

NAME = "keyed"
SYMBOL = "token = inverse of the cumulative distribution at u"
FILE = "sampling.py"
BLANKS = ["choose"]
RUN = True

HINTS = (
    "u is the row's own uniform number, so that a row's text does not depend on the rows beside "
    "it. Lay the probabilities of the V words end to end on a line from 0 to 1: the word in whose "
    "piece u falls is drawn.",
    "Divide the logits by the temperature, log_softmax over the last dimension, exp, cumsum, and "
    "torch.searchsorted(mass, point, right=True). Temperature 0 is argmax, with log-probs at "
    "temperature 1.",
    "top_k and top_p only change which words are drawn from: p = truncated(p, top_p, top_k) if "
    "either is set (then p no longer adds up to 1, so point = u * mass[:, -1:]). The log-prob "
    "returned is that of the whole distribution at the temperature. Rounding must not pick a word "
    "of probability 0: take the minimum of what was found and the last word with p > 0.",
)

LOGP = "logp = torch.log_softmax(logits.float() / temperature, dim=-1)"
SEARCH = "torch.searchsorted(mass, point, right=True)[:, 0]"
MISTAKES = (
    mistake(
        "the likeliest word is taken whatever u is: that is greedy, and all n drafts of a "
        "document would be the same",
        ("choose", SEARCH, "p.argmax(dim=-1)")),
    mistake(
        "the logits are multiplied by the temperature; dividing by 0.7 makes a distribution "
        "sharper, multiplying makes it flatter",
        ("choose", LOGP, LOGP.replace("/ temperature", "* temperature"))),
    mistake(
        "the temperature is not used",
        ("choose", LOGP, LOGP.replace(" / temperature", ""))),
    mistake(
        "the log-prob is that of what top_p and top_k left; the loss needs that of the whole "
        "distribution",
        ("choose", "        p = truncated(p, top_p, top_k)",
         "        p = truncated(p, top_p, top_k)\n"
         "        logp = (p / p.sum(dim=-1, keepdim=True)).log()")),
    mistake(
        "point is not scaled by the mass that top_p and top_k left: u beyond it falls off the line",
        ("choose", "u.to(mass.dtype)[:, None] * mass[:, -1:]", "u.to(mass.dtype)[:, None]")),
    mistake(
        "the words are drawn from the far end (1 - u): fair too, but not the numbers that belong "
        "to this seed",
        ("choose", "u.to(mass.dtype)[:, None]", "(1 - u).to(mass.dtype)[:, None]")),
)

LOGITS = torch.tensor([.5, .3, .2]).log().repeat(3, 1)


def by_hand(m):
    u = torch.tensor([.1, .6, .9], dtype=torch.float64)
    token, logp = m.choose(LOGITS, u, 1.0, 1.0, 0)
    expect(token.tolist(), [0, 1, 2], "tokens of probabilities .5 .3 .2 at u = .1, .6, .9")
    expect(logp, LOGITS[0], "their log-probs")
    token, logp = m.choose(LOGITS, u, 0, 1.0, 0)
    expect(token.tolist(), [0, 0, 0], "tokens at temperature 0")
    expect(logp, LOGITS[0, :1].repeat(3), "log-probs at temperature 0, those at temperature 1,")
    token, logp = m.choose(LOGITS, u, 1.0, 0.6, 0)
    expect(token.tolist(), [0, 0, 1], "tokens with top_p = .6, which leaves .5 and .3,")
    expect(logp, LOGITS[0, [0, 0, 1]], "log-probs with top_p = .6, of the whole distribution")
    half = torch.tensor([.5], dtype=torch.float64)
    token, _ = m.choose(torch.zeros(1, 2), half, 1.0, 1.0, 0)
    expect(token.tolist(), [1], "tokens of probabilities .5 .5 at u = .5, where the second begins")
    token, _ = m.choose(torch.tensor([[.5, .5, 0.]]).log(), u[:1] * 0 + 1, 1.0, 1.0, 0)
    expect(token.tolist(), [1], "tokens of probabilities .5 .5 0 at a u that rounding made 1")


def oracle(m):
    """Over many u the words come as often as they should, at a temperature of 1/2."""
    n = 4000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    token, logp = m.choose(LOGITS[:1].repeat(n, 1), u, 0.5, 1.0, 0)
    squares = torch.tensor([.25, .09, .04]) / .38
    share = torch.bincount(token, minlength=3).float() / n
    if not torch.allclose(share, squares, atol=1e-3):
        raise Wrong(f"4,000 evenly spread u gave the shares {share.tolist()}; at temperature 1/2 "
                    f"the probabilities are {squares.tolist()}")
    expect(logp[-1], squares[-1].log(), "the log-prob of the last word at temperature 1/2")
    token, logp = m.choose(LOGITS, u[[0, n // 2, n - 1]], 1.0, 1.0, 2)
    expect(token.tolist(), [0, 0, 1], "tokens with top_k = 2")
    expect(logp, LOGITS[0][[0, 0, 1]], "log-probs with top_k = 2, of the whole distribution")


def probe(m):
    generator = torch.Generator().manual_seed(6)
    logits = 2 * torch.randn(40, 7, generator=generator)
    u = torch.rand(40, generator=generator, dtype=torch.float64)
    found = []
    for temperature, top_p, top_k in ((0.7, 1.0, 0), (0.7, 0.6, 0), (1.3, 1.0, 3)):
        found += list(m.choose(logits, u, temperature, top_p, top_k))
    return found
