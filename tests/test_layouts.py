"""The field's question files, a row of each in its native schema: read right, or one line."""
import doctest
import json
from collections import Counter

import pytest

import solver
from data import InputError, Question, Rollout
from engine import layouts
from engine.readers import load_questions
from engine.verify import Verifier

METALS = ["iron", "tin", "mercury", "lead"]
ASKED = "Which metal is liquid at 20 C?"


def load(folder, *items):
    path = folder / "file.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return load_questions(path)


def refused(folder, *items):
    """-> the line that says why."""
    with pytest.raises(InputError) as caught:
        load(folder, *items)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_doctests():
    assert doctest.testmod(layouts).failed == 0


# ---------------------------------------------------------------- choices

# Every row is a question about metals, whose key is mercury.
MULTIPLE_CHOICE = {
    "ours": dict(question_id="m", question_text=ASKED, choices=METALS, ground_truth="mercury"),
    "MMLU": dict(question=ASKED, subject="chemistry", choices=METALS, answer=2),
    "MMLU as columns": dict(
        Question=ASKED, A="iron", B="tin", C="mercury", D="lead", Answer="C", Subject="chemistry"),
    "MMLU-Pro": dict(
        question_id=70, question=ASKED, options=METALS, answer="C", answer_index=2, cot_content="",
        category="chemistry", src="ours"),
    "SuperGPQA": dict(
        uuid="a9", question=ASKED, options=METALS, answer="mercury", answer_letter="C",
        discipline="Science", field="Chemistry", subfield="Metals", difficulty="easy",
        is_calculation=False),
    "ARC": dict(
        id="Mercury_1", question=ASKED, choices=dict(text=METALS, label=["A", "B", "C", "D"]),
        answerKey="C"),
    "ARC with numbers": dict(
        id="MCAS_1", question=ASKED, choices=dict(text=METALS, label=["1", "2", "3", "4"]),
        answerKey="3"),
    "ARC as first released": dict(
        id="1", answerKey="C", question=dict(
            stem=ASKED, choices=[dict(text=t, label=x) for t, x in zip(METALS, "ABCD")])),
    "OpenBookQA": dict(
        id="8-1", question_stem=ASKED, choices=dict(text=METALS, label=["A", "B", "C", "D"]),
        answerKey="C", fact1="mercury is a liquid", humanScore=1.0, clarity=2.0,
        turkIdAnonymized="x"),
    "CommonsenseQA": dict(
        id="c1", question=ASKED, question_concept="metal", answerKey="C",
        choices=dict(label=["A", "B", "C", "D"], text=METALS)),
    "MedQA": dict(
        question=ASKED, answer="mercury", options=dict(zip("ABCD", METALS)), meta_info="step1",
        answer_idx="C", metamap_phrases=["metal"]),
    "MedQA of BigBio": dict(
        meta_info="step1", question=ASKED, answer_idx="C", answer="mercury",
        options=[dict(key=x, value=t) for x, t in zip("ABCD", METALS)]),
    "MedXpertQA": dict(
        id="Text-1", question=ASKED, options=dict(zip("ABCD", METALS)), label="C",
        medical_task="Diagnosis", body_system="Other", question_type="Reasoning"),
    "RACE": dict(
        example_id="high1.txt", article="", question=ASKED, options=METALS, answer="C"),
    "LogiQA": dict(context="", query=ASKED, options=METALS, correct_option=2),
    "LogiQA with letters": dict(label="c", context="", question=ASKED, options=METALS),
    "LogiQA 2.0": dict(
        id=3, answer=2, text="", type={"Conditional Reasoning": True}, question=ASKED,
        options=METALS),
    "AGIEval": dict(
        passage=None, question=ASKED, options=METALS, label="C", other=None, explanation=None),
    "CMMLU": {"": "0", "Question": ASKED, "A": "iron", "B": "tin", "C": "mercury", "D": "lead",
              "Answer": "C"},
    "options in numbered fields": dict(
        question=ASKED, option1="iron", option2="tin", option3="mercury", option4="lead",
        correct_option="C"),
}
# Of these only what is right and what is wrong is known.
WITHOUT_ORDER = {
    "GPQA": {
        "Pre-Revision Question": "Which metal?", "Pre-Revision Correct Answer": "Hg",
        "Pre-Revision Incorrect Answer 1": "Fe", "Question": ASKED, "Correct Answer": "mercury",
        "Incorrect Answer 1": "iron", "Incorrect Answer 2": "tin", "Incorrect Answer 3": "lead",
        "Explanation": "It melts at -39 C.", "Subdomain": "Chemistry (general)",
        "High-level domain": "Chemistry", "Record ID": "rec1", "Extra Revised Question": None},
    "SciQ": dict(
        question=ASKED, distractor3="lead", distractor1="iron", distractor2="tin",
        correct_answer="mercury", support="Mercury is a liquid at room temperature."),
    "distractors in a list": dict(
        question=ASKED, answer="mercury", distractors=["iron", "tin", "lead"]),
    "Open Trivia": dict(
        type="multiple", difficulty="easy", category="Science", question=ASKED,
        correct_answer="mercury", incorrect_answers=["iron", "tin", "lead"]),
}


