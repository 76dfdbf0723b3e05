"""What the solver reads, and the only place where right and wrong enter."""
import math

import torch

from classroom.compare import expect, mistake
from data import Question, Rollout

NAME = "answers"
SYMBOL = "question -> prompt;  (Q, m) answers -> r in {0, 1}"
FILE = "solver.py"
BLANKS = ["prompt_text", "rewards"]
RUN = True

HINTS = (
    "prompt_text puts the question and its choices, each behind a letter, into MULTIPLE_CHOICE "
    "(or FREE_FORM, where there are none), by .format(question=..., options=...). If there is a "
    "question.passage it stands before the question, with an empty line between. "
    "prompts=\"hard\" is long_prompt(\"solver.txt\", section, question=..., options=...), with "
    "\"A)\" for \"A.\"; the section is \"multiple choice\", or \"free form\", which takes no "
    "options. rewards compares what each answer gave with the key.",
    "For a question with choices: given_answer(question, rollout.text) is the letter in the last "
    "box or None; right if it is question.letter, 1.0, else 0.0. An answer without a box is wrong "
    "and stays.",
    "Free-form answers go to the verifier all at once: verifier.check([(last_boxed(text), truth), "
    "...]) gives True, False or None for each pair; a question may have several right texts "
    "(question.aliases). None means that nobody knows (a time-out): the reward is nan, unless "
    "another text was right.",
)

MISTAKES = (
    mistake(
        "a letter anywhere in the text counts: \"A is wrong, B too\" would be right for every "
        "key; only the last box counts",
        ("rewards", "letter = given_answer(question, rollout.text)",
         "letter = question.letter if question.letter in rollout.text else None")),
    mistake(
        "a wrong answer earns -1: the reward is 0, and centring does the rest",
        ("rewards", "r[q, i] = float(letter == question.letter)",
         "r[q, i] = 2 * float(letter == question.letter) - 1")),
    mistake(
        "a check that nobody could finish counts as wrong: the solver would be punished for what "
        "may be right",
        ("rewards", 'r[place] = float("nan")', "r[place] = 0.0")),
    mistake(
        "free-form answers are compared letter by letter: 0.5 and 1/2 are the same number",
        ("rewards", "verdicts = verifier.check(pairs) if pairs else []",
         "verdicts = [a == b for a, b in pairs]")),
    mistake(
        "only the first of several right texts is looked at (question.aliases)",
        ("rewards", "(question.ground_truth, *question.aliases)", "(question.ground_truth,)")),
    mistake(
        "the choices have no letters in the prompt: the solver is asked for a letter and sees none",
        ("prompt_text", 'f"{letter}{mark} {choice}"', 'f"{choice}"')),
)

CHOICE = Question("2 + 2?", ["3", "4", "5", "22"], "4")
FREE = Question("One half?", [], "1/2")
ABOUT = Question("What is it?", [], "gas", passage="It is a gas.")
NAMED = Question("Which river?", [], "Nile", aliases=("the Nile River",))
TEXTS = (r"\boxed{B}", r"A is wrong, B too \boxed{C}", "B", r"\boxed{A} no, \boxed{B}")
FREE_TEXTS = (r"\boxed{1/2}", r"\boxed{0.5}", r"\boxed{2}", r"\boxed{never}")
NAMED_TEXTS = (r"\boxed{Nile}", r"\boxed{the Nile River}", r"\boxed{Rhine}", "Nile")


class Checker:
    """Numbers as numbers, texts as texts; about "never" nobody knows."""

    def check(self, pairs):
        return [self.verdict(*pair) for pair in pairs]

    def verdict(self, answer, truth):
        if "never" in (answer, truth):
            return None
        return answer is not None and value(answer) == value(truth)


def value(text):
    try:
        top, _, bottom = text.partition("/")
        return float(top) / float(bottom or 1)
    except ValueError:
        return text


def rollouts(texts):
    return [Rollout([1], [2], [0.0], True, text) for text in texts]


def found(m):
    groups = [rollouts(texts) for texts in (TEXTS, FREE_TEXTS, NAMED_TEXTS)]
    return m.rewards([CHOICE, FREE, NAMED], groups, Checker())


def by_hand(m):
    text = m.prompt_text(CHOICE)
    for line in ("2 + 2?", "A. 3", "B. 4", "C. 5", "D. 22"):
        expect(line in text.split("\n"), True, f"the prompt has the line {line!r}; that")
    for prompts in ("plain", "hard"):
        asked = "".join(m.prompt_text(ABOUT, prompts))
        expect("It is a gas.\n\nWhat is it?" in asked, True,
               f"the passage stands before its question (prompts={prompts!r}); that")
    expect("A. " in m.prompt_text(FREE), False, "a free-form prompt has choices; that")
    hard = m.prompt_text(CHOICE, "hard"), m.prompt_text(FREE, "hard")
    expect([isinstance(both, tuple) and len(both) for both in hard], [2, 2],
           "prompts=\"hard\": how many messages a question has, with choices and without,")
    expect(["B) 4" in user.split("\n") for _, user in hard], [True, False],
           "prompts=\"hard\": whether the line 'B) 4' is there, with choices and without,")
    r = m.rewards([CHOICE], [rollouts(TEXTS)], Checker())
    expect(r, torch.tensor([[1., 0., 0., 1.]]),
           "rewards of \\boxed{B}, \"A is wrong, B too \\boxed{C}\", \"B\", two boxes; key B")
    r = m.rewards([CHOICE], [rollouts([r"\boxed{(b)}", r"\boxed{4}"])], Checker())
    expect(r, torch.ones(1, 2), "rewards of \\boxed{(b)} and \\boxed{4}, which is option B,")
    for right in (("never", "Nile"), ("Nile", "never")):
        unsure = Question("Which?", [], right[0], aliases=right[1:])
        r = m.rewards([unsure], [rollouts([r"\boxed{Nile}", r"\boxed{Rhine}"])], Checker())
        expect([float(r[0, 0]), math.isnan(r[0, 1])], [1.0, True],
               f"rewards of Nile and of Rhine (is it nan?) where {right} are right, and nobody can "
               "check \"never\",")


def oracle(m):
    """With a checker that knows numbers and gives up on one answer."""
    expected = torch.tensor([[1., 0., 0., 1.], [1., 1., 0., math.nan], [1., 1., 0., 0.]])
    r = found(m)
    expect([math.isnan(x) for x in r.flatten().tolist()],
           [math.isnan(x) for x in expected.flatten().tolist()], "which rewards are unknown (nan)")
    expect(r.nan_to_num(-9.0), expected.nan_to_num(-9.0),
           "rewards of multiple choice, a number, a name with another spelling")


def probe(m):
    return [m.prompt_text(CHOICE), found(m).nan_to_num(-9.0)]
