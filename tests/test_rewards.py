"""Other rewards: SPEC's table of eight answers, and R-Zero's clusters by hand."""
import re

import numpy as np
import pytest
import torch

import rewards
import solver
import train
from config import Config
from data import Question, Rollout
from dugrpo import dugrpo
from rewards import REWARDS, Term, parse

P = torch.arange(9) / 8                                 # 0 to 8 of 8 answers right
TABLE = {
    "spice": [.0439, .3720, .8226, .9879, 1.0, .9879, .8226, .3720, .0439],
    "azr": [0, .875, .75, .625, .5, .375, .25, .125, 0],
    "learnability": [0, .4375, .75, .9375, 1, .9375, .75, .4375, 0],
}


def answers_of(*letters):
    texts = [f"so \\boxed{{{letter}}}" if letter else "no idea" for letter in letters]
    return [Rollout([1], [2], [0.0], True, text) for text in texts]


def questions_of(*texts):
    return [Question(text, ["1", "2", "3", "4"], "2") for text in texts]


def graded(right):
    """(9, 8) rewards with 0 to 8 right answers."""
    return torch.tensor([[1.0] * k + [0.0] * (8 - k) for k in right])


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_eight_answers(name):
    earned = rewards.scores(name, questions_of(*"abcdefghi"), [[]] * 9, graded(range(9)), (0, 1))
    assert torch.allclose(earned, torch.tensor(TABLE[name]), atol=5e-5)


def test_rzero_without_duplicates_is_the_tent_less_one_share():
    tent = torch.tensor([0, .25, .5, .75, 1, .75, .5, .25, 0])
    alone = torch.ones(9, dtype=torch.long)
    assert torch.allclose(rewards.split_vote(P, alone), (tent - 1 / 9).clamp(min=0))


def test_rzero_looks_at_the_majority_and_never_at_the_key():
    questions = questions_of("what is this", "who came first of all")
    answers = [answers_of("A", "A", "B", None), answers_of("C", "C", "C", "C")]
    given = solver.given(questions, answers)
    assert rewards.majority_share(given) == [0.5, 1.0]
    for r in (torch.zeros(2, 4), torch.ones(2, 4)):
        earned = rewards.scores("rzero", questions, given, r, (0, 1))
        assert torch.allclose(earned, torch.tensor([0.5, 0.0]))


def test_the_letter_counts_however_it_is_dressed_and_an_empty_box_is_no_vote():
    answers = answers_of("A", "(A)", "\\text{A}", None, None, None, None, None)
    assert rewards.majority_share(solver.given(questions_of("q"), [answers])) == [3 / 8]


def test_what_an_answer_gave_is_a_letter_or_the_text_in_its_box():
    """A letter that no choice has is nothing in multiple choice, but a text in free-form."""
    answers = answers_of("B", "E", "12", None)
    four, free = questions_of("q")[0], Question("q", [], "12")
    assert solver.given([four, free], [answers, answers]) == [["B", None, None, None],
                                                              ["B", "E", "12", None]]
    assert solver.given([], []) == []


def test_near_duplicates_form_one_cluster_whatever_their_order():
    texts = ["What is the largest of 96, 60 and 8?", "Who came last, Ravi or Bea?",
             "What is the largest of 96, 60 and 9?", "What is the largest of 96, 60 and 7?"]
    assert rewards.cluster_sizes(texts) == [3, 1, 3, 3]
    assert rewards.cluster_sizes(texts[::-1]) == [3, 3, 1, 3]
    assert rewards.cluster_sizes(["a b c"]) == [1] and rewards.cluster_sizes([]) == []


def test_linkage_is_average_and_not_single(monkeypatch):
    """Three in a chain, 0.4 apart, 0.9 end to end.

    Joining two leaves the third at (0.4 + 0.9) / 2 = 0.65, too far.
    """
    chain = np.array([[0, .4, .9], [.4, 0, .41], [.9, .41, 0]])
    monkeypatch.setattr(rewards, "bleu_distances", lambda texts: chain.copy())
    assert rewards.cluster_sizes(["a", "b", "c"]) == [2, 2, 1]


def test_bleu_counts_a_repeated_word_only_as_often_as_it_is_there():
    same = rewards.bleu_distances(["the cat sat on the mat", "The cat sat on the mat"])
    repeated = rewards.bleu_distances(["the the the the", "the cat sat down"])
    assert same[0, 1] == 0
    # one shared word of four, no longer n-gram: (1/4 * .1/3 * .1/2 * .1/1) ^ (1/4)
    assert repeated[0, 1] == pytest.approx(1 - (1 / 4 * .1 / 3 * .1 / 2 * .1) ** 0.25)


