"""s_hat the plain way: every question's whole gradient, Gamma of it, its cosine with g_dev."""
import torch

from classroom import small
from classroom.compare import expect, mistake
from config import Config

NAME = "s_hat"
SYMBOL = "s_hat = <g_dev, Gamma> / (|g_dev| |Gamma|)"
FILE = "influence.py"
BLANKS = ["dot", "cosine", "similarity", "plain_scores"]
RUN = False

HINTS = (
    "Four functions, each using the one before: dot over two lists of tensors, cosine from three "
    "dots, similarity of one question (Gamma first where cfg.similarity begins with "
    "\"preconditioned\"; then the cosine if it ends with \"cosine\", else the dot), plain_scores "
    "of all of them.",
    "A model is one long vector: the cosine is over all tensors together, so add the dots up "
    "before dividing. Floor the norms at 1e-12. In similarity each tensor has its own (v, k) in "
    "moments; AdamW's other two numbers are cfg.beta2 and cfg.adam_eps.",
    "plain_scores: zeros for groups without a gradient (kept_groups), and for all if g_dev is "
    "None; Tbar = mean_length of all "
    "kept groups, one number for the whole batch; g_q = gradient(solver, [(q, group)], A_sol, "
    "len(group) * Tbar, cfg); moments = [second_moment(solver.optimizer, p) for p in "
    "solver.params].",
)

GAMMA = "[Gamma(g, v, k, cfg.beta2, cfg.adam_eps) for g, (v, k) in zip(g_q, moments)]"
MISTAKES = (
    mistake(
        "the raw gradient is compared: that is the SGD ablation; AdamW would move along Gamma",
        ("similarity", GAMMA, "g_q")),
    mistake(
        "it is a dot product, not a cosine: a question with a large gradient wins whatever its "
        "direction",
        ("cosine", "return dot(a, b) / (dot(a, a).sqrt().clamp(min=1e-12) "
         "* dot(b, b).sqrt().clamp(min=1e-12))", "return dot(a, b)")),
    mistake(
        "the cosine is taken tensor by tensor and averaged: a bias of 64 numbers then counts as "
        "much as a matrix of 65,536",
        ("cosine", "return dot(a, b) / (dot(a, a).sqrt().clamp(min=1e-12) "
         "* dot(b, b).sqrt().clamp(min=1e-12))",
         "return sum(dot([x], [y]) / (dot([x], [x]) * dot([y], [y])).sqrt().clamp(min=1e-12) "
         "for x, y in zip(a, b)) / len(a)")),
    mistake(
        "g_dev is preconditioned too: Gamma is where the solver would go, g_dev where it should go",
        ("similarity", "(g_dev, direction)",
         "([Gamma(g, v, k, cfg.beta2, cfg.adam_eps) for g, (v, k) in zip(g_dev, moments)], "
         "direction)")),
    mistake(
        "each question is divided by its own mean length: v' holds g_q^2 beside the history, so a "
        "question's scale matters, and Tbar is one number for the batch",
        ("plain_scores", "len(group) * Tbar", "len(group) * mean_length([group])")),
    mistake(
        "g_q is not divided by its number of tokens (m Tbar): beside so large a g_q^2 the history "
        "v no longer counts",
        ("plain_scores", "len(group) * Tbar", "1.0")),
    mistake(
        "the sign is turned: both are gradients of losses, so a question that points where g_dev "
        "points helps, and s_hat > 0",
        ("cosine", "return dot(a, b) / ", "return -dot(a, b) / ")),
)


def by_hand(m):
    a = [torch.tensor([1., 2.]), torch.tensor([[2.]])]
    b = [torch.tensor([2., 0.]), torch.tensor([[1.]])]
    expect(m.dot(a, b), torch.tensor(4.), "dot([[1, 2], [2]], [[2, 0], [1]])")
    expect(m.cosine(a, b), torch.tensor(4 / (3 * 5 ** 0.5)), "cosine of the same")
    expect(m.cosine(a, [torch.zeros(2), torch.zeros(1, 1)]), torch.tensor(0.), "cosine with zeros")
    v = [torch.tensor([.04, .01]), torch.tensor([[.09]])]
    for name, value in (("dot", 4.), ("cosine", 4 / (3 * 5 ** 0.5))):
        cfg = Config(similarity=name)
        expect(m.similarity(a, b, [(x, 3) for x in v], cfg), torch.tensor(value),
               f"similarity of the same with cfg.similarity = {name!r}, without Gamma,")
    # the first step's Gamma is a sign
    cfg = Config(similarity="preconditioned_dot")
    nothing = [(torch.zeros(2), 0), (torch.zeros(1, 1), 0)]
    expect(m.similarity(a, [-x for x in a], nothing, cfg), torch.tensor(-5.),
           "similarity of [[1, 2], [2]] and its negative with \"preconditioned_dot\", v = 0, k = 0")
    policy, cfg = small.solver()
    found = m.plain_scores(policy, small.answers(small.LENGTHS), small.A, None, cfg)
    expect(found, torch.zeros(4), "plain_scores without a g_dev (None)")


def oracle(m):
    """Against autograd, torch's own AdamW step as the direction, and one long vector."""
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    g_dev = small.g_dev()
    Tbar = small.mean_length([groups[g] for g in (0, 2, 3)])

    expected = torch.zeros(4)
    for q in (0, 2, 3):
        g_q = small.plain_gradient(policy, groups[q:q + 1], small.A[q:q + 1], 4 * Tbar, cfg)
        direction = adam_direction(policy, g_q, cfg)
        whole = small.one_vector(g_dev), small.one_vector(direction)
        expected[q] = torch.nn.functional.cosine_similarity(*whole, dim=0).float()
    found = m.plain_scores(policy, groups, small.A, g_dev, cfg)
    expect(found, expected, "plain_scores of four questions, one without a gradient",
           tolerance=2e-3)


def adam_direction(policy, g_q, cfg):
    """What torch's AdamW would take off the weights at learning rate 1, without first moment."""
    direction = []
    for p, g in zip(policy.params, g_q):
        state = policy.optimizer.state[p]
        copy = torch.nn.Parameter(torch.zeros_like(p))
        adam = torch.optim.AdamW([copy], lr=1.0, betas=(0.0, cfg.beta2), eps=cfg.adam_eps,
                                 weight_decay=0.0)
        adam.state[copy] = {"step": state["step"].clone(), "exp_avg": torch.zeros_like(p),
                            "exp_avg_sq": state["exp_avg_sq"].clone()}
        copy.grad = g
        adam.step()
        direction.append(-copy.detach())
    return direction


def probe(m):
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    g_dev = small.g_dev()
    return m.plain_scores(policy, groups, small.A, g_dev, cfg)
