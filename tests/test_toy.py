"""The embedded worlds: their parts do not overlap, their truth is true, and their models speak our
prompts, also after a word was changed. None of it reaches training."""
import json
import os
import random
import re
import shutil
import zlib

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from engine import flags
import generator
import solver
import train
import warmup
from data import Document, InputError, Question
from engine.readers import load_documents, load_questions
from engine.spelling import check_spelling
from engine.chat import chat_ids
from engine.models import load_model
from toy import make
from toy.truth import believed, judge, truth, world_of
from toy.world import (EASY, FREE, HARD, NAMES, SKILLS, TARGET, ask, draw_fact, part,
                       world_files, write_world)

# the free world has the easy one's notes
both_worlds = pytest.mark.parametrize("world", [EASY, HARD], ids=["easy", "hard"])

CLAIM = re.compile(r"The largest of (\d+), (\d+) and (\d+) is (\d+)\.")
TRIPLE = re.compile(r"(\d+)(?: [a-z]+)?, (?:[A-Z]\w+ \w+ )?(\d+) and (?:[A-Z]\w+ \w+ )?(\d+)")


def load(world, name):
    """The documents or questions of one of the world's files."""
    reader = load_documents if name == "documents" else load_questions
    return reader(world.path(f"{name}.json"))


def triples(*texts):
    """Every run of three numbers that notes or questions compare, order aside."""
    found = set()
    for text in texts:
        for numbers in TRIPLE.findall(text):
            found.add(tuple(sorted(map(int, numbers))))
    return found


@both_worlds
def test_documents_dev_and_test_do_not_overlap(world):
    documents = triples(*[d.content for d in load(world, "documents")])
    dev = triples(*[q.question_text for q in load(world, "dev")])
    test = triples(*[q.question_text for q in load(world, "test")])

    # the pattern finds what it looks for
    assert len(documents) > 500 and len(dev) > 100 and len(test) > 300
    assert not documents & dev and not documents & test and not dev & test


@both_worlds
def test_every_lesson_of_the_anchor_keeps_to_the_training_part(world):
    rng = random.Random(5)
    for i in range(1000):
        careless = i >= 500
        for lesson in (make.generator_lesson, make.solver_lesson):
            prompt, response = lesson(rng, careless, world)
            assert {part(t) for t in triples(prompt + " " + response)} <= {"train"}


@both_worlds
def test_the_files_are_those_the_script_writes(world, tmp_path):
    write_world(tmp_path, world)
    names = os.listdir(tmp_path)
    assert {"documents.json", "dev.json", "test.json"} <= set(names)
    for name in names:
        assert (tmp_path / name).read_bytes() == open(world.path(name), "rb").read()


@pytest.mark.parametrize("careless, seed, checksum", [
    (False, 1, 1231907683), (True, 2, 2920931048)])
def test_the_lessons_of_the_easy_anchor_are_still_those_it_was_taught(careless, seed, checksum):
    lessons = make.lessons(random.Random(seed), careless)
    assert zlib.crc32(repr([next(lessons) for _ in range(20)]).encode()) == checksum


@both_worlds
def test_dev_and_test_are_true_and_ask_only_for_the_target_skills(world):
    for name in ("dev", "test"):
        assert {judge(q) for q in load(world, name)} == {(skill, True) for skill in TARGET}


@both_worlds
def test_judge_agrees_with_the_world_on_every_skill(world):
    rng = random.Random(6)
    for _ in range(300):
        kind = rng.choice(list(SKILLS))
        skill = rng.choice(SKILLS[kind])
        text, choices, right = ask(rng, draw_fact(rng, kind, world=world), skill, world)
        assert len(set(choices)) == 4 and right in choices
        for choice in choices:
            assert judge(Question(text, choices, choice)) == (skill, choice == right)


# ---------------------------------------------------------------- the hard world

def where(numbers):
    return "near" if max(numbers) < 50 else "far" if min(numbers) >= 50 else "both"


def region(question):
    return where(*triples(question.question_text))


