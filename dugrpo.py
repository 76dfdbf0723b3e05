"""Turns rewards into advantages of the solver, A_sol, and influence into the generator's, A_gen.

    A_sol = r - mean of its group                             a group: the m answers to a question
    A_gen = (s - mu_d) / (sigma_d + sigma_B + eps)            a group: the n drafts of a document

    code       symbol      shape     meaning
    r          r           (Q, m)    reward of each answer, 0 or 1
    s          s_hat       (D, n)    score of each draft; invalid ones keep their place
    mu         mu_d        (D, 1)    mean score of a document's n drafts
    sigma      sigma_d     (D, 1)    their standard deviation, unbiased (divided by n - 1)
    sigma_B    sigma_B     ()        mean of sigma_d over the documents that are not all equal
    eps        epsilon     ()        1e-6

Why two sigmas: influence scores are continuous and noisy. Dividing by sigma_d alone, as GRPO does,
blows up a document whose scores barely differ until its noise weighs as much as real differences
elsewhere. sigma_B keeps such a document small and leaves its ranking alone. A_sol has no such
division, nor one by the length of the answer: that is Dr. GRPO.

A group whose scores are all equal says nothing about which of its drafts was better. It gets zeros
and is left out of sigma_B; a document with a single draft is such a group too.

Departure: computed in float64, since an fp32 mean of equal numbers can miss them; returned in fp32
(float64 for float64).
"""
# torch is not imported: only methods of the tensors that come in are used, so that config.py can
# read ADVANTAGES, and `python train.py --help` answer, without waiting for torch.


def center(r):
    """(Q, m) rewards -> (Q, m) A_sol, each reward less the mean of its group. Source: Dr. GRPO.

    Exactly 0 where a group is all equal. ValueError for a reward that is not finite.

    >>> import torch
    >>> center(torch.tensor([[1., 0., 0., 0.], [1., 1., 1., 1.]]))
    tensor([[ 0.7500, -0.2500, -0.2500, -0.2500],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    checked(r, "rewards")
    A_sol = r.double() - r.double().mean(dim=1, keepdim=True)           # (Q, m)
    return like_input(A_sol.masked_fill(all_equal(r)[:, None], 0.0), r)


def all_equal(s):
    """(D, n) -> (D,) bool: the values of the group are one value; it has no advantage, no gradient.

    >>> import torch
    >>> all_equal(torch.tensor([[0.1] * 8, [0.1] * 7 + [0.2]]))
    tensor([ True, False])
    """
    # Not std == 0: the fp32 std of eight 0.1s is 8e-9.
    return s.amax(dim=1) == s.amin(dim=1)


def has_gradient(A):
    """(Q, m) advantages -> (Q,) booleans: which groups have a gradient at all."""
    return (A != 0).any(dim=1)


def kept_groups(groups, A):
    """(Q, m) rollouts and advantages -> the (q, group) pairs that have a gradient."""
    return [(q, groups[q]) for q in has_gradient(A).nonzero()[:, 0].tolist()]


# ---------------------------------------------------------------- A_gen: the method, and ablations
# To try an advantage of your own: a function here, and its line in ADVANTAGES below. --advantage
# NAME, --help and the error messages follow. Each gets
#
#     centred    (D', n)    s - mu_d
#     sigma      (D', 1)    sigma_d
#
# of the D' documents whose scores are not all equal, with sigma_B and eps, and returns (D', n)
# A_gen. The other documents get zeros and are in no mean and no std.

def two_sigmas(centred, sigma, sigma_B, eps):
    return centred / (sigma + sigma_B + eps)


def group_std(centred, sigma, sigma_B, eps):
    return centred / (sigma + eps)


def batch_std(centred, sigma, sigma_B, eps):
    """One number for the batch, divided by D' n - 1."""
    return centred / (centred.std() + eps)


def only_centred(centred, sigma, sigma_B, eps):
    return centred


ADVANTAGES = {
    "dugrpo":    two_sigmas,            # the method
    "group_std": group_std,             # GRPO
    "batch_std": batch_std,
    "none":      only_centred,          # Dr. GRPO
}
MODES = tuple(ADVANTAGES)


def dugrpo(s, mode="dugrpo", eps=1e-6):
    """(D, n) scores -> (D, n) A_gen by the entry `mode` of ADVANTAGES.

    ValueError for an unknown mode, a table that is not (D, n), or a score that is not finite.

    Both documents below rank their drafts alike, the second on a scale ten times smaller: sigma_d
    is 0.2 and 0.02 (-1, -1, 1, 1 have the unbiased std 2 / sqrt(3), so 0.1 sqrt(3) times them have
    0.2), and sigma_B is their mean, 0.11. GRPO makes the two equal; DuGRPO keeps the first larger:
    0.1732 / (0.2 + 0.11) against 0.01732 / (0.02 + 0.11).

    >>> import torch
    >>> s = torch.tensor([[-1., -1., 1., 1.], [-.1, -.1, .1, .1]]) * 0.1 * 3 ** 0.5
    >>> dugrpo(s)[:, 3]
    tensor([0.5587, 0.1332])
    >>> dugrpo(s, mode="group_std")[:, 3]
    tensor([0.8660, 0.8660])
    """
    if mode not in ADVANTAGES:
        known = ", ".join(ADVANTAGES)
        raise ValueError(f"advantage mode {mode!r} is unknown; expected one of {known}")
    checked(s, "scores")
    x = s.double()                                                      # (D, n)
    alive = ~all_equal(s)                                               # (D,)
    if not alive.any():
        return like_input(x.new_zeros(x.shape), s)

    centred = x[alive] - x[alive].mean(dim=1, keepdim=True)             # (D', n)
    sigma = x[alive].std(dim=1, keepdim=True)                           # (D', 1)
    sigma_B = sigma.mean()

    A_gen = x.new_zeros(x.shape)                                        # (D, n)
    A_gen[alive] = ADVANTAGES[mode](centred, sigma, sigma_B, eps)
    return like_input(A_gen, s)


def checked(x, what):
    """ValueError unless x is a finite table with columns; names the first value that is not."""
    if x.dim() != 2 or x.shape[1] == 0:
        shape = tuple(x.shape)
        raise ValueError(f"{what} must be a table with one row per group, got shape {shape}")
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        found = f"{what}[{row}, {column}] is {x[row, column].item()}"
        raise ValueError(f"{found} ({len(bad)} of {x.numel()} are not finite)")


def like_input(A, x):
    """float64 A in the type of x, but never below fp32: for bf16 or 0/1 integer rewards, fp32."""
    return A if x.dtype == A.dtype else A.float()
