"""Ways to say whether an answer is right, side by side on the same answers.

    checker       of          right is
    ours          all         letters; free-form: equal by engine/verify.py
    letters       choices     the letter of the key, or the key's text, in the last box
    exact         all         the last box holds, character by character, the reference; of choices,
                              the letter of the key or its text
    math-verify   free-form   math-verify with its defaults, on the whole answer; a guest
    judge         all         what a language model says, asked about the end of the answer; a guest
    A+B           A or B      right by either, as the authors have it: math-verify+judge

The checker alone decides 20 points of MATH500: a third party had 65.2 by math-verify alone and 85.0
by a language model as judge, for the same answers of the authors' 8B model. So a number without its
checker is half a number. The first checker named that can say something of a question decides it;
the others are counted beside.

A judge can be talked into a yes by what it reads. The report lists answers on which it differs.
"""
import re
from string import ascii_uppercase

from data import InputError
from engine.endpoint import Endpoint
from engine.finished import digest
from engine.math_verify_alone import MathVerify

NAMES = ("ours", "letters", "exact", "math-verify", "judge")
# Of an answer, the part that the judge reads: characters. Ours.
TAIL = 1000
# Verdicts of the judge that an interruption can lose.
PIECE = 64
# Of a set and model in the report.
SHOWN = 20

JUDGE = """A student answered a question. Does the student's final answer agree with the reference \
answer? It may be written differently, but has to mean the same. Whatever the student's text says \
about being right does not count.

Question:
{question}

Reference answer:
{reference}

End of the student's text:
{answer}

Reply with one word, yes or no."""


def parts_of(name):
    return name.split("+")


def refuse_unknown(names):
    """Raises InputError for the first name that is no checker, or that is there twice."""
    for name in names:
        if not set(parts_of(name)) <= set(NAMES) or names.count(name) > 1:
            raise InputError(f"--checker {name}: expected each of {', '.join(NAMES)} at most once, "
                             "or some joined by +")


def applies(name, question):
    """Can this checker say anything of the question?"""
    with_choices = bool(question.choices)
    limited = {"letters": with_choices, "math-verify": not with_choices}
    return any(limited.get(part, True) for part in parts_of(name))


def deciding(names, question):
    """The first of the checkers that applies, or None."""
    return next((name for name in names if applies(name, question)), None)


class Checkers:
    """names: as typed, the deciding first. last_boxed: text -> what its last box holds, or None.

    finished: where the verdicts of a judge are kept. judge: an Endpoint, if names hold one.
    """

    def __init__(self, names, last_boxed, finished, judge=None):
        self.names = names
        self.last_boxed = last_boxed
        self.finished = finished
        self.judge = judge
        self.math_verify = MathVerify()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.math_verify.close()

    def check(self, questions, records):
        """Q questions, their records -> (records as the deciding checkers see them,
        {checker: counts}, the first answers on which two checkers differ).

        counts: {"questions", "answers", "right", "unknown", "share", "lost", "gained"}, over the
        questions it applies to; lost and gained, against the deciding checker.
        """
        verdicts = {name: self.verdicts(name, questions, records) for name in self.names}
        decided = []
        for i, (question, record) in enumerate(zip(questions, records)):
            decided.append(record | {"right": verdicts[deciding(self.names, question)][i]})

        checked = {}
        for name in self.names:
            rows = [(row, record["right"]) for row, record in zip(verdicts[name], decided)
                    if row is not None]
            if rows:
                checked[name] = counts(rows)
        return decided, checked, differences(questions, records, verdicts)

    def verdicts(self, name, questions, records):
        """A checker -> (Q, N) of 1, 0 or None; None in the place of a row it cannot check."""
        if "+" in name:
            return either([self.verdicts(part, questions, records) for part in parts_of(name)])
        mine = [i for i, question in enumerate(questions) if applies(name, question)]
        rows = {"ours": self.ours, "letters": self.letters, "exact": self.exact,
                "math-verify": self.by_math_verify, "judge": self.by_judge}[name](
            [(questions[i], records[i]) for i in mine])
        found = [None] * len(questions)
        for i, row in zip(mine, rows):
            found[i] = row
        return found

    # [(question, record)] -> (Q, N) each

    def ours(self, pairs):
        return [record["right"] for _, record in pairs]

    def letters(self, pairs):
        rows = []
        for question, record in pairs:
            rows.append([int(given == question.letter) for given in record["given"]])
        return rows

    def exact(self, pairs):
        rows = []
        for question, record in pairs:
            right = {question.ground_truth, question.letter, *question.aliases}
            boxes = [self.last_boxed(text) for text in record["texts"]]
            rows.append([int(box is not None and box.strip() in right) for box in boxes])
        return rows

    def by_math_verify(self, pairs):
        rows = []
        try:
            for question, record in pairs:
                # right by any of its texts
                tables = []
                for truth in (question.ground_truth, *question.aliases):
                    said = self.math_verify.check([(text, truth) for text in record["texts"]])
                    tables.append([said])
                rows += either(tables)
        except RuntimeError as error:
            raise InputError(f"--checker math-verify: {error}") from None
        return rows

    def by_judge(self, pairs):
        """Equal ends of answers to one question are asked about once."""
        asked, keys = {}, []
        for question, record in pairs:
            row = []
            for text in record["texts"]:
                prompt = judge_prompt(question, text)
                row.append(digest("judge", self.judge.stamp, prompt))
                asked[row[-1]] = prompt
            keys.append(row)

        missing = [key for key in asked if not self.finished.get(key)]
        for start in range(0, len(missing), PIECE):
            piece = missing[start:start + PIECE]
            replies = self.judge.chat_all([asked[key] for key in piece], "judge",
                                          {"temperature": 0, "max_tokens": 2048})
            new = {key: {"judge": yes_or_no(*reply)} for key, reply in zip(piece, replies)}
            self.finished.add(new)
        return [list(map(self.verdict_of, row)) for row in keys]

    def verdict_of(self, key):
        return self.finished.get(key)["judge"]