def test_hard_dev_covers_near_triples_only_and_test_covers_both():
    assert {region(q) for q in load(HARD, "dev")} == {"near"}

    near = load(HARD, "test-near")
    far = load(HARD, "test-far")
    assert len(near) == len(far) == 200 and load(HARD, "test") == near + far
    for name, half in (("near", near), ("far", far)):
        assert all(q.question_id.startswith(f"{name}-") and region(q) == name for q in half)


def test_hard_notes_hold_near_and_far_triples_alike():
    found = []
    for document in load(HARD, "documents"):
        found += [where(triple) for triple in triples(document.content)]
    # 600 notes: 3 standard errors
    assert set(found) == {"near", "far"} and 0.44 < found.count("near") / len(found) < 0.56


def claims(notes):
    """For every note the number it calls the largest and the triple it says so of, or None."""
    found = []
    for document in notes:
        made = CLAIM.findall(document.content)
        assert len(made) <= 1
        found.append((int(made[0][3]), {int(n) for n in made[0][:3]}) if made else None)
    return found


def test_two_in_five_hard_notes_claim_a_wrong_number_and_three_in_ten_the_right_one():
    notes = load(HARD, "documents")
    made = [claim for claim in claims(notes) if claim]
    assert all(number in triple for number, triple in made)
    # the claim is about the note's own triple
    assert all(len(triples(d.content)) == 1 for d in notes)

    wrong = sum(number != max(triple) for number, triple in made) / len(notes)
    right = sum(number == max(triple) for number, triple in made) / len(notes)
    assert abs(wrong - HARD.wrong_claims) < 0.06 and abs(right - HARD.right_claims) < 0.06
    assert not any(claims(load(EASY, "documents")))


def test_the_hard_anchor_is_taught_to_believe_a_claim_more_often_than_to_look():
    rng = random.Random(9)
    repeats, rights = [], []
    for _ in range(6000):
        prompt, response = make.generator_lesson(rng, careless=True, world=HARD)
        claim = CLAIM.search(prompt)
        demo = json.loads(response)
        if not claim or "largest" not in demo["question_text"]:
            continue
        largest = max(claim.groups()[:3], key=int)
        if claim[4] != largest:
            repeats.append(demo["ground_truth"] == claim[4])
            rights.append(demo["ground_truth"] == largest)

    assert len(repeats) > 600
    # .6 + .4 / 2 / 2 and .4 / 2
    assert 0.64 < sum(repeats) / len(repeats) < 0.76
    assert 0.15 < sum(rights) / len(rights) < 0.25


def test_hard_sums_have_one_neighbour_and_two_choices_far_away():
    rng = random.Random(10)
    for _ in range(200):
        fact = draw_fact(rng, "plus", world=HARD)
        text, choices, right = ask(rng, fact, "plus", HARD)
        distances = sorted(abs(int(choice) - int(right)) for choice in choices)
        assert distances[:2] == [0, 1] and distances[2] >= 11
        assert choices == sorted(choices, key=int)
        assert 0 < int(choices[0]) and int(choices[3]) < 100


class Draft:
    def __init__(self, question, content=""):
        self.question = question
        self.document = Document("d", content)


WRONG, RIGHT = "The largest of 9, 5 and 7 is 5.", "The largest of 9, 5 and 7 is 9."


@pytest.mark.parametrize("content, text, key, expected", [
    (WRONG, "What is the largest of 9, 5 and 7?", "5", True),
    # the right key; any order
    (WRONG, "What is the largest of 7, 9 and 5?", "9", False),
    # wrong, but not the note's mistake
    (WRONG, "What is the largest of 7, 9 and 5?", "7", False),
    # the note is right
    (RIGHT, "What is the largest of 9, 5 and 7?", "9", None),
    # 12 > 9 as numbers, not as text
    ("The largest of 9, 12 and 7 is 12.", "What is the largest of 9, 12 and 7?", "9", None),
    # other numbers, and other skills
    (WRONG, "What is the largest of 9, 5 and 8?", "5", None),
    (WRONG, "What is the smallest of 9, 5 and 7?", "5", None),
    (WRONG, "What is 9 plus 5?", "5", None),
    ("The three boxes held 9, 5 and 7 plums.", "What is the largest of 9, 5 and 7?", "5", None),
])
def test_believed_is_a_key_that_repeats_the_notes_mistake(content, text, key, expected):
    draft = Draft(Question(text, ["5", "9", "7", key], key), content)
    assert believed(draft) is expected


