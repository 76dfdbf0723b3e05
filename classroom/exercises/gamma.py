"""Gamma: the direction in which AdamW would move, for a gradient it has not seen yet."""
import torch

from classroom.compare import Wrong, expect, mistake

NAME = "Gamma"
SYMBOL = "Gamma = g / (sqrt(v' / (1 - beta2^t)) + eps),  t = k + 1"
FILE = "influence.py"
BLANKS = ["Gamma"]
RUN = True
# training computes the same by scaled_Gamma; in this exercise's run it asks the student's
IN_RUN = """
def scaled_Gamma(g, v, k, beta2, eps, out=None):
    return Gamma(g, v, k, beta2, eps), 1.0
"""

HINTS = (
    "AdamW keeps v, a running mean of squared gradients, and has taken k steps. What would it "
    "have after one step more, on g?",
    "v' = beta2 v + (1 - beta2) g^2, and t = k + 1 is the number of that step. A running mean "
    "that began at zero is too small at first; dividing by 1 - beta2^t makes up for it.",
    "v itself must stay as it is: v is the solver's own. So no v.mul_() and no v += ..., but a "
    "new tensor. eps is added to the root, not under it.",
)

NEW = "beta2 * v + (1 - beta2) * g ** 2"
END = "g / ((v_new / (1 - beta2 ** (k + 1))).sqrt() + eps)"
MISTAKES = (
    mistake(
        "v is changed in place: scoring a question must leave the solver's AdamW as it was, or "
        "the order of the questions decides their scores",
        ("Gamma", f"v_new = {NEW}", "v_new = v.mul_(beta2).add_((1 - beta2) * g ** 2)")),
    mistake(
        "the bias correction is that of the last step (k), not of the step that would come (t = k "
        "+ 1); on the first step it divides by zero",
        ("Gamma", "(k + 1)", "k")),
    mistake(
        "the old v is used: the question's own square is not in it, and with no history (v = 0) "
        "everything is divided by eps",
        ("Gamma", NEW, "v")),
    mistake(
        "the bias correction is missing: early in a run v' is far too small, and Gamma too large",
        ("Gamma", "(v_new / (1 - beta2 ** (k + 1)))", "v_new")),
    mistake(
        "eps stands under the root; AdamW adds it to the root",
        ("Gamma", END, "g / (v_new / (1 - beta2 ** (k + 1)) + eps).sqrt()")),
    mistake(
        "the root is missing: dividing by a square makes small gradients huge",
        ("Gamma", ".sqrt()", "")),
    mistake(
        "the sign is turned: Gamma points along g; AdamW goes against it, and so does the step on "
        "the dev set, which is why the signs cancel",
        ("Gamma", "return g /", "return -g /")),
    mistake(
        "beta2 and 1 - beta2 are exchanged: the history is forgotten at once",
        ("Gamma", NEW, "(1 - beta2) * v + beta2 * g ** 2")),
)


def by_hand(m):
    v = torch.tensor([4., 9.])
    found = m.Gamma(torch.tensor([2., -4.]), v, 6, beta2=0.9, eps=0.2)
    if v.tolist() != [4., 9.]:
        raise Wrong("v has changed; it belongs to the solver's AdamW")
    expect(found, torch.tensor([0.67363, -0.88653]), "Gamma([2, -4], v=[4, 9], k=6, .9, .2)",
           tolerance=2e-5)
    expect(m.Gamma(torch.tensor([2., -3.]), torch.zeros(2), 0), torch.tensor([1., -1.]),
           "Gamma([2, -3], v=0, k=0), the first step, a sign")


def oracle(m):
    """Against torch's own AdamW: without a first moment (beta1 = 0) its step is -lr Gamma."""
    generator = torch.Generator().manual_seed(2)
    p = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    adam = torch.optim.AdamW([p], lr=1.0, betas=(0.0, 0.99), eps=1e-3, weight_decay=0.0)
    for _ in range(5):
        p.grad = torch.randn(50, generator=generator, dtype=torch.float64)
        adam.step()
    v = adam.state[p]["exp_avg_sq"].clone()
    g = torch.randn(50, generator=generator, dtype=torch.float64)
    found = m.Gamma(g, v.clone(), 5, beta2=0.99, eps=1e-3)
    before = p.detach().clone()
    p.grad = g
    adam.step()
    expect(found, before - p.detach(), "Gamma of a sixth step, against torch.optim.AdamW")


def probe(m):
    generator = torch.Generator().manual_seed(4)
    g, v = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    v = v.square()
    found = m.Gamma(g, v, 3, beta2=0.9, eps=0.1)
    return found, v
