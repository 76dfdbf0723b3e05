"""What is repaired in a draft, what is not, and that nothing else changes: kinds of slips with
their neighbours, then json.loads as the oracle for drafts without slips.
"""
import doctest
import json
import random
import time
import tracemalloc

import pytest

from data import Draft, Question
from engine import drafts, options
from engine.drafts import REPAIRS, as_string
from engine.metrics import about_repairs
from engine.options import find_key, order_matters, strip_labels
from generator import parse_draft, parse_question

FOUR = ["27", "31", "9", "12"]
GOOD = ('{"question_text": "What is left?", "choices": ["27", "31", "9", "12"], '
        '"ground_truth": "31"}')
QUESTION = Question("What is left?", FOUR, "31")


def read(text, question_type="multiple_choice", rng=None):
    """-> (question, reason, names of what was repaired, each once)."""
    question, reason, slips = parse_draft(text, rng, 4, 8, question_type)
    return question, reason, sorted(set(slips))


def with_text(text, key="31", choices='"27", "31", "9", "12"'):
    return f'{{"question_text": "{text}", "choices": [{choices}], "ground_truth": "{key}"}}'


# ---------------------------------------------------------------- small slips


SLIPS = [
    ("trailing_comma", GOOD.replace('"12"]', '"12",]')),
    ("trailing_comma", GOOD.replace('"31"}', '"31" , }')),
    ("missing_brace", GOOD[:-1]),
    ("missing_brace", f"```json\n{GOOD[:-1]}\n```\n"),
    ("quotes", GOOD.replace('"', "'")),
    ("quotes", "{“question_text”: “What is left?”, " + GOOD[34:]),
    ("bare_name", GOOD.replace('"question_text"', "question_text")),
    ("python_word", GOOD[:-1] + ', "note": None, "checked": True}'),
    ("number", GOOD.replace('["27", "31", "9", "12"]', "[27, 31, 9, 12]")),
    ("number", GOOD.replace('"27"', "27").replace('"ground_truth": "31"', '"ground_truth": 31')),
    ("lettered", GOOD.replace(
        '["27", "31", "9", "12"]', '{"A": "27", "B": "31", "C": "9", "D": "12"}')),
    ("lettered", GOOD.replace(
        '["27", "31", "9", "12"]', '{"b)": "31", "a)": "27", "c)": "9", "d)": "12"}')),
    ("lettered", GOOD.replace(
        '["27", "31", "9", "12"]', '[{"A": "27"}, {"B": "31"}, {"C": "9"}, {"D": "12"}]')),
    ("lettered", GOOD.replace('["27", "31", "9", "12"]', json.dumps(
        [{"label": letter, "text": text} for letter, text in zip("ABCD", FOUR)]))),
    ("other_name", GOOD.replace("question_text", "question").replace("choices", "options")
     .replace("ground_truth", "answer")),
]


@pytest.mark.parametrize("name, text", SLIPS)
def test_a_small_slip_is_repaired_and_named(name, text):
    assert read(text) == (QUESTION, None, [name])
    assert read(f"Let me think.\n{text}")[0] == QUESTION


def test_every_repair_has_a_test_and_a_good_draft_needs_none():
    assert {name for name, _ in SLIPS} | {"latex"} == set(REPAIRS)
    for text in (GOOD, f"```json\n{GOOD}\n```", f"So: {GOOD} That is hard."):
        assert read(text) == (QUESTION, None, [])


def test_slips_add_up():
    text = "{question_text: 'What\\'s left?', 'choices': [27, 31, 9, 12,], 'ground_truth': '31'"
    assert read(text) == (
        Question("What's left?", FOUR, "31"), None,
        ["bare_name", "missing_brace", "number", "quotes", "trailing_comma"])


