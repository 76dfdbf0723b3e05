"""Hostile texts through the parser of drafts, the extraction of answers, and the verifier.

What comes out has to be well formed: a question whose key is one of its choices, a letter that the
question has, a verdict; and no text that does not hold the truth is equal to it.
"""
import json

import generator
import solver
from data import Question
from engine.verify import Verifier

from . import mutators
from .outcome import Loss, attempt

DRAFT = {"question_text": "Which of \\frac{1}{2} and 3 is larger?",
         "choices": ["\\frac{1}{2}", "3", "both A and B", "caf\u00e9"], "ground_truth": "3"}
ANSWERS = [r"So \boxed{B}.", r"\boxed{\text{(C)} 27}", r"\boxed{\frac{1}{2}}", r"\boxed{x^2 + 1}",
           r"<think>\boxed{A}</think> \boxed{D}", r"\boxed{[1, 2) \cup (3, 4]}",
           r"\boxed{\{1, 2, 3\}}", r"\boxed{12{,}345.60 \text{ km}}", r"\boxed{\sqrt[3]{5}}",
           r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}", r"\boxed{x = 2, y = 3}"]
# Held by no text that the mutators make.
TRUTHS = ["731.25", r"\frac{977}{13}", "quetzalcoatlus", r"(7, 41)", r"9x^5 - 17"]
BOMBS = {
    "brackets": lambda n: "[" * n, "boxes": lambda n: r"\boxed{" * n,
    "box of braces": lambda n: r"\boxed{" + "{" * n + "}" * n + "}",
    "fractions": lambda n: r"\boxed{" + r"\frac{1}{" * n + "2" + "}" * n + "}",
    "digits": lambda n: r"\boxed{" + "9" * n + "}",
    "power": lambda n: r"\boxed{9^{9^{9^{" + "9" * (n % 50) + "}}}}",
    "factorials": lambda n: r"\boxed{" + "9" * 6 + "!" * (n % 40) + "}",
    "roots": lambda n: r"\boxed{" + r"\sqrt{" * n + "2" + "}" * n + "}",
    "sum": lambda n: r"\boxed{" + "+".join("x" for _ in range(n)) + "}",
    "commas": lambda n: r"\boxed{" + "1," * n + "1}",
    "objects": lambda n: '{"question_text": "' * n, "quotes": lambda n: '{"' + '\\"' * n,
    "escapes": lambda n: '{"question_text": "' + "\\" * n, "thoughts": lambda n: "<think>" * n,
    "spaces": lambda n: r"\boxed{" + " " * n + "}", "marks": lambda n: "\u0301" * n,
    "code": lambda n: r"\boxed{__import__('os').system('exit 3')}",
    "names": lambda n: r"\boxed{" + "a_{" * n + "1" + "}" * n + "}"}


def text_of(rng, seed, i):
    """-> (what it is, a hostile text)."""
    kind = rng.choice(["draft", "draft", "answer", "answer", "bomb"])
    if kind == "bomb":
        name = rng.choice(list(BOMBS))
        n = rng.choice([1, 10, 100, 1000, 20_000])
        return f"{n} {name}", BOMBS[name](n)
    base = json.dumps(DRAFT, ensure_ascii=rng.random() < 0.5) if kind == "draft" else (
        rng.choice(ANSWERS))
    how, data = mutators.damaged(rng, base.encode())
    return f"{how} of a {kind}", data.decode("utf-8", rng.choice(["replace", "ignore"]))


def check_draft(text, rng):
    for kind in ("multiple_choice", "free_form"):
        question, reason = generator.parse_question(text, rng, question_type=kind)
        if (question is None) == (reason is None):
            raise Loss(f"a question and a reason: {question}, {reason}")
        if question is None:
            continue
        choices = question.choices
        if not isinstance(question, Question) or not question.question_text.strip():
            raise Loss(f"no question: {question!r}")
        if kind == "multiple_choice" and (
                choices.count(question.ground_truth) != 1 or not 4 <= len(choices) <= 8):
            raise Loss(f"its key is no choice: {question!r}")
        # what is logged has to be text that any file takes
        json.dumps(question.question_text).encode()
        question.question_text.encode()


def check_answer(text):
    for n, choices in ((4, DRAFT["choices"]), (2, ()), (26, ())):
        letter = solver.extract_answer(text, n, choices)
        if letter is not None and letter not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:n]:
            raise Loss(f"no letter of the question: {letter!r}")


def check_verdict(verifier, text, truth):
    answer = solver.last_boxed(text) or text[:2000]
    verdict, reverse = verifier.check([(answer, truth), (truth, answer)])
    for said in (verdict, reverse):
        if said not in (True, False, None):
            raise Loss(f"no verdict: {said!r}")
        if said:
            raise Loss(f"{answer[:200]!r} is called equal to {truth!r}")


def run(tally, seed, long, folder):
    with Verifier(seconds=1.0, workers=1) as verifier:
        # its worker starts here, and its imports are nobody's hang
        verifier.check([(r"\sqrt{8}", r"2\sqrt{2}")])
        for i in range(2000 if long else 60):
            rng = mutators.seeded(seed, "texts", i)
            what, text = text_of(rng, seed, i)
            truth = rng.choice(TRUTHS)

            def all_three():
                check_draft(text, rng)
                check_answer(text)
                check_verdict(verifier, text, truth)

            attempt(tally, f"{i}: {what}", all_three, NoRefusal)
    if verifier.crashes:
        tally.add("traceback", "the verifier's worker", f"{verifier.crashes} of them died")


class NoRefusal(Exception):
    """None of the three may refuse a text: it is a normal event, and its value is None."""
