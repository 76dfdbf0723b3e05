"""pi_theta, the solver: answers a question step by step and ends with its choice in a box.

    questions (Q) --prompt_text--> prompts --sample--> Q x m answers --extract_answer--> r (Q, m)

    code      symbol    shape     meaning
    answers             (Q, m)    rollouts
    r         r         (Q, m)    1 where the answer is the question's key, else 0
    A         A_sol     (Q, m)    the answer's advantage over the others to the same question
    A_update            (Q, m)    the same in the solver's own update: with hybrid RLVR's penalty

An answer with nothing in a box scores 0 and stays. Multiple choice is checked by letter, free-form
answers by math-verify (engine/verify.py). For a generated question the key is the generator's own:
the solver learns what the generator believes, which is why the generator must be paid for being
useful and not for being hard.

Departs from the released code: the prompts are ours, `plain` here, `hard` in prompts/hard; a letter
beyond the choices is wrong, not an error; a check that timed out is not a 0 but unknown.
"""
from itertools import chain
from string import ascii_uppercase

import torch

from data import Answered
from dugrpo import center
from engine.checks import Shared
from engine.letters import last_boxed, letter_in
from engine.prompts import long_prompt
from sampling import sample

# The question goes in {question}, its lettered choices in {options}.
MULTIPLE_CHOICE = """{question}

{options}

Think step by step, then give the letter of the right option in \\boxed{{}}."""

FREE_FORM = """{question}

Think step by step, then give the final answer in \\boxed{{}}."""


def solve(solver, questions, t, stage, cfg, verifier):
    """Q questions -> Answered: m answers to each, their rewards and advantages.

    t, stage: the iteration and what the answers are for, which make their random numbers.
    """
    seed_words = (cfg.seed, t, "solver", stage)
    answers = answer_questions(solver, questions, cfg.answers_per_question, seed_words, cfg, stage)
    r = shared_rewards(questions, answers, verifier)
    found, A = boxed(answers, r), advantages(r)
    A_update = A
    if cfg.unboxed_penalty:
        quit_early = ended(answers, r, solver.tokenizer.eos_token_id) & ~found      # (Q, m)
        A_update = advantages(r - cfg.unboxed_penalty * quit_early)
    return Answered(questions, answers, r, A, found, A_update)


def answer_questions(solver, questions, m, seed_words, cfg, what="answers", **sampling):
    """Q questions -> (Q, m) rollouts.

    seed_words: (seed, iteration, "solver", stage). sampling: temperature, top_p, top_k where they
    differ from training's.
    """
    prompts = [solver.prompt_ids(prompt_text(question, cfg.prompts)) for question in questions]
    return sample(solver, prompts, m, seed_words, cfg, what=what, **sampling)


def rewards(questions, answers, verifier):
    """(Q, m) answers -> (Q, m) r: 1 right, 0 wrong or nothing in a box, nan where nobody knows.

    The check of a free-form answer can time out or crash. That says nothing about the answer, so it
    is never a 0: settled() takes its question out of the update, and verifier.timeouts counts it.
    """
    r = torch.zeros(len(questions), len(answers[0]) if answers else 0)              # (Q, m)
    places, pairs = [], []
    for q, (question, group) in enumerate(zip(questions, answers)):
        for i, rollout in enumerate(group):
            if question.choices:
                letter = given_answer(question, rollout.text)
                r[q, i] = float(letter == question.letter)
            else:
                for truth in (question.ground_truth, *question.aliases):
                    places.append((q, i))
                    pairs.append((last_boxed(rollout.text), truth))
    verdicts = verifier.check(pairs) if pairs else []
    for place, verdict in zip(places, verdicts):
        # right by any of its texts; else unknown by any
        if verdict:
            r[place] = 1.0
        elif verdict is None and r[place] != 1:
            r[place] = float("nan")
    return r


def shared_rewards(questions, answers, verifier):
    """rewards() on every rank, each having checked its share of the free-form answers."""
    return rewards(questions, answers, Shared(verifier))