@pytest.mark.parametrize("text, reason", [
    # the last value may have been longer
    (GOOD[:-2], "truncated"),
    (GOOD.replace('"31"}', "31"), "truncated"),
    (GOOD.replace('"31"}', "None"), "truncated"),
    # more was to come
    (GOOD[:-1] + ",", "truncated"),
    ('{"question_text": "What is left?", "choices": ["27", "31", "9", "12"]', "truncated"),
    ('{"ground_truth": "31", "question_text": "q", "choices": ["27", "31", "9", "12"', "truncated"),
    # a brace is missing, and text follows
    (GOOD[:-1] + " This is hard.", "bad_json"),
    # one string or two? text or a name?
    (GOOD.replace(", ", " "), "bad_json"),
    (GOOD.replace("left", '"left"'), "bad_json"),
    (GOOD.replace('"31"}', "B}"), "bad_json"),
    ("{'question_text': 'The dogs' tails', 'choices': ['1', '2', '3', '4'], 'ground_truth': '1'}",
     "bad_json"),
    (GOOD.replace('"27"', '"27" "28"').replace('"', "'"), "bad_json"),
    (GOOD.replace('"27"', "1 000"), "bad_json"),
    (GOOD.replace('"27",', '"27",,'), "bad_json"),
    # a place, counted from 0 or from 1?
    (GOOD.replace('"ground_truth": "31"', '"ground_truth": 1'), "answer_not_in_choices"),
    (GOOD.replace('"27"', "null"), "wrong_type"),
    (GOOD.replace('"27"', '{"label": ["A"], "text": "1"}'), "wrong_type"),
    (GOOD.replace('["27", "31", "9", "12"]', '[{"label": ["A"], "text": "31"}]'), "wrong_type"),
    (GOOD.replace('"27"', "true"), "wrong_type"),
    (GOOD.replace('["27", "31", "9", "12"]', '{"A": "27", "C": "31", "D": "9", "E": "12"}'),
     "wrong_type"),
    (GOOD.replace('["27", "31", "9", "12"]', '{"A": "27", "a": "31", "B": "9", "C": "12"}'),
     "wrong_type"),
    (GOOD.replace('["27", "31", "9", "12"]', '"A) 27 B) 31 C) 9 D) 12"'), "wrong_type"),
])
def test_what_has_two_readings_is_refused(text, reason):
    assert read(text)[:2] == (None, reason)


def test_numbers_stay_as_they_were_written():
    text = GOOD.replace('["27", "31", "9", "12"]', "[1.50, 2e3, -4, 0.1]").replace('"31"', "1.50")
    assert read(text)[0] == Question("What is left?", ["1.50", "2e3", "-4", "0.1"], "1.50")


def test_a_question_is_no_number():
    assert read(GOOD.replace('"What is left?"', "12"))[1] == "wrong_type"


def test_the_options_of_a_letter_map_go_by_their_letters_and_the_key_may_be_one():
    text = GOOD.replace('["27", "31", "9", "12"]', '{"A": 27, "B": 31, "C": 9, "D": 12}')
    assert read(text.replace('"ground_truth": "31"', '"ground_truth": "B"'))[0] == QUESTION


# ---------------------------------------------------------------- LaTeX


