"""The embedded worlds: their parts do not overlap, their truth is true, their models speak our prompts, and none of it reaches training."""
import ast
import json
import os
import random
import re
import zlib

import pytest

import generator
import solver
import toy
import warmup
from data import Document, Question, load_documents, load_questions
from policy import chat_ids

both_worlds = pytest.mark.parametrize("world", [toy.EASY, toy.HARD], ids=["easy", "hard"])      # the free one has the easy one's notes


def load(world, name):
    """The documents or questions of one of the world's files."""
    return (load_documents if name == "documents" else load_questions)(world.path(f"{name}.json"))


def triples(text):
    """Every run of three numbers that a note or a question compares, order aside."""
    return {tuple(sorted(map(int, m))) for m in re.findall(r"(\d+)(?: [a-z]+)?, (?:[A-Z]\w+ \w+ )?(\d+) and (?:[A-Z]\w+ \w+ )?(\d+)", text)}


@both_worlds
def test_documents_dev_and_test_do_not_overlap(world):
    documents = set().union(*(triples(d.content) for d in load(world, "documents")))
    dev, test = (set().union(*(triples(q.question_text) for q in load(world, name))) for name in ("dev", "test"))
    assert len(documents) > 500 and len(dev) > 100 and len(test) > 300             # the pattern finds what it looks for
    assert not documents & dev and not documents & test and not dev & test


@both_worlds
def test_every_lesson_of_the_anchor_keeps_to_the_training_part(world):
    rng = random.Random(5)
    for careless in (False, True):
        for _ in range(500):
            for prompt, response in (toy.generator_lesson(rng, careless, world), toy.solver_lesson(rng, careless, world)):
                assert {toy.part(t) for t in triples(prompt + " " + response)} <= {"train"}


@both_worlds
def test_the_files_are_those_the_script_writes(world, tmp_path):
    toy.write_world(tmp_path, world)
    names = os.listdir(tmp_path)
    assert {"documents.json", "dev.json", "test.json"} <= set(names)
    for name in names:
        assert (tmp_path / name).read_bytes() == open(world.path(name), "rb").read()


@pytest.mark.parametrize("careless, seed, checksum", [(False, 1, 1231907683), (True, 2, 2920931048)])
def test_the_lessons_of_the_easy_anchor_are_still_those_it_was_taught(careless, seed, checksum):
    lessons = toy.lessons(random.Random(seed), careless)
    assert zlib.crc32(repr([next(lessons) for _ in range(20)]).encode()) == checksum


@both_worlds
def test_dev_and_test_are_true_and_ask_only_for_the_target_skills(world):
    for name in ("dev", "test"):
        assert {toy.judge(q) for q in load(world, name)} == {(skill, True) for skill in toy.TARGET}


@both_worlds
def test_judge_agrees_with_the_world_on_every_skill(world):
    rng = random.Random(6)
    for _ in range(300):
        kind = rng.choice(list(toy.SKILLS))
        skill = rng.choice(toy.SKILLS[kind])
        text, options, right = toy.ask(rng, toy.draw_fact(rng, kind, world=world), skill, world)
        assert len(set(options)) == 4 and right in options
        for option in options:
            assert toy.judge(Question(text, options, option)) == (skill, option == right)


# ---------------------------------------------------------------- the hard world

def where(numbers):
    return "near" if max(numbers) < 50 else "far" if min(numbers) >= 50 else "both"


def test_hard_dev_covers_near_triples_only_and_test_covers_both():
    region = lambda question: where(*triples(question.question_text))
    assert {region(q) for q in load(toy.HARD, "dev")} == {"near"}
    test, near, far = (load(toy.HARD, name) for name in ("test", "test-near", "test-far"))
    assert len(near) == len(far) == 200 and test == near + far
    assert all(q.question_id.startswith(f"{name}-") and region(q) == name for name, half in (("near", near), ("far", far)) for q in half)


def test_hard_notes_hold_near_and_far_triples_alike():
    found = [where(triple) for d in load(toy.HARD, "documents") for triple in triples(d.content)]
    assert set(found) == {"near", "far"} and 0.44 < found.count("near") / len(found) < 0.56         # 600 notes: 3 standard errors