@pytest.mark.parametrize("name", MULTIPLE_CHOICE)
def test_layouts_of_multiple_choice(tmp_path, name):
    question, = load(tmp_path, MULTIPLE_CHOICE[name])
    assert question.question_text == ASKED
    assert (question.choices, question.ground_truth, question.letter) == (METALS, "mercury", "C")


@pytest.mark.parametrize("name", WITHOUT_ORDER)
def test_layouts_without_an_order_of_choices_are_shuffled_always_alike(tmp_path, capsys, name):
    question, = load(tmp_path, WITHOUT_ORDER[name])
    assert question.question_text == ASKED and question.ground_truth == "mercury"
    assert sorted(question.choices) == sorted(METALS)
    assert "shuffled" in capsys.readouterr().out
    assert load(tmp_path, WITHOUT_ORDER[name]) == [question]


def test_the_key_of_shuffled_choices_is_everywhere_alike_often(tmp_path):
    rows = [dict(question=f"Question {i}", correct_answer="right", distractor1="a", distractor2="b",
                 distractor3="c") for i in range(400)]
    letters = Counter(question.letter for question in load(tmp_path, *rows))
    # 100 +- 4 standard deviations
    assert all(65 <= letters[letter] <= 135 for letter in "ABCD")


@pytest.mark.parametrize("name", ["premise", "context", "paragraph", "story", "scenario"])
def test_what_a_question_is_about_is_never_dropped(tmp_path, name):
    """COPA asks "effect", which means nothing without its premise."""
    row = {name: "The man turned on the tap.", "choice1": "The toilet filled.",
           "choice2": "Water flowed.", "question": "effect", "idx": 0, "label": 1}
    path = tmp_path / "copa.jsonl"
    path.write_text("".join(json.dumps(row | {"idx": i, "label": i}) + "\n" for i in (0, 1)))
    for question in load_questions(str(path)):
        assert question.question_text == "The man turned on the tap.\n\neffect"


def test_a_passage_stands_above_its_question(tmp_path, capsys):
    row = dict(example_id="high1.txt", article="Ann melts tin.", question="What melts?",
               options=["tin", "lead"], answer="A")
    other = row | {"question": "Who melts it?", "options": ["Bo", "Ann"], "answer": "B"}
    first, second = load(tmp_path, row, other)
    assert first.question_text == "Ann melts tin.\n\nWhat melts?"
    # RACE's id is that of the article
    assert second.ground_truth == "Ann" and first.question_id == "high1.txt"
    # so that two models are compared question by question
    assert second.question_id == "high1.txt#2"
    assert "2 of 2 questions stand below their 'article'" in capsys.readouterr().out


def test_a_list_of_one_answer_is_that_answer(tmp_path):
    """As OlympiadBench has it; of two nobody knows which is meant."""
    question, = load(tmp_path, dict(question="1 + 1 = ?", final_answer=["2"]))
    assert question.ground_truth == "2"
    with pytest.raises(InputError, match="is a list"):
        load(tmp_path, dict(question="x^2 = 4?", final_answer=["2", "-2"]))


def test_all_that_a_question_is_about_stands_above_it_and_each_text_once(tmp_path, capsys):
    row = dict(context="Ann has 3 tins.", premise="Bob takes one.", story="Ann has 3 tins.",
               question="How many?", options=["2", "3"], answer="A")
    question, = load(tmp_path, row)
    assert question.question_text.count("Ann has 3 tins.") == 1
    assert "Bob takes one." in question.question_text
    assert question.question_text.endswith("\n\nHow many?")


def test_parquet_fills_missing_letters_with_null(tmp_path):
    row = MULTIPLE_CHOICE["MedQA"]
    options = row["options"] | {"E": None}
    assert load(tmp_path, row | {"options": options})[0].choices == METALS
    assert "'options' is an object with the keys A, B, D" in refused(
        tmp_path, row | {"options": {"A": "iron", "B": "tin", "D": "lead"}})