def settled(r):
    """(Q, m) rewards -> the same without nan.

    A group with an unknown reward becomes all zeros, a group without a gradient.
    """
    unknown = r.isnan().any(dim=1, keepdim=True)
    return torch.where(unknown, torch.zeros_like(r), r)


def advantages(r):
    """(Q, m) rewards -> (Q, m) A_sol. Zeros where a reward is unknown."""
    return center(settled(r)) if len(r) else r


def ended(answers, r, eos):
    """(Q, m) answers, (Q, m) r -> (Q, m) booleans: is the last token the tokenizer's end of text.

    Without a box that is the authors' mid-EOS, an answer that ends before it has answered. It costs
    cfg.unboxed_penalty in the solver's update (with verifiable problems, hybrid RLVR), and there
    alone: g_dev and g_q ask what is right, not what is finished. An answer that was cut at the
    length limit, or that ended its turn by another token, costs nothing.
    """
    last = [answer.response[-1] == eos for answer in chain.from_iterable(answers)]
    return torch.tensor(last, dtype=torch.bool).view_as(r)


def documents_of(slots, groups):
    """(Q,) slots, the G groups the solver trains on -> (G,) the document of each, for
    policy.spread: its place in the batch, since a document can appear twice where an epoch ends.

    None for what nobody drafted (problems, dev questions, those of a file): together they count as
    one document, which spreads problems over all mini-batches and leaves the order of the others.
    """
    documents = [d for d, _ in slots]
    return documents + [None] * (len(groups) - len(documents))


# ---------------------------------------------------------------- what an answer gave

def boxed(answers, r):
    """(Q, m) answers, (Q, m) r -> (Q, m) booleans: is there a whole box, though it be empty."""
    found = torch.zeros(r.shape, dtype=torch.bool)
    for q, group in enumerate(answers):
        for i, answer in enumerate(group):
            found[q, i] = last_boxed(answer.text) is not None
    return found


def given(questions, answers):
    """(Q, m) answers -> (Q, m) lists: the letter, a free-form answer's boxed text, or None."""
    found = []
    for question, group in zip(questions, answers):
        found.append([given_answer(question, answer.text) for answer in group])
    return found


def given_answer(question, text):
    if question.choices:
        return extract_answer(text, len(question.choices), question.choices)
    return last_boxed(text)


# ---------------------------------------------------------------- prompts out, answers in

def prompt_text(question, prompts="plain"):
    """A question -> what the solver is asked, with lettered choices if it has any: a user message;
    hard: (system message, user message).

    "A. ..." is plain's, what the small models were warmed on; "A) ..." is hard's, as released.
    """
    text = question.question_text
    if question.passage:
        text = f"{question.passage}\n\n{text}"
    mark = ")" if prompts == "hard" else "."
    lettered = zip(ascii_uppercase, question.choices)
    options = "\n".join(f"{letter}{mark} {choice}" for letter, choice in lettered)
    if prompts == "hard":
        values = {"question": text} | ({"options": options} if options else {})
        section = "multiple choice" if question.choices else "free form"
        return long_prompt("solver.txt", section, **values)
    if not question.choices:
        return FREE_FORM.format(question=text)
    return MULTIPLE_CHOICE.format(question=text, options=options)


def extract_answer(text, n_choices, choices=()):
    r"""What the solver wrote -> the letter in its last complete box, or None.

    None is nothing usable, which scores 0 and stays in the group; a letter beyond the choices too.
    In \boxed{C. 27} the letter decides, unless the text rules it out. choices: the option texts; a
    box that holds one of them means that option. What a box may look like: engine/letters.py.

    >>> extract_answer(r"Not \boxed{A}. So \boxed{\text{(C)}}", 4)
    'C'
    >>> extract_answer(r"\boxed{Because}", 4), extract_answer(r"\boxed{F}", 4)
    (None, None)
    >>> extract_answer(r"\boxed{27}", 2, ["26", "27"])
    'B'
    """
    return letter_in(last_boxed(text) or "", n_choices, choices)