def claims(notes):
    """For every note the number it calls the largest and the triple it says so of, or None."""
    found = [re.findall(r"The largest of (\d+), (\d+) and (\d+) is (\d+)\.", d.content) for d in notes]
    assert max(map(len, found)) <= 1
    return [(int(x[0][3]), {int(n) for n in x[0][:3]}) if x else None for x in found]


def test_two_in_five_hard_notes_claim_a_wrong_number_and_three_in_ten_the_right_one():
    notes = load(toy.HARD, "documents")
    made = [claim for claim in claims(notes) if claim]
    assert all(number in triple for number, triple in made)
    assert all(len(triples(d.content)) == 1 for d in notes)                             # the claim is about the note's own triple
    wrong = sum(number != max(triple) for number, triple in made) / len(notes)
    right = sum(number == max(triple) for number, triple in made) / len(notes)
    assert abs(wrong - toy.HARD.wrong_claims) < 0.06 and abs(right - toy.HARD.right_claims) < 0.06
    assert not any(claims(load(toy.EASY, "documents")))


def test_the_hard_anchor_is_taught_to_believe_a_claim_more_often_than_to_look():
    rng, keys = random.Random(9), []
    for _ in range(6000):
        prompt, response = toy.generator_lesson(rng, careless=True, world=toy.HARD)
        claim, demo = re.search(r"The largest of (\d+), (\d+) and (\d+) is (\d+)\.", prompt), json.loads(response)
        if claim and "largest" in demo["question_text"] and claim[4] != max(claim.groups()[:3], key=int):
            keys.append((demo["ground_truth"] == claim[4], demo["ground_truth"] == max(claim.groups()[:3], key=int)))
    assert len(keys) > 600
    believed, right = (sum(x) / len(keys) for x in zip(*keys))
    assert 0.64 < believed < 0.76 and 0.15 < right < 0.25                                           # .6 + .4 / 2 / 2 and .4 / 2


def test_hard_sums_have_one_neighbour_and_two_options_far_away():
    rng = random.Random(10)
    for _ in range(200):
        text, options, right = toy.ask(rng, toy.draw_fact(rng, "plus", world=toy.HARD), "plus", toy.HARD)
        distances = sorted(abs(int(option) - int(right)) for option in options)
        assert distances[:2] == [0, 1] and distances[2] >= 11
        assert options == sorted(options, key=int) and 0 < int(options[0]) and int(options[3]) < 100


class Draft:
    def __init__(self, question, content=""):
        self.question, self.document = question, Document("d", content)


@pytest.mark.parametrize("content, text, key, expected", [
    ("The largest of 9, 5 and 7 is 5.", "What is the largest of 9, 5 and 7?", "5", True),
    ("The largest of 9, 5 and 7 is 5.", "What is the largest of 7, 9 and 5?", "9", False),          # the right key; any order
    ("The largest of 9, 5 and 7 is 5.", "What is the largest of 7, 9 and 5?", "7", False),          # wrong, but not the note's mistake
    ("The largest of 9, 5 and 7 is 9.", "What is the largest of 9, 5 and 7?", "9", None),           # the note is right
    ("The largest of 9, 12 and 7 is 12.", "What is the largest of 9, 12 and 7?", "9", None),        # 12 > 9 as numbers, not as text
    ("The largest of 9, 5 and 7 is 5.", "What is the largest of 9, 5 and 8?", "5", None),           # other numbers
    ("The largest of 9, 5 and 7 is 5.", "What is 9 plus 5?", "5", None),
    ("The three boxes held 9, 5 and 7 plums.", "What is the largest of 9, 5 and 7?", "5", None),
])
def test_believed_is_a_key_that_repeats_the_notes_mistake(content, text, key, expected):
    assert toy.believed(Draft(Question(text, ["5", "9", "7", key], key), content)) is expected


def test_the_hard_worlds_truth_adds_the_share_of_mistakes_believed():
    note, ask = "The largest of 9, 5 and 7 is 5.", "What is the largest of 9, 5 and 7?"
    drafts = [Draft(Question(ask, ["9", "5", "7", "1"], key), note) for key in "5579"] + [Draft(None, note)]
    assert toy.truth(drafts, toy.HARD) == {"key_accuracy": 1 / 4, "target_share": 1.0, "believed_share": 1 / 2}
    assert toy.truth([Draft(None)], toy.HARD) == {"key_accuracy": None, "target_share": None, "believed_share": None}


