"""What the generator wrote -> a question or a reason: one row per trap, then texts built to be
slow, then random garbage.
"""
import doctest
import json
import random
import time

import pytest

import generator
from data import Question
from generator import parse_question

FOUR = ["27", "31", "9", "12"]


def written(choices=FOUR, key="31", text="What is left?", **more):
    """The JSON object a careful generator writes."""
    return json.dumps({"question_text": text, "choices": choices, "ground_truth": key, **more})


GOOD = written()
OTHER = written(["1", "2", "3", "4"], "1", "Another one?")
LATEX = (r'{"question_text": "%s", "choices": ["$\frac{1}{2}$", "$\theta$", "\(x\)",'
         r' "\beta \neq \nu"],'
         r' "ground_truth": "%s"}')

VALID = [  # name, text, question, options, key
    ("plain", GOOD, "What is left?", FOUR, "31"),
    (
        "reasoning first",
        'Let me think {about it}. {"a" or "b"}\n' + GOOD,
        "What is left?",
        FOUR,
        "31",
    ),
    ("remarks after it", GOOD + '\nThis is hard because {of} "that".', "What is left?", FOUR, "31"),
    ("fenced", f"```json\n{GOOD}\n```", "What is left?", FOUR, "31"),
    ("indented", json.dumps(json.loads(GOOD), indent=4), "What is left?", FOUR, "31"),
    ("last of two counts", OTHER + "\nBetter:\n" + GOOD, "What is left?", FOUR, "31"),
    (
        "last valid counts: broken after it",
        GOOD + ' {"question_text": "x", "choices": [1 2]}',
        "What is left?",
        FOUR,
        "31",
    ),
    (
        "last valid counts: too few after it",
        GOOD + written(["1", "2"], "1"),
        "What is left?",
        FOUR,
        "31",
    ),
    (
        "last valid counts: cut off after it",
        GOOD + '{"question_text": "And th',
        "What is left?",
        FOUR,
        "31",
    ),
    ("another object after it", GOOD + '{"difficulty": "hard"}', "What is left?", FOUR, "31"),
    ("cut off before it", '{"question_text": "Draft: ' + GOOD, "What is left?", FOUR, "31"),
    (
        "unclosed brace and quote before it",
        'The set {"a, b and "c: ' + GOOD,
        "What is left?",
        FOUR,
        "31",
    ),
    ("wrapped", '{"question": ' + GOOD + "}", "What is left?", FOUR, "31"),
    ("in a list", "[" + GOOD + "]", "What is left?", FOUR, "31"),
    ("more fields", written(why={"a": {"b": 1}}), "What is left?", FOUR, "31"),
    (
        "fields in another order",
        '{"ground_truth": "d", "choices": ["a", "b", "c", "d"], "question_text": "q"}',
        "q",
        list("abcd"),
        "d",
    ),
    ("eight options", written(list("abcdefgh"), "h"), "What is left?", list("abcdefgh"), "h"),
    (
        "braces in strings",
        written(["{", "}", "{}", "}{"], "}", 'f(x) = {x : "x"}'),
        'f(x) = {x : "x"}',
        ["{", "}", "{}", "}{"],
        "}",
    ),
    (
        "JSON in a string",
        written(text='Read {"question_text": 1, "choices": []}'),
        'Read {"question_text": 1, "choices": []}',
        FOUR,
        "31",
    ),
    (
        "space at the ends",
        written([" 27 ", "31\n", "\t9", "12"], " 31", "  What? \n"),
        "What?",
        FOUR,
        "31",
    ),
    (
        "space inside",
        written(["a  b", "c", "d", "e"], "a b"),
        "What is left?",
        ["a  b", "c", "d", "e"],
        "a  b",
    ),
    (
        "case distinguishes options",
        written(["X", "x", "Y", "y"], "x"),
        "What is left?",
        ["X", "x", "Y", "y"],
        "x",
    ),
    (
        "not only ASCII",
        written(["é", "日本", "π", "😀"], "😀"),
        "What is left?",
        ["é", "日本", "π", "😀"],
        "😀",
    ),
    ("key differs in case", written(["Xa", "Xb", "Xc", "Xd"], "xa"), "What is left?",
     ["Xa", "Xb", "Xc", "Xd"], "Xa"),
    ("key is a letter", written(key="B"), "What is left?", FOUR, "31"),
    ("key is a letter in brackets", written(key="(C)"), "What is left?", FOUR, "9"),
    ("key is a letter with a dot", written(key="D."), "What is left?", FOUR, "12"),
    ("key is a small letter", written(key="b"), "What is left?", FOUR, "31"),
    ("key has letter and text", written(key="B) 31"), "What is left?", FOUR, "31"),
    (
        "a letter is text first",
        written(["A", "C", "B", "D"], "C"),
        "What is left?",
        ["A", "C", "B", "D"],
        "C",
    ),
    (
        "a letter is text first, others are not letters",
        written(["O", "N", "C", "B"], "B"),
        "What is left?",
        ["O", "N", "C", "B"],
        "B",
    ),
    (
        "labels are taken off",
        written(["A. 27", "B. 31", "C. 9", "D. 12"], "B. 31"),
        "What is left?",
        FOUR,
        "31",
    ),
    (
        "labels, key without",
        written(["A) 27", "B) 31", "C) 9", "D) 12"], "31"),
        "What is left?",
        FOUR,
        "31",
    ),
    (
        "labels, key a letter",
        written(["(a) 27", "(b) 31", "(c) 9", "(d) 12"], "c"),
        "What is left?",
        FOUR,
        "9",
    ),
    (
        "labels before letters: text first",
        written(["A: D", "B: C", "C: B", "D: A"], "C"),
        "What is left?",
        list("DCBA"),
        "C",
    ),
    (
        "one option without a label: all stay",
        written(["A. 27", "B. 31", "C. 9", "12"], "B. 31"),
        "What is left?",
        ["A. 27", "B. 31", "C. 9", "12"],
        "B. 31",
    ),
    (
        "labels out of order: all stay",
        written(["B. Li", "A. Wu", "C. Yi", "D. Xu"], "A. Wu"),
        "What is left?",
        ["B. Li", "A. Wu", "C. Yi", "D. Xu"],
        "A. Wu",
    ),
    (
        "a label and no text stays",
        written(["A.", "B.", "C.", "D."], "B."),
        "What is left?",
        ["A.", "B.", "C.", "D."],
        "B.",
    ),
    ("raw JSON wins: line break", written(text="Given:\nnu is 3"), "Given:\nnu is 3", FOUR, "31"),
    (
        "raw JSON wins: doubled backslashes",
        written(text=r"\frac{1}{2} \theta"),
        r"\frac{1}{2} \theta",
        FOUR,
        "31",
    ),
    (
        "a command is no tab, whatever raw JSON says",
        GOOD.replace("left?", r"\theta?"),
        r"What is \theta?",
        FOUR,
        "31",
    ),
    (
        "a line break typed into a string",
        GOOD.replace("is left", "is\nleft"),
        "What is\nleft?",
        FOUR,
        "31",
    ),
    (
        "LaTeX repaired",
        LATEX % (r"Let \(a\) be \tau \rho \bar{b}", r"\(x\)"),
        r"Let \(a\) be \tau \rho \bar{b}",
        [r"$\frac{1}{2}$", r"$\theta$", r"\(x\)", r"\beta \neq \nu"],
        r"\(x\)",
    ),
    (
        "LaTeX repaired, line break kept",
        LATEX % (r"Let \(a\) hold.\nThen \"b\"\nnow", r"$\theta$"),
        'Let \\(a\\) hold.\nThen "b"\nnow',
        [r"$\frac{1}{2}$", r"$\theta$", r"\(x\)", r"\beta \neq \nu"],
        r"$\theta$",
    ),
    (
        "LaTeX repaired, doubled and escaped ones kept",
        LATEX % (r"\\alpha \u00e9 \(\underline{a}\)", "B"),
        "\\alpha é \\(\\underline{a}\\)",
        [r"$\frac{1}{2}$", r"$\theta$", r"\(x\)", r"\beta \neq \nu"],
        r"$\theta$",
    ),
]

