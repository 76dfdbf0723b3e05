"""g_dev: the direction in which the dev questions want the solver to move."""
from classroom import small
from classroom.compare import Wrong, expect, mistake

NAME = "g_dev"
SYMBOL = "g_dev = grad of sum -A w logp / (N_dev Tbar_dev)"
FILE = "influence.py"
BLANKS = ["dev_gradient"]
RUN = True

HINTS = (
    "A group whose answers are all right or all wrong has A = 0 everywhere, so it has no "
    "gradient: kept_groups(answers, A_sol) gives the (g, group) pairs that have one. None left: "
    "return None.",
    "gradient(solver, kept, A_sol, denominator, cfg, what=\"g_dev\") does the backward passes. "
    "The denominator is N_dev Tbar_dev: how many answers the kept groups have in all, times their "
    "mean length in tokens, mean_length(groups).",
    "solver.wake() before the first pass (the other role may have the device). A gradient whose "
    "norm(g_dev) is not finite is no direction: count it, solver.skipped += 1, and return None.",
)

GRADIENT = 'gradient(solver, kept, A_sol, N_dev * mean_length(groups), cfg, what="g_dev")'
MISTAKES = (
    mistake(
        "it is not divided by Tbar, the mean length: N_dev Tbar_dev is the number of tokens",
        ("dev_gradient", "N_dev * mean_length(groups)", "N_dev")),
    mistake(
        "it is divided by the mean length alone; N_dev, the number of answers, is missing",
        ("dev_gradient", "N_dev * mean_length(groups)", "mean_length(groups)")),
    mistake(
        "N_dev counts groups; it counts their answers, m for each group",
        ("dev_gradient", "N_dev = sum(map(len, groups))", "N_dev = len(groups)")),
    mistake(
        "groups that are all equal are in N_dev and Tbar_dev: they have no gradient, and their "
        "number would make that of the others smaller",
        ("dev_gradient", "groups = [group for _, group in kept]", "groups = answers")),
    mistake(
        "the sign is turned: it is the gradient of a loss, so a step against it makes right "
        "answers more likely",
        ("dev_gradient", "A_sol, N_dev", "-A_sol, N_dev")),
    mistake(
        "it is clipped to the norm of an update: g_dev and g_q are never clipped",
        ("dev_gradient", "    if math.isfinite(norm(g_dev)):",
         "    size = max(1.0, norm(g_dev) / 1e-3)\n"
         "    g_dev = [part / size for part in g_dev]\n"
         "    if math.isfinite(norm(g_dev)):")),
)


def by_hand(m):
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    expect(m.dev_gradient(policy, groups, small.A * 0, cfg), None,
           "dev_gradient where no group is mixed")
    expect(m.dev_gradient(policy, groups, small.A * 1e38, cfg), None,
           "dev_gradient where its norm is not finite")
    expect(policy.skipped, 1, "solver.skipped after it")
    before = [p.detach().clone() for p in policy.params]
    m.dev_gradient(policy, groups, small.A, cfg)
    if any(not bool((p == q).all()) for p, q in zip(before, policy.params)):
        raise Wrong("the solver's weights have changed; g_dev only looks")


def oracle(m):
    """Against one answer at a time through torch.autograd."""
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    Tbar = small.mean_length([groups[g] for g in (0, 2, 3)])
    # three mixed groups of four
    expected = small.plain_gradient(policy, groups, small.A, 12 * Tbar, cfg)
    found = m.dev_gradient(policy, groups, small.A, cfg)
    if not isinstance(found, list):
        raise Wrong("dev_gradient gave no list of tensors, one for each parameter")
    at = [i for i, g in enumerate(expected) if float(g.norm()) > 1e-4]
    sizes = {"found": [float(found[i].norm()) for i in at],
             "expected": [float(expected[i].norm()) for i in at]}
    expect(sizes["found"], sizes["expected"], "norms of g_dev, tensor by tensor", tolerance=1e-3)
    products = [float((found[i] * expected[i]).sum()) for i in at]
    expect(products, [x * x for x in sizes["expected"]], "<g_dev, autograd's>", tolerance=1e-3)


def probe(m):
    policy, cfg = small.solver()
    groups = small.answers(small.LENGTHS)
    found = m.dev_gradient(policy, groups, small.A, cfg)
    return None if found is None else [g.sum() + 2 * g.norm() for g in found]
