"""What the solver wrote -> a letter or None, and a question -> what the solver reads."""
import doctest
import random
import time
import tracemalloc

import pytest

import solver
from data import Question
from solver import extract_answer, last_boxed, prompt_text

# name, text, letter among four choices
LETTERS = [
    ("plain", r"So it is \boxed{C}.", "C"),
    ("brackets", r"\boxed{(C)}", "C"),
    ("square brackets", r"\boxed{[C]}", "C"),
    ("text", r"\boxed{\text{C}}", "C"),
    ("text and brackets", r"\boxed{\text{(C)}}", "C"),
    ("brackets and text", r"\boxed{(\text{C})}", "C"),
    ("textbf", r"\boxed{\textbf{C}}", "C"),
    ("mathrm", r"\boxed{\mathrm{C}}", "C"),
    ("left and right", r"\boxed{\left( C \right)}", "C"),
    ("small with spaces", r"\boxed{ c }", "C"),
    ("dot", r"\boxed{C.}", "C"),
    ("bracket", r"\boxed{C)}", "C"),
    ("colon", r"\boxed{C:}", "C"),
    ("dollars", r"\boxed{$C$}", "C"),
    ("inline math", r"\boxed{\(C\)}", "C"),
    ("bold", r"\boxed{**C**}", "C"),
    ("own braces", r"\boxed{{C}}", "C"),
    ("line breaks", "\\boxed{\nC\n}", "C"),
    ("space before the brace", r"\boxed {C}", "C"),
    ("doubled backslash", r"\\boxed{C}", "C"),
    ("letter, dot, text", r"\boxed{C. 27}", "C"),
    ("letter, dot, number", r"\boxed{C.27}", "C"),
    ("letter, colon, text", r"\boxed{C: 27}", "C"),
    ("letter, bracket, text", r"\boxed{C) Because}", "C"),
    ("brackets, text", r"\boxed{(C) 27}", "C"),
    ("brackets, dot, text", r"\boxed{(C). 27}", "C"),
    ("text, dot, number", r"\boxed{\text{C. } 27}", "C"),
    ("text holds all", r"\boxed{\text{C. About \$5}}", "C"),
    ("letter, dot, a longer formula", r"\boxed{B. \frac{1}{2}}", "B"),
    ("last counts", r"\boxed{A} no, \boxed{B}", "B"),
    ("last complete counts", r"\boxed{A} no, \boxed{B", "A"),
    ("last complete counts, inner brace", r"\boxed{A} no, \boxed{\text{B}", "A"),
    ("nested: the inner one", r"\boxed{so \boxed{B}}", "B"),
    ("braces elsewhere", r"{ \frac{1}{2} } \boxed{D} } {", "D"),
    ("last is no letter", r"\boxed{A} and \boxed{27}", None),

    ("another box", r"\fbox{C}", "C"),
    ("a framed box", r"\framebox{C}", "C"),
    ("typewriter", r"\boxed{\texttt{C}}", "C"),
    ("mbox", r"\boxed{\mbox{C}}", "C"),
    ("colour", r"\boxed{\textcolor{red}{C}}", "C"),
    ("mathrm and a dot", r"\boxed{\mathrm{C}.}", "C"),
    ("quotes", r'\boxed{"C"}', "C"),
    ("space command", r"\boxed{C\quad}", "C"),
    ("letter, dash, text", r"\boxed{C - 27}", "C"),
    ("letter, text in brackets", r"\boxed{C (27)}", "C"),
    ("letter, comma, text", r"\boxed{C, 27}", "C"),
    ("option", r"\boxed{Option C}", "C"),
    ("choice and text", r"\boxed{Choice C: 27}", "C"),
    ("answer", r"\boxed{\text{Answer: C}}", "C"),
    ("the answer is", r"\boxed{The answer is (C)}", "C"),
    ("wide brackets", r"\boxed{（C）}", "C"),
    ("wide colon", r"\boxed{C：27}", "C"),
    ("an empty box behind", r"\boxed{C}, as \boxed{}", "C"),
    ("label and a species", r"\boxed{C. S. aureus}", "C"),
    ("label and initials", r"\boxed{(B) J. J. Thomson}", "B"),
    ("label and a vitamin", r"\boxed{D. Vitamin C.}", "D"),
    ("label and a group", r"\boxed{B: Group A: rare}", "B"),
    ("label and two options", r"\boxed{D. A and C.}", "D"),
    ("label and roman numbers", r"\boxed{A. I. and II.}", "A"),
    ("label, then is", r"\boxed{C. is heavier than air}", "C"),
    ("brackets, then is", r"\boxed{(C) is an acid}", "C"),
    ("a species alone", r"\boxed{C. difficile}", None),
    ("a person alone", r"\boxed{B. Pascal}", None),
    ("labels in a row", r"\boxed{A)B)}", None),
    ("labels and a slash", r"\boxed{A)/B)}", None),
    ("small labels in a row", r"\boxed{a) b)}", None),
    ("labels over two lines", r"\boxed{A)\\B)}", None),
    ("three letters", r"\boxed{A, B, C}", None),
    ("a letter called wrong", r"\boxed{C is wrong}", None),
    ("thoughts without an end", r"<think>\boxed{C}, no", None),
    ("thoughts and no box behind", r"<think>\boxed{C}?</think> It is D.", None),
    ("thoughts and a box behind", r"<think>\boxed{C}?</think> \boxed{D}", "D"),
    ("thoughts that began in the prompt", r"\boxed{C}?</think> \boxed{D}", "D"),

    ("no box", "The answer is C", None),
    ("nothing", "", None),
    ("empty box", r"\boxed{}", None),
    ("space only", r"\boxed{ }", None),
    ("unclosed", r"\boxed{C", None),
    ("no braces", r"\boxed C", None),
    ("another command", r"\boxedx{C}", None),
    ("a word", r"\boxed{Because the sum is 27}", None),
    ("a word in text", r"\boxed{\text{Because}}", None),
    ("a letter and a word", r"\boxed{A cat}", None),
    ("an abbreviation", r"\boxed{a.k.a. Bob}", None),
    ("two letters", r"\boxed{AB}", None),
    ("two letters, listed", r"\boxed{A, B}", None),
    ("two letters, and", r"\boxed{A and B}", None),
    ("two letters in brackets", r"\boxed{(A)(B)}", None),
    ("two letters, or", r"\boxed{(A) or (B)}", None),
    ("two labels", r"\boxed{A. B. C}", None),
    ("two letters behind a colon", r"\boxed{A: or B}", None),
    ("a letter ruled out", r"\boxed{(C) is wrong}", None),
    ("label and text with and in it", r"\boxed{C. salt and water}", "C"),
    ("a formula", r"\boxed{A = 3}", None),
    ("an index", r"\boxed{\text{C}_2}", None),
    ("a fraction", r"\boxed{\frac{A}{B}}", None),
    ("a number", r"\boxed{27}", None),
    ("another alphabet: Cyrillic", r"\boxed{С}", None),
    ("fifth of four choices", r"\boxed{E}", None),
    ("last letter", r"\boxed{Z}", None),
]

