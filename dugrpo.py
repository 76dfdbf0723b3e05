"""Turns rewards and influence scores into advantages: A_sol for the solver, A_gen for the generator (DuGRPO).

    A_sol = r - mean of its row                                    one row = the m answers to one question
    A_gen = (s - mu_d) / (sigma_d + sigma_B + eps)                 one row = the n questions from one document

    code       symbol      shape     meaning
    r          r           (Q, m)    reward of each answer, 0 or 1
    s          s_hat       (D, n)    score of each draft; an invalid draft keeps its place with its own score
    mu         mu_d        (D, 1)    mean score of a document's n drafts
    sigma      sigma_d     (D, 1)    their standard deviation, unbiased (divided by n - 1)
    sigma_B    sigma_B     ()        mean of sigma_d over the documents that are not flat
    eps        epsilon     ()        1e-6

Why two sigmas: influence scores are continuous and noisy. Dividing by sigma_d alone, as GRPO does, blows up a document whose
scores barely differ until its noise weighs as much as real differences elsewhere. sigma_B keeps such a document small and leaves
its ranking alone. A_sol has no such division, nor one by the length of the answer: that is Dr. GRPO.

A row whose scores are all equal ("flat") says nothing about which of its drafts was better. It gets zeros and is left out of
sigma_B; a document with a single draft is flat too. The other modes are ablations of the authors' study.

Departure: everything is computed in float64 and returned in fp32 (float64 for float64); a (D, n) table costs nothing and fp32 means
leave crumbs. Our choice, where the sources are silent: flat rows count, as zeros, in the std of batch_std.
"""
import torch

MODES = ("dugrpo", "group_std", "batch_std", "none")


def center(r):
    """(Q, m) rewards -> (Q, m) A_sol, each reward less the mean of its row; exactly 0 where a row is all equal. Source: Dr. GRPO.

    >>> center(torch.tensor([[1., 0., 0., 0.], [1., 1., 1., 1.]]))
    tensor([[ 0.7500, -0.2500, -0.2500, -0.2500],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    checked(r, "rewards")
    A_sol = r.double() - r.double().mean(dim=1, keepdim=True)                      # (Q, m)
    return like_input(A_sol.masked_fill(flat(r)[:, None], 0.0), r)


def flat(s):
    """(D, n) -> (D,) bool: all values of the row are equal, so it has no advantage and no gradient.

    >>> flat(torch.tensor([[0.1] * 8, [0.1] * 7 + [0.2]]))
    tensor([ True, False])
    """
    return s.amax(dim=1) == s.amin(dim=1)               # not std == 0: the fp32 std of eight 0.1s is 8e-9


def dugrpo(s, mode="dugrpo", eps=1e-6):
    """(D, n) scores -> (D, n) A_gen; ValueError for an unknown mode, a table that is not (D, n), or a score that is not finite.

    dugrpo      (s - mu_d) / (sigma_d + sigma_B + eps)             the method
    group_std   (s - mu_d) / (sigma_d + eps)                       GRPO
    batch_std   (s - mu_d) / (std of all D n centred scores + eps)
    none        (s - mu_d)                                         Dr. GRPO

    Both documents below rank their drafts alike, the second on a scale ten times smaller: sigma_d is 0.2 and 0.02 (a row
    -1, -1, 1, 1 has the unbiased std 2 / sqrt(3), so 0.1 sqrt(3) times it is 0.2), and sigma_B is their mean, 0.11.
    GRPO makes the two equal; DuGRPO keeps the first larger: 0.1732 / (0.2 + 0.11) against 0.01732 / (0.02 + 0.11).

    >>> s = torch.tensor([[-1., -1., 1., 1.], [-.1, -.1, .1, .1]]) * 0.1 * 3 ** 0.5
    >>> dugrpo(s)[:, 3]
    tensor([0.5587, 0.1332])
    >>> dugrpo(s, mode="group_std")[:, 3]
    tensor([0.8660, 0.8660])
    """
    if mode not in MODES:
        raise ValueError(f"advantage mode {mode!r} is unknown; expected one of {', '.join(MODES)}")
    checked(s, "scores")
    x, alive = s.double(), ~flat(s)                                                # (D, n), (D,)
    centred = x - x.mean(dim=1, keepdim=True)                                      # (D, n)
    A_gen = torch.zeros_like(x)                                                    # flat rows stay 0
    if not alive.any():
        return like_input(A_gen, s)
    sigma = x[alive].std(dim=1, keepdim=True)                                      # (D alive, 1)
    sigma_B = sigma.mean()
    scale = {"dugrpo": sigma + sigma_B + eps,
             "group_std": sigma + eps,
             "batch_std": centred.std() + eps,          # one number for the batch, divided by D n - 1; flat rows are in it
             "none": 1.0}[mode]
    A_gen[alive] = centred[alive] / scale
    return like_input(A_gen, s)


def checked(x, what):
    """Raises ValueError unless x is a finite table with rows; names the first position that is not finite."""
    if x.dim() != 2 or x.shape[1] == 0:
        raise ValueError(f"{what} must be a table with one row per group, got shape {tuple(x.shape)}")
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(f"{what}[{row}, {column}] is {x[row, column].item()} ({len(bad)} of {x.numel()} are not finite)")


def like_input(A, x):
    """float64 A in the type of x, but never below fp32: advantages of bf16 or 0/1 integer rewards come back as fp32."""
    return A.to(torch.promote_types(x.dtype, torch.float32))