# ---------------------------------------------------------------- an index is no text

NUMBERS = ["3", "4", "1", "6"]


def number(answer, choices=METALS, name="answer", **more):
    return {"question": f"About {answer}, {choices}", "choices": choices, name: answer} | more


INDICES = {
    "a 0 shows that the file counts from 0":
        ([number(0), number(3)], ["iron", "lead"]),
    "the number of choices shows that it counts from 1":
        ([number(1), number(4)], ["iron", "lead"]),
    "a letter beside it shows it":
        ([number("C", answer_index=2), number("D", answer_index=3)], ["mercury", "lead"]),
    "or that it counts from 1":
        ([number("C", answer_index=3)], ["mercury"]),
    "numbers as choices, where other items show an index":
        ([number(0), number(3, NUMBERS)], ["iron", "6"]),
    "numbers as choices, where other items show texts":
        ([number(90, ["90", "7"]), number(3, NUMBERS)], ["90", "3"]),
    "digits in a string are the text": ([number("3", NUMBERS)], ["3"]),
    "MMLU counts from 0":
        ([number(3, NUMBERS, subject="geometry"), number(2, subject="chemistry")],
         ["6", "mercury"]),
    "a text and its index":
        ([number("1", NUMBERS, answer_index=2)], ["1"]),
    "an index as decimal, as pandas writes it": ([number(0.0), number(3.0)], ["iron", "lead"]),
}
NOT_SHOWN = {
    "nothing shows where an index counts from": [number(2), number(3)],
    "the text of one choice and the index of another": [number(3, NUMBERS), number(2, NUMBERS)],
    "the same as strings, where others are indices": [number("0"), number("3", NUMBERS)],
    "index in a field of its own": [number(2, name="correct_index")],
    "some count from 0, some from 1": [number(0), number(4), number(2)],
    "below 0": [number(0), number(-1)],
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_is_read_where_the_file_shows_what_it_counts(tmp_path, name):
    rows, keys = INDICES[name]
    assert [question.ground_truth for question in load(tmp_path, *rows)] == keys


@pytest.mark.parametrize("name", NOT_SHOWN)
def test_an_index_is_refused_where_it_does_not(tmp_path, name):
    line = refused(tmp_path, *NOT_SHOWN[name])
    assert "index" in line or "not among the choices" in line


def test_two_fields_that_mean_different_choices_are_refused(tmp_path):
    line = refused(tmp_path, MULTIPLE_CHOICE["MedQA"] | {"answer_idx": "B"})
    assert "'answer' is 'mercury' and 'answer_idx' is 'B', which is another choice" in line
    rows = [number("A", answer_index=0), number("C", answer_index=3)]
    assert "from 0 in some items and from 1 in others" in refused(tmp_path, *rows)


def test_a_key_matches_without_case_if_one_choice_does(tmp_path):
    row = dict(question=ASKED, choices=METALS, answer="Mercury")
    assert load(tmp_path, row)[0].ground_truth == "mercury"
    assert "not among" in refused(tmp_path, row | {"choices": ["MERCURY", "mercury", "tin"]})


# ---------------------------------------------------------------- no choice is dropped

@pytest.mark.parametrize("extra", [
    {"choice_list": METALS}, {"wrong_ones": METALS}, {"mc1_targets": {"choices": METALS}},
    {"opa": "iron"}, {"distractor": 3, "optionA": "iron"}, {"answer_index": 2},
    {"correct_letter": "C"}, {"things": METALS}, {"things": dict(zip("wxyz", METALS))},
    {"options": METALS[:1]}, {"options": "iron, tin"}, {"option1": "iron", "option3": "tin"},
])
def test_what_looks_like_choices_and_is_not_understood_is_refused(tmp_path, extra):
    row = dict(question=ASKED, answer="mercury")
    assert load(tmp_path, row)[0].choices == []
    refused(tmp_path, row | extra)


@pytest.mark.parametrize("change", [
    {"A": None}, {"B": None}, {"D": ["lead"]}, {"D": ""}, {"D": float("inf")}, {"D": "tin"}])
def test_a_column_that_is_missing_or_no_text_is_refused(tmp_path, change):
    refused(tmp_path, MULTIPLE_CHOICE["MMLU as columns"] | change)


@pytest.mark.parametrize("name", ["option_list\n\x1b[2J", "options\n", "answer\r\n"])
def test_a_name_of_many_lines_makes_a_message_of_one(tmp_path, name):
    line = refused(tmp_path, {"question": "Which?", "answer": "B", "choices": 3} | {name: [1]})
    assert line.isprintable()
    assert refused(tmp_path, {"question": "Which?", name: [1]}).isprintable()


def test_a_letter_without_choices_among_items_with_choices_is_bad(tmp_path):
    rows = [number("A"), number("B"), dict(question="Which?", choices=[], answer="C")]
    assert "line 3: a letter as the answer and no choices" in refused(tmp_path, *rows)


def test_two_lists_of_choices_that_differ_are_refused(tmp_path):
    row = dict(question=ASKED, choices=METALS, options=METALS, answer="C")
    assert load(tmp_path, row)[0].ground_truth == "mercury"
    assert "both hold choices" in refused(tmp_path, row | {"options": METALS[::-1]})
    assert "not among 'choices'" in refused(tmp_path, row | {"distractors": ["gold"]})


# ---------------------------------------------------------------- free-form

PROBLEM = "Kim has 4 bags of 5 plums. How many plums?"
SOLUTION = "Each bag holds 5 plums, and there are 4 of them, so that Kim has 4 times 5 plums."
CHAT = [{"role": "user", "content": PROBLEM}]
FREE_FORM = {
    "GSM8K": dict(question=PROBLEM, answer="4 bags of 5 are 4*5=<<4*5=20>>20 plums.\n#### 20"),
    "MATH": dict(problem=PROBLEM, level="Level 1", type="Algebra",
                 solution=SOLUTION + " The answer is $\\boxed{20}$."),
    "MATH-500": dict(problem=PROBLEM, solution=SOLUTION + " $\\boxed{20}$", answer="20",
                     subject="Algebra", level=1, unique_id="test/algebra/1.json"),
    "AIME 2024": dict(id=60, problem=PROBLEM, solution=SOLUTION, answer="20", url="x", year="2024"),
    "AIME 2024, another": dict(ID="2024-I-1", Problem=PROBLEM, Solution=SOLUTION, Answer=20),
    "AIME 2024, boxed": dict(id=60, problem=PROBLEM, solution="\\boxed{20}", url="x"),
    "AIME 1983 on": {"ID": "1983-1", "Year": 1983, "Problem Number": 1, "Question": PROBLEM,
                     "Answer": "20", "Part": None},
    "TRL": dict(prompt=PROBLEM, solution="20"),
    "TRL, conversational": dict(prompt=CHAT, solution="$\\boxed{20}$"),
    "TRL, messages": dict(
        messages=[*CHAT, {"role": "assistant", "content": SOLUTION}], answer="20"),
    "NuminaMath": dict(problem=PROBLEM, solution=SOLUTION + " \\boxed{20}", source="ours",
                       messages=[*CHAT, {"role": "assistant", "content": SOLUTION}]),
    "verl": dict(
        data_source="openai/gsm8k", ability="math",
        reward_model=dict(style="rule", ground_truth="20"),
        prompt=[{"role": "user", "content": PROBLEM + " Put the answer after ####."}],
        extra_info=dict(split="train", index=0, answer=SOLUTION + "\n#### 20", question=PROBLEM)),
    "DAPO": dict(
        data_source="math_dapo", prompt=CHAT, ability="MATH",
        reward_model=dict(ground_truth="20", style="rule-lighteval/MATH_v2"),
        extra_info=dict(index="9a")),
    "a number": dict(question=PROBLEM, answer=20),
}


@pytest.mark.parametrize("name", FREE_FORM)
def test_layouts_of_free_form(tmp_path, name):
    question, = load(tmp_path, FREE_FORM[name])
    assert (question.question_text, question.choices, question.ground_truth) == (PROBLEM, [], "20")


@pytest.mark.parametrize("answer, truth", [
    ("#### 1,234", "1234"), ("a\n#### -1,000.5", "-1000.5"), ("#### (1,2)", "(1,2)"),
    ("so $\\boxed{\\frac{a}{b}}$ or rather \\boxed {\\{1, 2\\}}.", "\\{1, 2\\}"),
    (1.50, "1.5"), (-0.5, "-0.5"), (12345678901234567890, "12345678901234567890"),
])
def test_the_answer_of_a_solution(tmp_path, answer, truth):
    assert load(tmp_path, dict(question="?", answer=answer))[0].ground_truth == truth


def test_a_decimal_keeps_the_digits_it_was_written_with(tmp_path):
    (tmp_path / "n.json").write_text('[{"question": "?", "answer": 0.10000000000000000001}]')
    assert load_questions(tmp_path / "n.json")[0].ground_truth == "0.10000000000000000001"


@pytest.mark.parametrize("row, line", [
    (dict(problem=PROBLEM, solution=SOLUTION), "a solution, expected the answer alone"),
    (dict(problem=PROBLEM, answer=f"{SOLUTION}\n{SOLUTION}"), "a solution, expected the answer"),
    (dict(problem=PROBLEM, solution="so \\boxed{20"), "the last \\boxed{} is ''"),
    (dict(problem=PROBLEM, answer="so ####"), "what follows #### is ''"),
    (dict(question=PROBLEM, answer=float("nan")), "'answer' is NaN"),
    (dict(question=PROBLEM, answer=float("-inf")), "'answer' is -inf"),
    (dict(question=PROBLEM, answer="nan"), "'answer' is 'nan'"),
    (dict(prompt=CHAT * 2, answer="20"), "turns user, user, expected one user turn"),
    (dict(prompt=[*CHAT, {"role": "assistant", "content": "20"}], answer="20"), "one user turn"),
    (dict(prompt=[{"role": "system", "content": "x"}], answer="20"), "one user turn"),
    (dict(prompt=["a", "b"], answer="20"), "messages with 'role' and 'content'"),
    (dict(prompt=PROBLEM, chosen="20", rejected="21"), "missing field 'ground_truth'"),
    (dict(messages=CHAT), "missing field 'ground_truth'"),
    (dict(prompt=CHAT, ability="code", reward_model=dict(ground_truth="{}")), "for code"),
    (dict(prompt=CHAT, reward_model=dict(ground_truth='{"in": [1]}')), "expected an answer"),
    (dict(prompt=CHAT, reward_model=dict(ground_truth={"target": ["20"]})), "is an object"),
    (dict(prompt=CHAT, reward_model=dict(style="model")), "missing field 'ground_truth'"),
])
def test_a_solution_is_never_taken_for_an_answer(tmp_path, row, line):
    assert line in refused(tmp_path, row)


def test_a_number_beyond_the_largest_is_refused(tmp_path):
    (tmp_path / "n.json").write_text('[{"question": "?", "answer": 1e99999}]')
    with pytest.raises(InputError, match="'answer' is 1e99999, beyond the largest number"):
        load_questions(tmp_path / "n.json")


def test_what_was_left_out_or_is_odd_is_said(tmp_path, capsys):
    system = [{"role": "system", "content": "Be brief."}, *CHAT]
    load(tmp_path, dict(prompt=system, answer="20"))
    assert "1 of 1 questions have a system message, which is left out" in capsys.readouterr().out
    load(tmp_path, FREE_FORM["verl"])
    assert "without the instructions" in capsys.readouterr().out
    load(tmp_path, dict(question="Which is a gas? A) ice B) steam", answer="B"))
    assert "a bare letter as their answer" in capsys.readouterr().out


# ---------------------------------------------------------------- several right answers

TRIVIA = dict(
    question="Which American author ...?", question_id="tc_33", question_source="x",
    entity_pages=dict(title=[]), search_results=dict(title=[]), answer=dict(
        value="Sunset Boulevard", aliases=["Sunset Blvd", "West Sunset Boulevard"], type="Entity",
        normalized_aliases=["sunset blvd"], normalized_value="sunset boulevard",
        matched_wiki_entity_name="", normalized_matched_wiki_entity_name=""))
# as first released, an item of the list "Data"
RAW = dict(Question="Which American author ...?", QuestionId="tc_33", Answer=dict(
    Value="Sunset Boulevard", Aliases=["Sunset Blvd", "West Sunset Boulevard"], Type="Entity",
    NormalizedValue="sunset boulevard"))


@pytest.mark.parametrize("row", [TRIVIA, RAW], ids=["hub", "raw"])
def test_an_alias_is_as_right(tmp_path, row):
    question, = load(tmp_path, row)
    assert question == Question("Which American author ...?", [], "Sunset Boulevard", "tc_33",
                                ("Sunset Blvd", "West Sunset Boulevard"))
    answers = [Rollout([], [], [], True, f"So \\boxed{{{text}}}") for text in
               ("sunset boulevard", "West Sunset Boulevard", "Sunset Blvd", "Elm Street")]
    with Verifier() as verifier:
        assert solver.rewards([question], [answers], verifier).tolist() == [[1, 1, 1, 0]]


def test_an_answer_that_nobody_knows_is_refused(tmp_path):
    line = refused(tmp_path, TRIVIA | {"answer": {"value": "<unk>", "aliases": []}})
    assert "'<unk>'" in line