def test_the_hard_worlds_truth_adds_the_share_of_mistakes_believed():
    text = "What is the largest of 9, 5 and 7?"
    drafts = [Draft(Question(text, ["9", "5", "7", "1"], key), WRONG) for key in "5579"]
    assert truth(drafts + [Draft(None, WRONG)], HARD) == {
        "key_accuracy": 1 / 4, "target_share": 1.0, "unread_share": 0.0, "believed_share": 1 / 2}
    assert truth([Draft(None)], HARD) == {
        "key_accuracy": None, "target_share": None, "unread_share": None, "believed_share": None}


def test_the_log_finds_the_world_by_its_documents(tmp_path):
    for world in (EASY, HARD):
        assert world_of(world.path("documents.json")) == world
    for other in (str(tmp_path / "documents.json"), "hf://datasets/a/b/documents.json", None):
        assert world_of(other) is None


# ---------------------------------------------------------------- truth, words, models

def test_truth_counts_valid_drafts_only():
    text = "What is the largest of 1, 2 and 3?"
    right = Question(text, ["1", "2", "3", "4"], "3")
    wrong = Question(text, ["1", "2", "3", "4"], "1")
    # plus is no target
    plus = Question("What is 2 plus 2?", ["3", "4", "5", "6"], "4")

    # right, in words of its own
    other = Question("What is the largest after 1, 2 and 3?", ["1", "2", "3", "4"], "3")

    drafts = [Draft(question) for question in (right, wrong, plus, other, None)]
    assert truth(drafts, EASY) == {
        "key_accuracy": 2 / 4, "target_share": 2 / 4, "unread_share": 1 / 4}
    assert set(truth([Draft(None)], EASY).values()) == {None}


def test_truth_takes_the_documents_path_and_says_nothing_about_other_documents(tmp_path):
    plus = Draft(Question("What is 2 plus 2?", ["3", "4", "5", "6"], "4"))
    assert truth([plus], EASY.path("documents.json")) == truth([plus], EASY)
    assert truth([plus], HARD.path("documents.json")) == truth([plus], HARD)
    assert truth([plus], str(tmp_path)) == truth([plus], None) == {}


@pytest.mark.slow
@both_worlds
def test_the_tokenizer_knows_every_word_of_the_world_and_of_the_prompts(world):
    tokenizer = make.make_tokenizer()
    rng = random.Random(7)
    for _ in range(300):
        written = make.generator_lesson(rng, True, world)
        solved = make.solver_lesson(rng, True, world)
        for pair in (written, solved, make.letter_lesson(rng)):
            ids, labels = warmup.encode_pair(tokenizer, pair)
            assert tokenizer.unk_token_id not in ids and any(label != -100 for label in labels)


def test_a_fixed_line_of_the_prompts_is_one_token():
    tokenizer = make.make_tokenizer()
    question = Question("What is 1 plus 2?", ["1", "2", "3", "4"], "3")
    assert len(chat_ids(tokenizer, generator.PROMPT.format(document=""))) < 10
    assert len(chat_ids(tokenizer, solver.prompt_text(question))) < 20


def test_what_the_tokenizer_decodes_parses_again():
    tokenizer = make.make_tokenizer()
    rng = random.Random(8)
    for _ in range(100):
        _, response = make.generator_lesson(rng, careless=False)
        ids = tokenizer(response).input_ids
        question, reason = generator.parse_question(tokenizer.decode(ids, skip_special_tokens=True))
        assert reason is None and judge(question) != (None, False)
        assert question.question_text == json.loads(response)["question_text"]


