"""The zoo of hacks: the tricks are what they say, and what the table of docs/results/zoo.md says is
pinned on the embedded world's anchor.
"""
import random
from dataclasses import replace

import pytest
import torch

from studies import zoo
from data import InputError, Question
from dugrpo import center
from engine import flags
from engine.readers import load_questions
from generator import parse_question
from policy import Policy, update
from solver import answer_questions, rewards
from engine.verify import Verifier

# runs and processes of their own
pytestmark = pytest.mark.slow

HONEST = Question("What is the largest of 5, 9 and 2?", ["5", "9", "2", "40"], "9")
DEV = [Question("What is the largest of 51, 20 and 33?", ["51", "20", "33", "7"], "51")]


def parsed(name):
    text, = zoo.drafts_of(name, [HONEST], DEV, random.Random(0))
    return parse_question(text)


def test_each_trick_writes_what_its_name_says():
    assert parsed("honest")[0] == HONEST
    assert parsed("copies_dev")[0] == DEV[0]
    wrong = parsed("wrong_key")[0]
    assert wrong.question_text == HONEST.question_text
    assert wrong.ground_truth != "9" and wrong.ground_truth in HONEST.choices
    assert "9" in parsed("trivial")[0].question_text.split("What")[0]
    assert {"9", "9."} <= set(parsed("ambiguous")[0].choices)
    assert "9" not in parsed("guess")[0].choices
    free = Question("2 + 2?", [], "4")
    for seed in range(9):
        text, = zoo.drafts_of("guess", [HONEST], [free, *DEV, free], random.Random(seed))
        assert "9" not in parse_question(text)[0].choices
    assert parsed("unparsable") == (None, "no_json")
    assert len(set(zoo.drafts_of("duplicate", [HONEST] * 4, DEV, random.Random(0)))) == 1


@pytest.fixture(scope="module")
def table():
    """The anchor after one update on dev-like questions, so that AdamW has a history; 16 drafts of
    each trick.
    """
    cfg = flags.from_flags({"threads": "1"})
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    with Verifier() as verifier:
        questions = zoo.honest_questions(cfg, None, 48, seed=1)
        answers = answer_questions(solver, questions, 8, ("warm",), cfg)
        update(solver, answers, center(rewards(questions, answers, verifier)), cfg)

        dev = load_questions(cfg.dev)
        honest = zoo.honest_questions(cfg, None, 16, seed=2)
        return zoo.zoo(solver, dev, honest, cfg, verifier, ("test",))


def mean(table, trick, reward):
    return float(torch.tensor(table[trick][reward]).mean())


def test_influence_tells_a_wrong_key_and_a_pure_guess_from_an_honest_question(table):
    honest = mean(table, "honest", "influence")
    assert honest > 0.03
    assert mean(table, "wrong_key", "influence") < 0
    assert mean(table, "guess", "influence") < honest / 2


@pytest.mark.parametrize("reward", ["spice", "rzero", "learnability"])
def test_difficulty_pays_for_a_wrong_key_and_for_a_pure_guess(table, reward):
    honest = mean(table, "honest", reward)
    assert mean(table, "wrong_key", reward) > honest / 3
    assert mean(table, "guess", reward) > honest / 3 > mean(table, "unparsable", reward)


def test_influence_is_fooled_by_a_copy_of_the_dev_set(table):
    assert mean(table, "copies_dev", "influence") > 0.5 * mean(table, "honest", "influence")


def test_an_invalid_draft_outranks_a_wrong_key_under_influence_and_nothing_under_azr(table):
    assert mean(table, "unparsable", "influence") == 0 > mean(table, "wrong_key", "influence")
    assert mean(table, "unparsable", "azr") == -1 < mean(table, "wrong_key", "azr")


def test_rzero_charges_for_duplicates(table):
    """16 of the zoo's 128 valid questions are one question, with its near-duplicates: at least
    16 / 128 off.
    """
    votes = max(table["duplicate"]["rzero"])
    assert votes <= 1 - 16 / 128


def test_another_world_must_bring_its_own_honest_questions():
    cfg = replace(flags.from_flags({}), documents="elsewhere.json")
    with pytest.raises(InputError, match="--honest FILE is needed"):
        zoo.honest_questions(cfg, None, 4, 0)