INVALID = [  # name, text, reason
    ("empty", "", "no_json"),
    ("prose", "I cannot write a question about this.", "no_json"),
    ("prose with LaTeX", r"\frac{1}{2} and {a, b}", "no_json"),
    ("another object", '{"answer": 3}', "no_json"),
    ("cut off in a string", GOOD[:30], "truncated"),
    ("cut off in the options", GOOD[:-40], "truncated"),
    ("cut off in the last string", GOOD[:-3], "truncated"),
    ("cut off after a backslash", '{"question_text": "x \\', "truncated"),
    ("comma missing", GOOD.replace(", ", " "), "bad_json"),
    ("backslash outside a string", GOOD.replace(", ", ", \\"), "bad_json"),
    ("nested too deep", '{"question_text": [[[[[[[[[1]]]]]]]]]}', "bad_json"),
    ("a number of 10,000 digits", GOOD[:-1] + ', "n": ' + "9" * 10_000 + "}", "bad_json"),
    ("no key", '{"question_text": "q", "choices": ["a", "b", "c", "d"]}', "missing_field"),
    ("only a question", '{"question_text": "q"}', "missing_field"),
    ("an option is a list", written([["1"], "2", "3", "4"], "2"), "wrong_type"),
    ("options are a dict", written({"x": "1", "y": "2", "z": "3", "w": "4"}, "x"), "wrong_type"),
    ("options are a string", written("abcd", "a"), "wrong_type"),
    ("key is a list", written(key=["31"]), "wrong_type"),
    ("key is a place", written(key=1), "answer_not_in_choices"),
    ("question is null", written(text=None), "wrong_type"),
    ("half a surrogate pair", written(text="\ud800"), "not_unicode"),
    ("empty question", written(text=" \n "), "empty_question"),
    ("an empty option", written(["a", "b", "c", " "], "a"), "empty_choice"),
    ("no options is not free-form", written([]), "too_few_choices"),
    ("three options", written(["1", "2", "3"], "1"), "too_few_choices"),
    ("nine options", written(list("abcdefghi"), "a"), "too_many_choices"),
    ("duplicates", written(["1", "2", "3", "1"], "1"), "duplicate_choices"),
    ("duplicates but for space", written(["a b", "2", "3", " a  b "], "2"), "duplicate_choices"),
    (
        "duplicates under their labels",
        written(["A. 1", "B. 2", "C. 1", "D. 3"], "B"),
        "duplicate_choices",
    ),
    ("key is no option", written(key="13"), "answer_not_in_choices"),
    ("key is empty", written(key=""), "answer_not_in_choices"),
    ("key differs from two in case", written(["Xa", "XA", "b", "c"], "xa"),
     "answer_not_in_choices"),
    ("key letter beyond the options", written(key="E"), "answer_not_in_choices"),
    ("letter and text of the key disagree", written(key="A. 31"), "answer_not_in_choices"),
    (
        "of two invalid ones, the reason of the last",
        written(["1"], "1") + written(key="13"),
        "answer_not_in_choices",
    ),
    ("the last meant as a question", written(["1"], "1") + '{"difficulty": 3}', "too_few_choices"),
]