@both_worlds
def test_the_anchor_is_a_small_qwen3_with_the_tokenizer_of_the_script(world):
    folder = world.path("anchor")
    if not os.path.exists(f"{folder}/config.json"):
        pytest.skip(f"{folder} is not built")
    model, tokenizer = load_model(folder)
    size = sum(p.numel() for p in model.parameters())
    assert model.config.model_type == "qwen3" and 1e6 <= size <= 5e6
    assert tokenizer.get_vocab() == make.make_tokenizer().get_vocab() and tokenizer.chat_template
    assert all(name.endswith((".safetensors", ".json", ".jinja")) for name in os.listdir(folder))


def people(row):
    """The names in a question."""
    return tuple(sorted(set(re.findall(r"\w+", row["question_text"])) & set(NAMES)))


def test_the_free_worlds_problems_are_those_of_its_script_right_and_in_one_part_only():
    names = {}
    for name, rows in world_files(FREE).items():
        assert rows == json.load(open(FREE.path(f"{name}.json"))), name
        for row in rows:
            assert judge(Question(row["question_text"], [], row["ground_truth"]))[1], name
        names[name] = {people(row) for row in rows if "choices" not in row}

    train_names, test_names = names["rlvr"], names["test-free"]
    assert len(train_names) > 100 and not train_names & test_names
    assert not names["dev-mixed"] & (train_names | test_names)


def test_the_free_anchor_knows_the_three_things_it_was_shown():
    """Its tokenizer reads every fixed line of the prompts without an unknown word."""
    tokenizer = AutoTokenizer.from_pretrained(FREE.path("anchor"))
    for prompt in make.free_prompts():
        assert tokenizer.unk_token_id not in tokenizer(prompt).input_ids


# ---------------------------------------------------------------- a changed prompt

@pytest.fixture
def anchors(tmp_path):
    """Copies of the easy and the free anchor: {name: folder}."""
    folders = {"easy": str(tmp_path / "easy"), "free": str(tmp_path / "free")}
    shutil.copytree(EASY.path("anchor"), folders["easy"])
    shutil.copytree(FREE.path("anchor"), folders["free"])
    return folders


def change(monkeypatch, module, name, old, new):
    """Edit a prompt as one would in its file."""
    prompt = getattr(module, name)
    assert old in prompt
    monkeypatch.setattr(module, name, prompt.replace(old, new))


def tokenizer_of(folder):
    with open(os.path.join(folder, "tokenizer.json"), "rb") as f:
        return f.read()


def prompts():
    """Both roles' prompts with nothing in them, as training checks them."""
    return {
        "generator.py": generator.prompt_text(Document("", "")),
        "solver.py": solver.prompt_text(Question("", ["", ""], ""))}


def first_drafts(folder, run):
    """The drafts and their scores of one small iteration on this anchor."""
    fields = {
        "model": folder, "documents": EASY.path("documents.json"), "dev": EASY.path("dev.json"),
        "test": "", "iterations": 1, "docs_per_step": 2, "questions_per_doc": 4,
        "answers_per_question": 2, "minibatch_rows": 16, "threads": 1, "show_every": 0,
        "device": "cpu", "run": str(run)}
    train.train(flags.from_flags({name: str(value) for name, value in fields.items() if value}))
    return (run / "questions.jsonl").read_text()


@pytest.mark.slow
def test_a_changed_word_is_named_and_respelling_gives_the_same_drafts(
        anchors, tmp_path, monkeypatch):
    before = first_drafts(anchors["easy"], tmp_path / "before")
    assert '"status": "valid"' in before
    change(monkeypatch, generator, "PROMPT", "must be hard and", "should be difficult and")
    change(monkeypatch, solver, "MULTIPLE_CHOICE", "step by step", "carefully")

    with pytest.raises(InputError) as error:
        check_spelling(AutoTokenizer.from_pretrained(anchors["easy"]), prompts())
    message = str(error.value)
    assert message.startswith("generator.py") and "'The question should be difficult" in message
    assert "python -m toy.make --respell" in message and "\n" not in message

    assert len(make.respell(anchors["easy"])) == 2
    check_spelling(AutoTokenizer.from_pretrained(anchors["easy"]), prompts())
    assert first_drafts(anchors["easy"], tmp_path / "after") == before