def test_a_shorter_text_pays_the_brevity_penalty():
    assert rewards.bleu_score([4, 3, 2, 1], 4, 8) == pytest.approx(np.exp(1 - 8 / 4))
    assert rewards.bleu_score([4, 3, 2, 1], 4, 3) == 1


def test_random_is_the_same_for_the_same_words_and_moves_with_the_iteration():
    questions = questions_of(*"abcd")

    def draw(*seed_words):
        return rewards.scores("random", questions, None, torch.zeros(4, 8), seed_words)

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert not torch.equal(draw(0, 1), draw(0, 2)) and not torch.equal(draw(0, 1), draw(1, 1))
    assert bool(((draw(0, 1) >= 0) & (draw(0, 1) < 1)).all())
    assert draw(0, 1).dtype == torch.float32


def test_what_could_not_be_checked_is_left_out_of_the_share():
    r = torch.tensor([[1.0, 0.0, float("nan"), float("nan")], [float("nan")] * 4])
    earned = rewards.scores("learnability", questions_of("a", "b"), [[], []], r, (0, 1))
    assert earned.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"influence", "fixed"}))
def test_a_question_that_no_answer_could_be_checked_of_earns_nothing(name):
    r = torch.tensor([[1.0, 0.0], [float("nan")] * 2])
    earned = rewards.scores(name, questions_of("a", "b"), [["A", "B"]] * 2, r, (0, 1))
    assert earned[1] == 0 and (earned[0] != 0 or name == "invalid")


def test_every_reward_with_a_function_scores_and_a_wrong_name_is_said():
    r = torch.tensor([[1.0, 0.0]])
    for name in set(REWARDS) - {"influence", "fixed"}:
        assert rewards.scores(name, questions_of("q"), [["A", "B"]], r, (0, 1)).shape == (1,)
    for name in ("spicy", "influence", "fixed"):
        with pytest.raises(ValueError, match=f"'{name}' is unknown; expected one of spice, rzero"):
            rewards.scores(name, [], [], torch.zeros(0, 8), (0, 1))


@pytest.mark.parametrize("name", ["spice", "rzero", "azr", "learnability", "random"])
@pytest.mark.parametrize("m", [0, 8])
def test_an_iteration_without_a_valid_question_pays_nobody(name, m):
    assert rewards.scores(name, [], [], torch.zeros(0, m), (0, 1)).shape == (0,)


def test_an_invalid_draft_loses_something_under_spice_and_azr_alone():
    published = {"influence": 0.0, "spice": -0.1, "rzero": 0.0, "azr": -1.0,
                 "learnability": 0.0, "random": 0.0, "invalid": -1.0, "fixed": 0.0}
    # a reward of one's own may stand beside them
    assert {name: REWARDS[name][1] for name in published} == published


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize("text, terms", [
    ("influence", [Term("influence")]),
    (" spice ", [Term("spice")]),
    ("fixed", [Term("fixed")]),
    ("influence + 0.5 spice", [Term("influence"), Term("spice", 0.5)]),
    ("influence+0.5spice", [Term("influence"), Term("spice", 0.5)]),
    ("2 * influence + .25 spice:group_std + invalid",
     [Term("influence", 2.0), Term("spice", 0.25, "group_std"), Term("invalid")]),
    ("influence + -0.5 azr:none", [Term("influence"), Term("azr", -0.5, "none")])])
def test_a_sum_of_rewards_is_read_as_it_is_written(text, terms):
    assert parse(text) == terms


@pytest.mark.parametrize("text, says", [
    ("spicy", "'spicy' is no reward; expected one, or a sum"),
    ("influence + spicy", "'spicy' is no reward"),
    ("influence 0.5 spice", "'influence 0.5 spice' is no reward"),
    ("influence +", "'' is no reward"),
    ("half spice", "'half spice' is no reward"),
    ("1e3 spice", "'1e3 spice' is no reward"),
    ("spice + spice", "expected each reward once"),
    ("influence + 0 spice", "expected weights other than 0"),
    ("influence + fixed", "expected 'fixed' alone"),
    ("2 fixed", "expected 'fixed' alone")])
