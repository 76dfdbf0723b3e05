"""From what a generator wrote to a question, or to the reason why it is none."""
import json
import random

from classroom.compare import expect, mistake

NAME = "parse_question"
SYMBOL = "text -> (q, a_phi), or a reason"
FILE = "generator.py"
BLANKS = ["check_question", "parse_draft"]
RUN = True

HINTS = (
    "check_question looks at one object: the three FIELDS must be there and be texts (choices a "
    "list of them), with enough choices, none empty, no two alike, and a key that is one of them. "
    "Each way to fail has its reason, in the order of the docstring.",
    "fold(x) makes runs of white space one; strip_labels(written, key) takes \"A.\" off where all "
    "choices have one; find_key(key, written, choices) is the place of the key, or None. written: "
    "the choices with .strip(); choices: what strip_labels gave; key: folded. Two choices are "
    "alike if fold makes them equal. The question's key is the choice itself, choices[index], "
    "whatever the model wrote for it: Question(text, choices, choices[index]).",
    "parse_draft: judged(text, check, needed) gives (question, reason, slips) of each object in "
    "order. check takes one dict: check_question with its two numbers filled in, or "
    "check_free_form if question_type is \"free_form\"; needed are the names it wants, FIELDS, or "
    "(\"question_text\", \"ground_truth\"). Of questions the last counts, an invalid object takes "
    "none back, and a generator that abstains does. Start from (None, \"bad_json\" if "
    "was_meant(text) else \"no_json\", []). Then shuffle the choices by rng, unless there is none "
    "or order_matters(choices).",
)

LAST = 'if question or reason == "abstained" or not found[0]:'
MISTAKES = (
    mistake(
        "the first question counts: a model that thinks writes attempts before its answer, so the "
        "last one counts",
        ("parse_draft", LAST, "if not found[0]:")),
    mistake(
        "the last object counts even if it is none: a remark behind a valid question takes it back",
        ("parse_draft", LAST, "if True:")),
    mistake(
        "the choices are shuffled even where one names others: \"Both A and B\" then names what "
        "happens to stand there",
        ("parse_draft", " and not order_matters(question.choices)", "")),
    mistake(
        "the choices are not shuffled: a generator that always puts the right one first teaches "
        "the solver to say A",
        ("parse_draft", "rng.shuffle(question.choices)", "pass")),
    mistake(
        "the key stays as the model wrote it: \"B\" is no choice's text, and the solver's letter "
        "is compared with nothing",
        ("check_question", "Question(text, choices, choices[index])",
         "Question(text, choices, key)")),
    mistake(
        "two equal choices pass: then two letters are right and one of them is called wrong",
        ("check_question", "if len(set(map(fold, choices))) < len(choices):", "if False:")),
    mistake(
        "two or three choices are enough here; min_choices says how many it takes, since guessing "
        "gets easier with fewer",
        ("check_question", "if len(choices) < min_choices:", "if len(choices) < 2:")),
)


def written(choices, key="4", text="2 + 2?"):
    return json.dumps({"question_text": text, "choices": choices, "ground_truth": key})


GOOD = written(["3", "4", "5", "22"])
TEXTS = (
    GOOD,
    written(["3", "4", "5", "6"], text="First?") + " No, better: " + GOOD,
    GOOD + ' A remark: {"question_text": "?", "choices": []}',
    written(["3", "4", "4 ", "22"]),
    written(["3", "4", "5"]),
    written(["3", "5", "6", "22"]),
    written(["A. 3", "B. 4", "C. 5", "D. 22"], "B"),
    written(["3", "4", "Both A and B", "None of the above"]),
    written(["", "4", "5", "22"]),
    "There is no question here.",
    written([str(i) for i in range(9)]),
    written([["3"], "4", "5", "22"]),
    written(["3", "4", "5", "22"], text=" "),
)
EMPTY = json.dumps({"question_text": "", "choices": [], "ground_truth": ""})
# text -> the reason why it is no question
REASONS = {
    EMPTY: "abstained",
    GOOD + " Or rather not: " + EMPTY: "abstained",
    '{"question_text": "2 + 2?", "choices": ["3", "4", "5", "22"]}': "missing_field",
    '{"question_text": "2 + 2?" "choices" ["3"]}': "bad_json",
    written(["3", "4", "5", "\ud800"]): "not_unicode",
    written(["4", "4"]): "too_few_choices",
    written(["3", "4", "5"]) + " Or: " + written(["3", "4", "4", "5"]): "duplicate_choices",
}
# by other names, which are mended only if no choices are needed
SHORT = '{"question": "One half?", "answer": "1/2"}'


def answer_of(m, text, seed=5):
    question, reason, slips = m.parse_draft(text, random.Random(seed), 4, 8, "multiple_choice")
    if question is None:
        return [reason, list(slips)]
    return [question.question_text, question.choices, question.ground_truth, list(slips)]


def by_hand(m):
    for text, reason in ((TEXTS[3], "duplicate_choices"), (TEXTS[4], "too_few_choices"),
                         (TEXTS[5], "answer_not_in_choices"), (TEXTS[8], "empty_choice"),
                         (TEXTS[9], "no_json"), (TEXTS[10], "too_many_choices"),
                         (TEXTS[11], "wrong_type"), (TEXTS[12], "empty_question")):
        expect(answer_of(m, text)[0], reason, f"the reason for {text[:60]}")
    for text, reason in REASONS.items():
        expect(answer_of(m, text)[0], reason, f"the reason for {text}")
    comma = GOOD.replace("}", ",}")
    expect(answer_of(m, comma)[-1], ["trailing_comma"], f"the slips mended in {comma}")
    owl = written(["a cat", "a dog", "a cow", "an owl"], "an  owl ")
    expect(answer_of(m, owl)[2:3], ["an owl"], f"the key of {owl}")
    question, _, _ = m.parse_draft(TEXTS[6], None, 4, 8, "multiple_choice")
    expect([question.choices, question.ground_truth], [["3", "4", "5", "22"], "4"],
           "choices with labels and the key B")
    free = m.parse_draft(SHORT, None, 4, 8, "free_form")[0]
    expect(free and [free.question_text, free.choices, free.ground_truth], ["One half?", [], "1/2"],
           f"of {SHORT}, as free_form,")


def oracle(m):
    """Rules that hold whatever the text: the key is a choice, and the order does not betray it."""
    places = [0] * 4
    for seed in range(200):
        question, _, _ = m.parse_draft(GOOD, random.Random(seed), 4, 8, "multiple_choice")
        places[question.choices.index(question.ground_truth)] += 1
    expect(min(places) > 25, True, f"the key lies in each of four places, here {places}; evenly")
    expect(answer_of(m, TEXTS[1])[0], "2 + 2?", "of two questions")
    expect(answer_of(m, TEXTS[2])[0], "2 + 2?", "of a question and an object that is none")
    expect(answer_of(m, TEXTS[7])[1], ["3", "4", "Both A and B", "None of the above"],
           "choices of which one names others")


def probe(m):
    return [answer_of(m, text) for text in TEXTS]
