"""The advantages: numbers worked out elsewhere, their symmetries, and a plain loop beside them."""
import doctest
import math
import statistics

import pytest
import torch

import dugrpo
from dugrpo import all_equal, center, has_gradient

SCORES = [[.02, -.01, .03, 0], [.001, .002, .0015, .0005], [0, 0, -.04, 0]]
GOLDEN = {
    "dugrpo": [[.320245, -.640491, .640491, -.320245],
               [-.018363, .05509, .018363, -.05509],
               [.303319, .303319, -.909956, .303319]],
    "group_std": [[.547693, -1.095385, 1.095385, -.547693],
                  [-.386699, 1.160098, .386699, -1.160098],
                  [.499975, .499975, -1.499925, .499975]],
    "batch_std": [[.706856, -1.413712, 1.413712, -.706856],
                  [-.017671, .053014, .017671, -.053014],
                  [.706856, .706856, -2.120568, .706856]],
    "none": [[.01, -.02, .02, -.01], [-.00025, .00075, .00025, -.00075], [.01, .01, -.03, .01]],
}
# those of the authors' study; an advantage of one's own may stand beside them
MODES = tuple(GOLDEN)


def close(a, b, tolerance=1e-6):
    a = torch.as_tensor(a, dtype=torch.float64)
    b = torch.as_tensor(b, dtype=torch.float64)
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def plain_loop(rows, mode, eps=1e-6):
    """The definition, one number at a time, with Python's own statistics module."""
    alive = [row for row in rows if max(row) != min(row)]
    sigma_B = statistics.mean(statistics.stdev(row) for row in alive) if alive else 0.0
    centred = []
    for row in alive:
        centred += [x - statistics.mean(row) for x in row]
    batch = statistics.stdev(centred) if len(centred) > 1 else 0.0

    out = []
    for row in rows:
        mu = statistics.mean(row)
        is_flat = max(row) == min(row)
        sigma = 0.0 if is_flat else statistics.stdev(row)
        scale = {"dugrpo": sigma + sigma_B + eps, "group_std": sigma + eps,
                 "batch_std": batch + eps, "none": 1.0}[mode]
        out.append([0.0 if is_flat else (x - mu) / scale for x in row])
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_numbers(mode, dtype):
    A_gen = dugrpo.dugrpo(torch.tensor(SCORES, dtype=dtype), mode=mode)
    assert A_gen.dtype == dtype
    # the golden numbers have six decimals
    assert close(A_gen, GOLDEN[mode], 2e-6)