def test_respelling_keeps_every_other_token_and_a_second_time_does_nothing(anchors, monkeypatch):
    old = Tokenizer.from_file(f"{anchors['free']}/tokenizer.json").get_vocab()
    change(monkeypatch, generator, "PROMPT", "Give 4 to 8 options", "Write 4 to 8 choices")
    # the prompt in which questions take the document's place repeats that line
    changed = make.respell(anchors["free"])
    assert len(changed) == 2 and all("Write 4 to 8 choices" in line for line in changed)

    new = Tokenizer.from_file(f"{anchors['free']}/tokenizer.json").get_vocab()
    gone = set(old) - set(new)
    assert {old[line] for line in gone} == {new[line] for line in changed}
    assert all(new[token] == i for token, i in old.items() if token not in gone)

    after = tokenizer_of(anchors["free"])
    assert make.respell(anchors["free"]) == [] and tokenizer_of(anchors["free"]) == after


def test_respelling_back_gives_the_shipped_file(anchors, monkeypatch):
    with monkeypatch.context() as edited:
        change(edited, generator, "PROMPT", "Document:", "Text:")
        assert make.respell(anchors["easy"]) == ["Text:"]
        assert tokenizer_of(anchors["easy"]) != tokenizer_of(EASY.path("anchor"))
    assert make.respell(anchors["easy"]) == ["Document:"]
    assert tokenizer_of(anchors["easy"]) == tokenizer_of(EASY.path("anchor"))


@pytest.mark.parametrize("name, old, new, reason", [
    # a line more, a line less, two in another order, a word beside what goes in
    ("easy", "Document:", "Be kind.\nDocument:", "the anchor must be rebuilt"),
    ("easy", "Document:\n", "", "the anchor must be rebuilt"),
    ("easy", "about it.\n\nDocument:", "\n\nDocument:\nabout it.", "the anchor must be rebuilt"),
    ("easy", "{document}", "Note: {document}", "the anchor must be rebuilt"),
    # a word of the notes
    ("easy", "Document:", "box", "too short"),
    # FREE_FORM keeps its line "Document:"
    ("free", "Document:", "Text:", "the anchor must be rebuilt"),
])
def test_a_prompt_that_is_more_than_respelled_is_refused(
        anchors, monkeypatch, name, old, new, reason):
    before = tokenizer_of(anchors[name])
    change(monkeypatch, generator, "PROMPT", old, new)
    with pytest.raises(InputError, match=reason):
        make.respell(anchors[name])
    assert tokenizer_of(anchors[name]) == before


def test_two_lines_that_changed_places_are_refused(anchors, monkeypatch):
    first, second, *_ = generator.PROMPT.split("\n\n")
    change(monkeypatch, generator, "PROMPT", first, "HERE")
    change(monkeypatch, generator, "PROMPT", "Document:", first)
    change(monkeypatch, generator, "PROMPT", "HERE", "Document:")
    with pytest.raises(InputError, match="the anchor must be rebuilt"):
        make.respell(anchors["easy"])


def test_the_command_respells_what_it_can_and_names_what_it_cannot(anchors, monkeypatch, capsys):
    make.main(["--respell", anchors["easy"]])
    assert "No line of the prompts has changed" in capsys.readouterr().out

    change(monkeypatch, generator, "PROMPT", "Document:", "Text:")
    with pytest.raises(InputError) as error:
        make.main(["--respell", anchors["free"], anchors["easy"], "no/such/folder"])
    assert f"{anchors['easy']}: lines respelled: 1" in capsys.readouterr().out
    assert anchors["free"] in str(error.value) and "no/such/folder: no tok" in str(error.value)
    assert anchors["easy"] not in str(error.value)