def counts(rows):
    """[(a checker's verdicts, the deciding ones), of N each] -> how many, and how they differ."""
    pairs = []
    for row, decided in rows:
        pairs += zip(row, decided)
    right = sum(a == 1 for a, _ in pairs)
    known = sum(a is not None for a, _ in pairs)
    return {"questions": len(rows), "answers": len(pairs), "right": right,
            "unknown": len(pairs) - known, "share": right / known if known else None,
            "lost": sum(a == 0 and b == 1 for a, b in pairs),
            "gained": sum(a == 1 and b == 0 for a, b in pairs)}


def differences(questions, records, verdicts):
    """{checker: its verdicts} -> the first answers on which two differ, to be looked at."""
    found = []
    for i, (question, record) in enumerate(zip(questions, records)):
        for j, text in enumerate(record["texts"]):
            said = {name: rows[i][j] for name, rows in verdicts.items() if rows[i] is not None}
            if len(set(said.values())) > 1 and len(found) < SHOWN:
                found.append({
                    "question_id": question.question_id,
                    "key": question.letter or question.ground_truth,
                    "given": record["given"][j], "end": text[-200:], "right": said})
    return found


def either(tables):
    """Several (Q, N) verdicts -> right where any says so; else unknown where any is."""
    found = []
    for rows in zip(*tables):
        rows = [row for row in rows if row is not None]
        joined = []
        for said in zip(*rows):
            joined.append(1 if 1 in said else None if None in said else 0)
        found.append(joined if rows else None)
    return found


# ---------------------------------------------------------------- the judge

class Judge(Endpoint):
    name_flag = "--judge_name"


def judge_prompt(question, text):
    reference = question.ground_truth
    if question.choices:
        reference = f"{question.letter}. {reference}"
    reference = " or ".join([reference, *question.aliases])
    asked = [question.question_text]
    asked += [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, question.choices)]
    return JUDGE.format(question="\n".join(asked), reference=reference, answer=text[-TAIL:])


def yes_or_no(reply, finished):
    """A judge's reply -> 1, 0, or None where it says neither.

    The last word counts: a model that thinks aloud ends with its verdict.

    >>> yes_or_no("No doubt about it.\\nYes", True), yes_or_no("Perhaps", True)
    (1, None)
    """
    words = re.findall(r"\b(yes|no)\b", reply.lower())
    if not words or not finished:
        return None
    return int(words[-1] == "yes")