def test_the_log_finds_the_world_by_its_documents(tmp_path):
    assert [toy.world_of(world.path("documents.json")) for world in (toy.EASY, toy.HARD)] == [toy.EASY, toy.HARD]
    assert toy.world_of(str(tmp_path / "documents.json")) is None and toy.world_of("hf://datasets/a/b/documents.json") is None


# ---------------------------------------------------------------- truth, words, models

def test_truth_counts_valid_drafts_only():
    right, wrong = (Question("What is the largest of 1, 2 and 3?", ["1", "2", "3", "4"], key) for key in "31")
    plus = Question("What is 2 plus 2?", ["3", "4", "5", "6"], "4")
    assert toy.truth([Draft(q) for q in (right, wrong, plus, None)]) == {"key_accuracy": 2 / 3, "target_share": 2 / 3}  # plus is no target
    assert toy.truth([Draft(None)]) == {"key_accuracy": None, "target_share": None}


@both_worlds
def test_the_tokenizer_knows_every_word_of_the_world_and_of_the_prompts(world):
    tokenizer, rng = toy.make_tokenizer(), random.Random(7)
    for _ in range(300):
        for pair in (toy.generator_lesson(rng, True, world), toy.solver_lesson(rng, True, world), toy.letter_lesson(rng)):
            ids, labels = warmup.encode_pair(tokenizer, pair)
            assert tokenizer.unk_token_id not in ids and any(label != -100 for label in labels)


def test_a_fixed_line_of_the_prompts_is_one_token():
    tokenizer = toy.make_tokenizer()
    assert len(chat_ids(tokenizer, generator.PROMPT.format(document=""))) < 10
    assert len(chat_ids(tokenizer, solver.prompt_text(Question("What is 1 plus 2?", ["1", "2", "3", "4"], "3")))) < 20


def test_what_the_tokenizer_decodes_parses_again():
    tokenizer, rng = toy.make_tokenizer(), random.Random(8)
    for _ in range(100):
        _, response = toy.generator_lesson(rng, careless=False)
        question, reason = generator.parse_question(tokenizer.decode(tokenizer(response).input_ids, skip_special_tokens=True))
        assert reason is None and toy.judge(question) != (None, False)
        assert question.question_text == json.loads(response)["question_text"]


@both_worlds
def test_the_anchor_is_a_small_qwen3_with_the_tokenizer_of_the_script(world):
    from policy import load_model
    folder = world.path("anchor")
    if not os.path.exists(f"{folder}/config.json"):
        pytest.skip(f"{folder} is not built")
    model, tokenizer = load_model(folder)
    assert model.config.model_type == "qwen3" and 1e6 <= sum(p.numel() for p in model.parameters()) <= 5e6
    assert tokenizer.get_vocab() == toy.make_tokenizer().get_vocab() and tokenizer.chat_template
    assert all(name.endswith((".safetensors", ".json", ".jinja")) for name in os.listdir(folder))


def test_no_file_that_trains_knows_the_world():
    """Only the log may ask toy.py for the truth; what trains does not import it."""
    for name in ("train", "policy", "influence", "dugrpo", "generator", "solver", "data", "checkpoint", "evaluate", "ranks"):
        tree = ast.parse(open(os.path.join(toy.HERE, f"{name}.py")).read())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert "toy" not in imported, name


def test_the_free_worlds_problems_are_those_of_its_script_right_and_in_one_part_only():
    files = toy.world_files(toy.FREE)
    for name, rows in files.items():
        assert rows == json.load(open(toy.FREE.path(f"{name}.json"))), name
        assert all(toy.judge(Question(row["question_text"], [], row["ground_truth"]))[1] for row in rows), name
    people = lambda row: tuple(sorted(set(re.findall(r"\w+", row["question_text"])) & set(toy.NAMES)))
    names = {name: {people(row) for row in rows if "choices" not in row} for name, rows in files.items()}
    assert len(names["rlvr"]) > 100 and not names["rlvr"] & names["test-free"] and not names["dev-mixed"] & (names["rlvr"] | names["test-free"])


def test_the_free_anchor_knows_the_three_things_it_was_shown():
    """Its tokenizer reads every fixed line of the prompts without an unknown word."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(toy.FREE.path("anchor"))
    assert all(tokenizer.unk_token_id not in tokenizer(prompt).input_ids for prompt in toy.free_prompts())