# name, text, content
BOXES = [
    ("number", r"\boxed{42}", "42"),
    ("nested braces", r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    ("escaped braces are no braces", r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    ("one escaped brace", r"\boxed{\{}", r"\{"),
    ("a row of a matrix ends before a brace", r"\boxed{a\\{b}}", r"a\\{b}"),
    ("last complete", r"\boxed{1} \boxed{2} \boxed{3", "2"),
    ("closing braces before it", r"}}} \boxed{1}", "1"),
    ("open braces before it", r"{{{ \boxed{1}", "1"),
    ("an unclosed box before it", r"\boxed{1 and \boxed{2}", "2"),
    ("empty", r"\boxed{}", ""),
    ("none", "42", None),
]


def named(rows):
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


@pytest.mark.parametrize("text, letter", named(LETTERS))
def test_letter(text, letter):
    assert extract_answer(text, 4) == letter


@pytest.mark.parametrize("text, content", named(BOXES))
def test_box(text, content):
    assert last_boxed(text) == content


SPECIES = ["C. botulinum", "E. coli", "S. aureus", "B. subtilis"]
BLOOD = ["A", "B", "AB", "O"]
NUMBERS = ["14", "27", "12 cm", "27 cm"]
# text in the box, choices, letter
TOLD_BY_TEXT = [
    ("C. botulinum", SPECIES, "A"), ("E. coli", SPECIES, "B"), ("e. coli", SPECIES, "B"),
    (r"\textit{S. aureus}", SPECIES, "C"), ("A. C. botulinum", SPECIES, "A"),
    ("B. E. coli", SPECIES, "B"), ("D", SPECIES, "D"), ("C. difficile", SPECIES, None),
    ("AB", BLOOD, "C"), ("O", BLOOD, "D"), ("B", BLOOD, "B"), ("C. AB", BLOOD, "C"),
    ("27", NUMBERS, "B"), ("$27$.", NUMBERS, "B"), (r"27\text{ cm}", NUMBERS, "D"),
    ("27 cm", NUMBERS, "D"), ("B. 14", NUMBERS, "B"), ("28", NUMBERS, None),
    ("paris", ["Paris", "PARIS"], None), ("Paris", ["Paris", "PARIS"], "A"),
    ("B. Paris", ["Rome", "Paris, France"], "B"), ("B. Paris", ["Paris", "Rome"], None),
]


@pytest.mark.parametrize("box, choices, letter", TOLD_BY_TEXT)
def test_a_box_that_holds_an_options_text_means_that_option(box, choices, letter):
    assert extract_answer(rf"\boxed{{{box}}}", len(choices), choices) == letter


def test_rewards_and_the_log_read_the_option_texts():
    question = Question("Which?", SPECIES, "C. botulinum")
    assert solver.given_answer(question, r"\boxed{C. botulinum}") == "A"


HOSTILE = ["{", "}", "\\boxed{", "\\boxed{A}", "\\boxed{{", "\\\\", "<think>", "a "]


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
def test_ten_megabytes_cost_little_memory_and_time(piece):
    text = piece * (10_000_000 // len(piece))
    start = time.perf_counter()
    tracemalloc.start()
    extract_answer(text, 4, NUMBERS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    # about 1 alone on a core, traced; all of it took minutes
    assert time.perf_counter() - start < 30


def test_the_number_of_choices_decides_which_letters_exist():
    letters = [extract_answer(r"\boxed{H}", n) for n in (7, 8, 26, 30)]
    assert letters == [None, "H", "H", "H"]


FLOODS = [
    "{", "}", "\\", "$", " ",
    "\\boxed", "\\boxed{", "\\boxed{A", "\\boxed{A}", "\\boxed{\\text{", "\\text{"]


@pytest.mark.parametrize("piece", FLOODS)
def test_a_long_text_of_anything_is_read_quickly(piece):
    flood = piece * (300_000 // len(piece))
    start = time.perf_counter()
    assert extract_answer(flood, 4) in (None, "A")
    assert extract_answer(flood + r"\boxed{C}", 4) == "C"
    extract_answer(r"\boxed{C" + flood + "}", 4)
    # about 1 at most; a search that grows with the square takes many minutes
    assert time.perf_counter() - start < 10


def test_random_garbage_never_raises():
    rng = random.Random(0)
    pieces = [
        "\\boxed", "\\boxed{", "\\text{", "{", "}", "\\", "$", "(", ")", ".", ":", " ", "\n",
        "C", "a", "27", "é", "\ud800"]
    for _ in range(5000):
        text = "".join(rng.choices(pieces, k=rng.randrange(15)))
        assert extract_answer(text, 4) in (None, "A", "C")
        assert last_boxed(text) is None or last_boxed(text) in text


def test_a_box_is_found_whatever_balanced_text_it_holds():
    rng = random.Random(1)

    def balanced(depth):
        text = ""
        for _ in range(4):
            inner = "{" + balanced(depth - 1) + "}" if depth else ""
            text += rng.choice(["x", r"\{", r"\}", r"\\", "1", " ", inner])
        return text

    for _ in range(500):
        content = balanced(3)
        text = rf"first \boxed{{1}}, then \boxed{{{content}}} and \boxed{{2"
        assert last_boxed(text) == content


def test_choices_are_lettered_in_their_order():
    text = prompt_text(Question("Which {one}?", ["{x}", "b", "c", "d"], "b"))
    assert "Which {one}?\n\nA. {x}\nB. b\nC. c\nD. d\n\n" in text and r"\boxed{}" in text


def test_free_form_shows_no_letters():
    text = prompt_text(Question("2 + 2?", [], "4"))
    assert text.startswith("2 + 2?\n\n") and r"\boxed{}" in text
    assert "A." not in text and "letter" not in text


def test_the_answer_the_prompt_asks_for_is_the_one_extracted():
    question = Question("q", ["w", "x", "y", "z"], "y")
    boxed = rf"\boxed{{{question.letter}}}"
    assert extract_answer(prompt_text(question).replace(r"\boxed{}", boxed), 4) == "C"


def test_examples_in_the_docstrings():
    assert doctest.testmod(solver).failed == 0