def test_the_two_sigmas_are_the_golden_ones():
    sigma = torch.tensor(SCORES, dtype=torch.float64).std(dim=1)
    assert close(sigma, [.0182574, .000645497, .02], 1e-7)
    assert close(sigma.mean(), .01296764, 1e-8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_a_plain_loop(mode, seed):
    g = torch.Generator().manual_seed(seed)
    D, n = (int(torch.randint(2, 9, (), generator=g)) for _ in range(2))
    s = torch.randn(D, n, generator=g, dtype=torch.float64)
    s = s * 10.0 ** torch.randint(-4, 1, (D, 1), generator=g)
    # some documents are flat
    s[torch.rand(D, generator=g) < 0.3] = 0.1
    assert close(dugrpo.dugrpo(s, mode=mode), plain_loop(s.tolist(), mode), 1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_adding_a_constant_to_a_document_changes_nothing(mode):
    s = torch.tensor(SCORES, dtype=torch.float64)
    shift = torch.tensor([[7.0], [-0.5], [0.25]], dtype=torch.float64)
    assert close(dugrpo.dugrpo(s + shift, mode=mode), dugrpo.dugrpo(s, mode=mode), 1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_documents_and_of_drafts_does_not_matter(mode):
    s = torch.tensor(SCORES, dtype=torch.float64)
    rows = torch.tensor([2, 0, 1])
    drafts = torch.tensor([3, 1, 0, 2])
    A_gen = dugrpo.dugrpo(s, mode=mode)
    assert close(dugrpo.dugrpo(s[rows], mode=mode), A_gen[rows], 1e-12)
    assert close(dugrpo.dugrpo(s[:, drafts], mode=mode), A_gen[:, drafts], 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_every_document_sums_to_zero(mode):
    A_gen = dugrpo.dugrpo(torch.tensor(SCORES), mode=mode)
    assert close(A_gen.double().sum(dim=1), torch.zeros(3), 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_eight_equal_tenths_are_flat_although_their_fp32_std_is_not_zero(mode):
    s = torch.full((2, 8), 0.1)
    # why all_equal asks for max == min
    assert 0 < s[0].std() < 1e-8
    s[1, 0] = 0.2
    A_gen = dugrpo.dugrpo(s, mode=mode)
    assert all_equal(s).tolist() == [True, False]
    assert (A_gen[0] == 0).all() and A_gen[1, 0] > 0


@pytest.mark.parametrize("mode", MODES)
def test_flat_documents_change_nothing_for_the_others(mode):
    s = torch.tensor(SCORES, dtype=torch.float64)
    beside = torch.cat([torch.zeros(1, 4, dtype=torch.float64), s, torch.full((2, 4), 0.1)])
    assert close(dugrpo.dugrpo(beside, mode=mode)[1:4], dugrpo.dugrpo(s, mode=mode), 1e-12)
    assert (dugrpo.dugrpo(beside, mode=mode)[[0, 4, 5]] == 0).all()


def test_batch_std_with_its_flat_documents_was_a_fifth_too_large():
    """As it was here, and is not in the released code: the same squares over more numbers."""
    g = torch.Generator().manual_seed(0)
    s = torch.randn(128, 8, generator=g, dtype=torch.float64)
    s[:39] = 0.0
    centred = s - s.mean(dim=1, keepdim=True)
    with_flat = centred / (centred.std() + 1e-6)
    ratio = with_flat[-1, 0] / dugrpo.dugrpo(s, mode="batch_std")[-1, 0]
    assert ratio == pytest.approx(math.sqrt((128 * 8 - 1) / (89 * 8 - 1)), abs=1e-5)
    assert 1.19 < ratio < 1.22


@pytest.mark.parametrize("mode", MODES)
def test_a_group_of_one_has_no_advantage(mode):
    assert (dugrpo.dugrpo(torch.tensor([[0.3], [-2.0]]), mode=mode) == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_all_flat_gives_zeros(mode):
    s = torch.tensor([[0.1] * 4, [0.0] * 4, [-3.0] * 4])
    A_gen = dugrpo.dugrpo(s, mode=mode)
    assert A_gen.shape == (3, 4) and (A_gen == 0).all()


def test_center_is_the_reward_less_its_row_mean_and_exactly_zero_when_all_are_equal():
    A_sol = center(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]))
    assert A_sol.tolist() == [[.5, .5, -.5, -.5], [.75, -.25, -.25, -.25], [0] * 4, [0] * 4]
    assert (center(torch.full((1, 8), 0.1)) == 0).all()
    # no valid question this iteration
    assert center(torch.zeros(0, 8)).shape == (0, 8)


def test_a_group_has_a_gradient_unless_all_its_advantages_are_zero():
    r = torch.tensor([[1., 1., 0., 0.], [1., 1., 1., 1.], [0., 0., 0., 0.]])
    assert has_gradient(center(r)).tolist() == [True, False, False] == (~all_equal(r)).tolist()
    assert has_gradient(torch.zeros(0, 8)).shape == (0,)


def test_the_input_is_left_alone():
    s = torch.tensor(SCORES)
    before = s.clone()
    dugrpo.dugrpo(s), center(s)
    assert torch.equal(s, before)


def test_bf16_scores_come_back_in_fp32():
    s = torch.tensor(SCORES).bfloat16()
    assert dugrpo.dugrpo(s).dtype == torch.float32
    assert close(dugrpo.dugrpo(s), dugrpo.dugrpo(s.double()), 1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_named(value):
    s = torch.tensor(SCORES)
    s[1, 2] = value
    with pytest.raises(ValueError, match=r"scores\[1, 2\] is -?(nan|inf)"):
        dugrpo.dugrpo(s)
    with pytest.raises(ValueError, match=r"rewards\[1, 2\]"):
        center(s)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16])
def test_what_is_narrower_than_fp32_comes_back_in_fp32(dtype):
    r = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]).to(dtype)
    assert center(r).dtype == torch.float32
    assert center(r).tolist() == [[.75, -.25, -.25, -.25], [.5, .5, -.5, -.5]]


def test_an_advantage_of_ones_own_is_a_function_and_a_line_of_the_table(monkeypatch):
    def sign(centred, sigma, sigma_B, eps):
        return centred.sign() + 7

    monkeypatch.setitem(dugrpo.ADVANTAGES, "sign", sign)
    s = torch.tensor([[1., 2., 3.], [.1, .1, .1]])
    # a group that is all equal never comes to the function
    assert dugrpo.dugrpo(s, mode="sign").tolist() == [[6, 7, 8], [0, 0, 0]]


def test_an_unknown_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match="'grpo'.*dugrpo, group_std, batch_std, none"):
        dugrpo.dugrpo(torch.tensor(SCORES), mode="grpo")


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 0)])
def test_a_tensor_that_is_not_a_table_is_refused(shape):
    with pytest.raises(ValueError, match="one row per group"):
        dugrpo.dugrpo(torch.zeros(shape))


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(dugrpo)
    assert result.attempted >= 5 and result.failed == 0
