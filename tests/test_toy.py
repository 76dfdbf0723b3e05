"""The embedded world: its parts do not overlap, its truth is true, its model speaks the project's prompts, and none of it reaches training."""
import ast
import json
import os
import random
import re

import pytest

import generator
import solver
import toy
import warmup
from data import Question, load_documents, load_questions
from policy import chat_ids

FOLDER = os.path.join(toy.HERE, "toy")
needs_anchor = pytest.mark.skipif(not os.path.exists(f"{FOLDER}/anchor/config.json"), reason="toy/anchor is not built")


def triples(text):
    """Every run of three numbers that a note or a question compares, order aside."""
    return {tuple(sorted(map(int, m))) for m in re.findall(r"(\d+)(?: \w+)?, (?:\w+ \w+ )?(\d+) and (?:\w+ \w+ )?(\d+)", text)}


def test_documents_dev_and_test_do_not_overlap():
    documents = set().union(*(triples(d.content) for d in load_documents(f"{FOLDER}/documents.json")))
    dev, test = (set().union(*(triples(q.question_text) for q in load_questions(f"{FOLDER}/{name}.json"))) for name in ("dev", "test"))
    assert len(documents) > 500 and len(dev) > 100 and len(test) > 300             # the pattern finds what it looks for
    assert not documents & dev and not documents & test and not dev & test


def test_every_lesson_of_the_anchor_keeps_to_the_training_part():
    rng = random.Random(5)
    for careless in (False, True):
        for _ in range(500):
            for prompt, response in (toy.generator_lesson(rng, careless), toy.solver_lesson(rng, careless)):
                assert {toy.part(t) for t in triples(prompt + " " + response)} <= {"train"}


def test_the_files_are_those_the_script_writes(tmp_path):
    toy.write_world(tmp_path)
    for name in ("documents", "dev", "test"):
        assert (tmp_path / f"{name}.json").read_text() == open(f"{FOLDER}/{name}.json").read()


def test_dev_and_test_are_true_and_ask_only_for_the_target_skills():
    for name in ("dev", "test"):
        assert {toy.judge(q) for q in load_questions(f"{FOLDER}/{name}.json")} == {(skill, True) for skill in toy.TARGET}


def test_judge_agrees_with_the_world_on_every_skill():
    rng = random.Random(6)
    for _ in range(300):
        kind = rng.choice(list(toy.SKILLS))
        skill = rng.choice(toy.SKILLS[kind])
        text, options, right = toy.ask(rng, toy.draw_fact(rng, kind), skill)
        assert len(set(options)) == 4 and right in options
        for option in options:
            assert toy.judge(Question(text, options, option)) == (skill, option == right)


def test_truth_counts_valid_drafts_only():
    class Draft:
        def __init__(self, question):
            self.question = question
    right, wrong = (Question("What is the largest of 1, 2 and 3?", ["1", "2", "3", "4"], key) for key in "31")
    plus = Question("What is 2 plus 2?", ["3", "4", "5", "6"], "4")
    assert toy.truth([Draft(q) for q in (right, wrong, plus, None)]) == {"key_accuracy": 2 / 3, "target_share": 2 / 3}      # plus is no target
    assert toy.truth([Draft(None)]) == {"key_accuracy": None, "target_share": None}


def test_the_tokenizer_knows_every_word_of_the_world_and_of_the_prompts():
    tokenizer, rng = toy.make_tokenizer(), random.Random(7)
    for _ in range(300):
        for pair in (toy.generator_lesson(rng, True), toy.solver_lesson(rng, True), toy.letter_lesson(rng)):
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


@needs_anchor
def test_the_anchor_is_a_small_qwen3_with_the_tokenizer_of_the_script():
    from policy import load_model
    model, tokenizer = load_model(f"{FOLDER}/anchor")
    assert model.config.model_type == "qwen3" and 1e6 <= sum(p.numel() for p in model.parameters()) <= 5e6
    assert tokenizer.get_vocab() == toy.make_tokenizer().get_vocab() and tokenizer.chat_template
    assert all(name.endswith((".safetensors", ".json", ".jinja")) for name in os.listdir(f"{FOLDER}/anchor"))


def test_no_file_that_trains_knows_the_world():
    """Only the log may ask toy.py for the truth; what trains does not import it."""
    for name in ("train", "policy", "influence", "dugrpo", "generator", "solver", "data", "checkpoint", "evaluate", "ranks"):
        tree = ast.parse(open(os.path.join(toy.HERE, f"{name}.py")).read())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert "toy" not in imported, name