LATEX = [  # as written between the quotes of JSON, as it was meant
    (r"\frac{1}{2} \binom{n}{k} \beta \forall", r"\frac{1}{2} \binom{n}{k} \beta \forall"),
    (r"\theta \times \text{m} \tan x \to \tau", r"\theta \times \text{m} \tan x \to \tau"),
    (r"\neq \nu_1 \nabla f \notin S \ne 0 \neg p", r"\neq \nu_1 \nabla f \notin S \ne 0 \neg p"),
    (r"\rho \right) \rangle \rm{kg} \rceil", r"\rho \right) \rangle \rm{kg} \rceil"),
    (r"\underline{a} \upsilon \uparrow \u00e9", r"\underline{a} \upsilon \uparrow é"),
    (r"\sqrt{2} \alpha \(x\) \[y\] \, \% \{1\}", r"\sqrt{2} \alpha \(x\) \[y\] \, \% \{1\}"),
    # an escaped backslash, then an apostrophe
    (r"a\\'b", r"a\'b"),
    # as it should be
    (r"\\frac{1}{2} \\theta \\nu", r"\frac{1}{2} \theta \nu"),
    (r"\\theta and \theta", r"\theta and \theta"),
    # line breaks, tabs and carriage returns that are none of it
    (r"Given:\nNow what?\nnot so\nIf\n2", "Given:\nNow what?\nnot so\nIf\n2"),
    (r"a\n\nnu is 3\nbut \nu is 4", "a\n\nnu is 3\nbut \\nu is 4"),
    (r"Which?\ni) one\nii) two\niii) three", "Which?\ni) one\nii) two\niii) three"),
    (r"a. one\nb. two\nc. three\nd. four\ne. five", "a. one\nb. two\nc. three\nd. four\ne. five"),
    (r"x\ty\t1\tName\t\"q\"", "x\ty\t1\tName\t\"q\""),
    (r"one\r\ntwo\rThree", "one\r\ntwo\rThree"),
    (r"a\/b \"c\" \\ d", r'a/b "c" \ d'),
    # a form feed before anything but a letter is JSON's
    (r"a\f1\b 2", "a\f1\b 2"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \\\\ 5 \end{pmatrix}",
     r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \\\\ 5 \end{pmatrix}"),
    (r"\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"What\'s f\'(x) at Poincar\'e", r"What's f'(x) at Poincar\'e"),
]


@pytest.mark.parametrize("written, meant", LATEX)
def test_a_backslash_means_what_it_has_to_mean(written, meant):
    question, reason, _ = read(with_text(f"Q {written} ."))
    assert reason is None and question.question_text == f"Q {meant} ."


WITHOUT_QUOTES = [pair for pair in LATEX if not set("'\"") & set(pair[1])]


@pytest.mark.parametrize("written, meant", WITHOUT_QUOTES)
def test_it_means_the_same_in_single_quotes(written, meant):
    single = with_text(f"Q {written} .").replace('"', "'")
    assert read(single)[0].question_text == f"Q {meant} ."


def test_latex_is_read_alike_in_question_options_and_key():
    options_ = r'"$\frac{1}{4}$", "$\\frac{1}{2}$", "$\theta$", "$\neq$"'
    for key in (r"$\frac{1}{4}$", r"$\\frac{1}{4}$"):
        question, _, slips = read(with_text(r"\nu?", key, options_))
        assert question == Question(
            r"\nu?", [r"$\frac{1}{4}$", r"$\frac{1}{2}$", r"$\theta$", r"$\neq$"], r"$\frac{1}{4}$")
        assert slips == ["latex"]


def test_a_draft_that_escapes_as_it_should_is_not_counted():
    assert read(with_text(r"\\frac{1}{2}\nis \\theta \"so\""))[2] == []


@pytest.mark.parametrize("command", (
    "tan tau textit tfrac top triangle therefore nu neq notin nmid nexists newline nsubseteq rho "
    "right rfloor rangle begin beta boxed frac forall underbrace unit sin log").split())
def test_a_command_keeps_its_backslash(command):
    assert json.loads(as_string(f'"\\{command} x"')[0]) == f"\\{command} x"


@pytest.mark.parametrize("control, letter, word", [
    ("\t", "t", "anks"), ("\t", "t", "hetas"), ("\n", "n", "otice"), ("\n", "n", "eqs"),
    ("\r", "r", "hombus"), ("\n", "n", "umber")])
def test_a_word_that_only_begins_like_a_command_is_a_word(control, letter, word):
    assert json.loads(as_string(f'"\\{letter}{word}"')[0], strict=False) == control + word


# ---------------------------------------------------------------- labels, initials, key


@pytest.mark.parametrize("written, key, choices, index", [
    (["A. thaliana", "B. subtilis", "C. elegans", "D. melanogaster"], "C. elegans", None, 2),
    (["A. Einstein", "B. Russell", "C. Darwin", "D. Hilbert"], "C. Darwin", None, 2),
    (["A. Einstein", "B. Russell", "C. Darwin", "D. Hilbert"], "c. darwin.", None, 2),
    (["A. thaliana", "B. subtilis", "C. elegans", "D. melanogaster"], "C", None, 2),
    (["A. Conan Doyle", "B. van der Waals", "C. Doppler", "D. Hume"], "B. van der Waals", None, 1),
    (["C. elegans", "E. coli", "S. cerevisiae", "M. musculus"], "E. coli", None, 1),
    (["A. Paris", "B. Rome", "C. Oslo", "D. Bonn"], "Rome", ["Paris", "Rome", "Oslo", "Bonn"], 1),
    (["A. Paris", "B. Rome", "C. Oslo", "D. Bonn"], "B", ["Paris", "Rome", "Oslo", "Bonn"], 1),
    (["A) Einstein", "B) Russell", "C) Darwin", "D) Hilbert"], "C) Darwin",
     ["Einstein", "Russell", "Darwin", "Hilbert"], 2),
    (["(A) x", "(B) y", "(C) z", "(D) w"], "(D)", ["x", "y", "z", "w"], 3),
    (["A: x", "B: y", "C: z", "D: w"], "D: w", ["x", "y", "z", "w"], 3),
    (["A. 27", "B. 31", "C. 9", "D. 12"], "B. 31", FOUR, 1),
    (["A. It rusts when it is wet", "B. It melts", "C. It sings", "D. It burns"], "B. It melts",
     ["It rusts when it is wet", "It melts", "It sings", "It burns"], 1),
    (["A) 1", "B) 2", "C) 3", "4"], "A) 1", None, 0),
    (["B) 1", "A) 2", "C) 3", "D) 4"], "B) 1", None, 0),
])
def test_labels_go_and_initials_stay(written, key, choices, index):
    stripped = strip_labels(written, key)
    assert stripped == (choices or written)
    assert find_key(key, written, stripped) == index


@pytest.mark.parametrize("key, index", [
    ("Iron", 0), ("iron", 0), ("IRON", 0), ("Iron.", 0), ("zinc", 1), ("Zinc.", 1),
    ("B", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("B)", 1), ("Option B", 1), ("option (b)", 1),
    ("Choice C", 2), ("Answer: D", 3), ("The correct answer is B", 1),
    ("The answer is option C", 2),
    ("B. Zinc", 1), ("Option B: zinc", 1), ("B. Iron", None), ("E", None), ("Option E", None),
    ("B or C", None), ("gold", None), ("", None), ("Option", None), ("no", None)])
def test_a_key_is_a_text_first_then_a_letter(key, index):
    metals = ["Iron", "Zinc", "NO", "No"]
    assert find_key(key, metals, metals) == index


@pytest.mark.parametrize("choices, key, index", [
    (["A", "C", "B", "D"], "C", 1), (["A", "C", "B", "D"], "c", 1), (["X", "x", "Y", "y"], "x", 1),
    (["XY", "xy", "Z", "z"], "Xy", None), (["15.", "16.", "17.", "18."], "15", 0)])
def test_without_case_only_if_one_option_is_meant(choices, key, index):
    assert find_key(key, choices, choices) == index


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("option", [
    "Both A and B", "A and C", "A, B and C", "A, B, and D only", "both (a) and (b)", "Only A",
    "A only", "B but not C", "Neither A nor B", "A & B", "A or D", "All except C",
    "All of the above", "None of the above", "all the above", "Any of the above", "All of these",
    "None of these options", "Both of the above", "More than one of the above", "None of the other "
    "options", "Neither", "Both", "The first two options", "the above are all wrong",
    "Either A or B", "choice B", "Options A and B"])
def test_options_that_name_others_keep_the_order_as_written(option):
    choices = ["tin", "zinc", "sulfur", option]
    assert order_matters(choices)
    text = json.dumps({"question_text": "q", "choices": choices, "ground_truth": option})
    assert all(parse_question(text, random.Random(seed))[0].choices == choices for seed in range(9))


@pytest.mark.parametrize("option", [
    "vitamin A", "A cat", "above 30 degrees", "They repel each other", "both sides", "one step",
    "iron and zinc", "all animals", "Type AB", r"$A \cap B$", "only a few",
    "the first law", "nothing"])
def test_other_options_are_shuffled(option):
    assert not order_matters(["tin", "zinc", "sulfur", option])


def test_options_with_initials_that_run_like_labels_keep_their_places():
    names = ["A. Einstein", "B. Russell", "C. Darwin", "D. Hilbert"]
    text = json.dumps({"question_text": "q", "choices": names, "ground_truth": "C. Darwin"})
    assert parse_question(text, random.Random(1))[0].choices == names


# ---------------------------------------------------------------- the longer object


LONGER = json.dumps({
    "material": "rust", "quotes": ["Iron rusts."], "steps": ["wet", "air", "so"],
    "first_version": {"question_text": "Draft?", "choices": ["1", "2", "3", "4"],
                      "ground_truth": "1"},
    "mistakes": [{"27": "sign"}, {"9": "unit"}], "self_test": "I find 31, {as} meant.",
    **json.loads(GOOD)})
GIVES_UP = '{"material": "", "question_text": "", "choices": [], "ground_truth": ""}'


def test_the_question_is_found_among_other_fields_and_not_in_them():
    assert read(LONGER) == (QUESTION, None, [])
    assert read(LONGER[:-1])[::2] == (QUESTION, ["missing_brace"])


@pytest.mark.parametrize("text", [
    GIVES_UP, GIVES_UP.replace("[]", '["", " "]'), GIVES_UP.replace('"choices": [], ', ""),
    GIVES_UP.replace('""', "null"), "No material.\n" + GIVES_UP + "\nSorry."])
def test_giving_up_is_a_reason_of_its_own(text):
    assert read(text)[:2] == (None, "abstained")
    assert read(text, "free_form")[:2] == (None, "abstained")


def test_an_object_that_breaks_before_its_first_field_was_meant_as_a_question():
    assert read(LONGER.replace('"rust", ', '"rust" '))[1] in (None, "bad_json")
    assert read('{"material": "rust" "quotes": [], "question_text": "q"')[1] == "bad_json"
    assert read('{"material": "rust" "quotes": []}')[1] == "no_json"
    assert read('The field "choices": {a} or {b}')[1] == "no_json"


def test_the_last_word_counts():
    assert read(GOOD + GIVES_UP)[:2] == (None, "abstained")
    assert read(GIVES_UP + GOOD)[0] == QUESTION
    assert read(GIVES_UP + '{"question_text": "x"}')[1] == "missing_field"


def test_an_empty_question_with_options_is_no_giving_up():
    assert read(GOOD.replace("What is left?", ""))[1] == "empty_question"


def test_a_free_form_draft_is_repaired_too():
    text = "{'question_text': '2 + 2?', 'ground_truth': 4,}"
    assert read(text, "free_form") == (
        Question("2 + 2?", [], "4"), None, ["number", "quotes", "trailing_comma"])


def test_the_share_of_repaired_questions_counts_a_question_once():
    texts = [GOOD, GOOD.replace('"12"]', '"12",]').replace('"31"}', '"31",}'), GOOD[:-1], "nothing"]
    found = []
    for text in texts:
        question, reason, slips = parse_draft(text, None, 4, 8, "multiple_choice")
        found.append(Draft(None, None, question, reason, slips))
    valid = [draft for draft in found if draft.question]
    assert about_repairs(valid) == {
        "repaired_share": pytest.approx(2 / 3),
        "repairs": {"trailing_comma": 1, "missing_brace": 1}}
    assert about_repairs([]) == {"repaired_share": None, "repairs": {}}


# ---------------------------------------------------------------- nothing else, and not for long


def test_without_slips_everything_is_read_as_json_reads_it():
    rng = random.Random(3)

    def value(depth):
        kind = rng.randrange(6 if depth else 4)
        if kind == 0:
            return rng.choice([None, True, False])
        if kind < 4:
            return "".join(rng.choices('ab{}[]":,\'“” \n\t\\éπ', k=rng.randrange(8)))
        if kind == 4:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {f"k{value(0)}": value(depth - 1) for _ in range(rng.randrange(4))}

    for _ in range(2000):
        written = {"choices": value(4), "x": value(4)}
        text = json.dumps(written, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1]))
        # a control character that JSON escapes before a letter looks like LaTeX
        if "\\n" in text or "\\t" in text:
            continue
        found = list(drafts.objects("So: " + text + " ."))
        assert [(x.fields, x.slips) for x in found] == [(written, [])]


HOSTILE = ['{"question_text":', '{"choices":[],', '{"question_text":{"a":[],', '{"question_text":"',
           "{question_text:'x'x", '{"a":{"a":{"a":{"a":{"a":{"a":{"choices":1,', '{"choices":“',
           "{'choices':'a\\'", '{"choices":["\\frac",', "{", "\\", "'", '{"choices": "\\begin\\\\']


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
def test_ten_megabytes_of_anything_take_seconds(piece):
    """At worst 3 seconds of one core, whatever the text: only its end is read."""
    flood = piece * (10_000_000 // len(piece))
    start = time.process_time()
    assert parse_question(flood)[0] is None
    assert time.process_time() - start < 10
    assert parse_question(flood + GOOD)[0] == QUESTION or piece.count('"') % 2


@pytest.mark.slow
def test_ten_megabytes_take_little_memory():
    flood = '{"choices":[],' * 700_000
    tracemalloc.start()
    parse_question(flood)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_the_time_grows_with_the_text_and_not_with_its_square():
    """Per character a text of 40 times the length may cost 4 times as much, on a busy machine."""
    def seconds(n):
        flood = '{"choices":[{"a":[' * n
        start = time.process_time()
        parse_question(flood)
        return (time.process_time() - start) / n

    seconds(100)
    assert seconds(8000) < 4 * min(seconds(200) for _ in range(3))


def test_examples_in_the_docstrings():
    assert doctest.testmod(drafts).failed == doctest.testmod(options).failed == 0