def test_a_sum_that_cannot_be_read_is_said(text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(text)


def test_a_terms_advantage_and_invalid_score_are_its_own_or_the_runs():
    text = "influence + 0.5 spice:group_std + azr"
    terms = Config(reward=text, advantage="batch_std").terms
    assert [term.advantage for term in terms] == ["batch_std", "group_std", "batch_std"]
    assert [term.invalid for term in terms] == [0.0, -0.1, -1.0]
    assert [term.invalid for term in Config(reward=text, invalid_score=-0.3).terms] == [-0.3] * 3
    assert Config().terms == [Term("influence", 1.0, "dugrpo", 0.0)]


def sum_of(reward, s_hat, r, slots, shape):
    """(D, n) A_gen as train.py makes it of one reward, from (Q,) s_hat and (Q, m) r."""
    cfg = Config(reward=reward, questions_per_doc=shape[1])
    drafts = [[None] * shape[1]] * shape[0]
    questions = questions_of(*map(str, range(len(r))))
    earned = rewards.earnings(cfg.terms, s_hat, questions, list, r, (0, 1))
    A_gen = 0
    for term, paid in earned.items():
        A_gen += term.weight * dugrpo(train.grid(paid, slots, drafts, term, cfg), term.advantage)
    return A_gen, rewards.total(earned)


def test_each_term_becomes_advantages_by_itself_and_these_are_added():
    """Two documents of four drafts, the last of the second invalid.

    By hand: SPICE's bell of the shares solved, and -.1 for the invalid draft, each term normalised
    alone. Scores added first would let spice, which is ten times larger, drown influence.
    """
    s_hat = torch.tensor([.02, -.01, .03, 0, .001, .002, .0015])
    r = graded([1, 2, 4, 6, 4, 4, 2])
    slots = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    A_gen, total = sum_of("influence + 0.5 spice:group_std", s_hat, r, slots, (2, 4))

    s = torch.tensor([[.02, -.01, .03, 0], [.001, .002, .0015, 0]])
    bell = torch.tensor([[.3720, .8226, 1, .8226], [1, 1, .8226, -.1]])
    assert torch.allclose(A_gen, dugrpo(s) + 0.5 * dugrpo(bell, "group_std"), atol=2e-4)
    assert torch.allclose(total, s_hat + 0.5 * torch.cat([bell[0], bell[1, :3]]), atol=5e-5)
    assert not torch.allclose(A_gen, dugrpo(s + 0.5 * bell), atol=0.1)


def test_one_term_is_what_it_was_alone_bit_for_bit():
    s_hat, r = torch.randn(8, generator=torch.Generator().manual_seed(0)), graded(range(8))
    slots = [(d, j) for d in range(2) for j in range(4)]
    A_gen, total = sum_of("influence", s_hat, r, slots, (2, 4))
    assert torch.equal(A_gen, dugrpo(s_hat.view(2, 4))) and torch.equal(total, s_hat)
    half, _ = sum_of("0.5 influence", s_hat, r, slots, (2, 4))
    assert torch.equal(half, 0.5 * A_gen)


def test_without_a_g_dev_the_other_terms_still_pay_and_influence_alone_pays_nobody():
    r, slots = graded([1, 2, 4, 6]), [(0, j) for j in range(4)]
    A_gen, total = sum_of("influence + spice", None, r, slots, (1, 4))
    spice, _ = sum_of("spice", None, r, slots, (1, 4))
    assert torch.equal(A_gen, spice) and total is not None
    for reward in ("influence", "fixed"):
        A_gen, total = sum_of(reward, None, r, slots, (1, 4))
        assert not A_gen.any() and total is None


def test_invalid_pays_for_form_alone():
    A_gen, _ = sum_of("invalid:none", torch.zeros(3), graded([1, 2, 3]), [(0, 0), (0, 1), (0, 3)],
                      (1, 4))
    assert A_gen.tolist() == [[.25, .25, -.75, .25]]


def test_a_reward_of_ones_own_is_a_function_and_a_line_of_the_table(monkeypatch):
    """Here: the share of different answers, whatever the key says."""
    def variety(p, questions, given, *_):
        return p.new_tensor([len(set(group)) / len(group) for group in given])

    monkeypatch.setitem(REWARDS, "variety", (variety, -0.5))
    earned = rewards.scores("variety", questions_of("a", "b"), [["A", "B"], ["A", "A"]],
                            torch.zeros(2, 2), (0, 1))
    assert earned.tolist() == [1.0, 0.5]