def named(rows):
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


@pytest.mark.parametrize("text, question, choices, key", named(VALID))
def test_valid(text, question, choices, key):
    assert parse_question(text) == (Question(question, choices, key), None)


@pytest.mark.parametrize("text, reason", named(INVALID))
def test_invalid(text, reason):
    assert parse_question(text) == (None, reason)


def test_shuffling_is_seeded_reaches_every_place_and_keeps_the_key():
    questions = [parse_question(GOOD, random.Random(seed))[0] for seed in range(100)]
    assert questions == [parse_question(GOOD, random.Random(seed))[0] for seed in range(100)]
    assert {question.letter for question in questions} == set("ABCD")
    assert all(
        question.ground_truth == "31" and sorted(question.choices) == sorted(FOUR)
        for question in questions
    )


def test_a_key_given_as_a_letter_follows_its_option_when_options_are_shuffled():
    assert all(
        parse_question(written(key="B"), random.Random(seed))[0].ground_truth == "31"
        for seed in range(20)
    )


def test_the_number_of_options_asked_for_is_an_argument():
    assert parse_question(written(["1", "2"], "1"), None, 2, 3)[1] is None
    assert parse_question(written(), None, 2, 3)[1] == "too_many_choices"


FLOODS = [
    "{",
    '{"',
    '{"a":',
    '{"question_text":',
    '{"a": "',
    '{"":"',
    '{"a":[',
    '{"a":"\\',
    '"',
    "\\",
    '{"choices":[],',
    '{"a":1},',
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", FLOODS)
def test_a_long_text_of_anything_is_read_quickly_and_hides_no_question(piece):
    flood = piece * (300_000 // len(piece))
    start = time.perf_counter()
    assert parse_question(flood)[0] is None
    assert parse_question(GOOD + flood)[0].ground_truth == "31"
    # about 3 at most on a busy machine; a search that grows with the square takes minutes
    assert time.perf_counter() - start < 20


def test_random_garbage_never_raises_and_never_gets_through():
    rng = random.Random(0)
    pieces = [
        *'{}[]",:\\ \n',
        "\\u",
        "\\ud83d",
        "\\frac{1}",
        '"question_text"',
        '"choices"',
        '"ground_truth"',
        '"A"',
        "null",
        "1e999",
        "NaN",
        "é",
        GOOD,
        GOOD[:50],
    ]
    for _ in range(3000):
        question, reason = parse_question("".join(rng.choices(pieces, k=rng.randrange(40))), rng)
        assert (question is None) == isinstance(reason, str)
        assert (
            question is None
            or question.ground_truth in question.choices
            and len(set(question.choices)) == 4
        )


def test_damaged_questions_never_raise():
    rng = random.Random(1)
    for _ in range(3000):
        text = list(GOOD)
        for _ in range(rng.randrange(1, 4)):
            text[rng.randrange(len(text))] = rng.choice('{}[]",:\\ aB.1')
        question, reason = parse_question("".join(text))
        assert (question is None) != (reason is None)


def test_what_json_writes_is_read_back():
    rng = random.Random(2)

    def word():
        letters = rng.choices('ab{}[]":,\\ $ént', k=rng.randrange(1, 12))
        return "".join(letters) + str(rng.random())

    for _ in range(500):
        choices = [word().strip() for _ in range(rng.randint(4, 8))]
        text = json.dumps(
            {
                "question_text": "Q" + word(),
                "choices": choices,
                "ground_truth": rng.choice(choices),
            },
            ensure_ascii=rng.random() < 0.5,
            indent=rng.choice([None, 2]),
        )
        question, reason = parse_question(f"Thinking {word()}.\n```json\n{text}\n```")
        assert (question, reason) == (Question(**json.loads(text)), None)


def test_examples_in_the_docstrings():
    assert doctest.testmod(generator).failed == 0
