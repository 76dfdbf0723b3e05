"""The warm start: demonstrations are rendered with the project's own prompts, and what is taught is
what the parsers read.
"""
import itertools
import json
import random
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import generator
import solver
import warmup
from data import InputError, Question
from engine.demonstrations import load_demos
from toy import make

DEMO = {
    "content": "Iron rusts.",
    "question_text": "What does iron do in rain?",
    "choices": ["It melts", "It rusts", "It sings", "It burns"],
    "ground_truth": "It rusts"}


def tiny_model(tokenizer):
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, pad_token_id=0)
    return Qwen3ForCausalLM(shape).eval()


def test_a_demonstration_reads_back_as_the_question_and_the_letter():
    question = Question(DEMO["question_text"], DEMO["choices"], "It rusts")

    prompt, response = warmup.generator_pair(DEMO)
    assert "Iron rusts." in prompt
    assert generator.parse_question(response) == (question, None)

    prompt, response = warmup.solver_pair(DEMO)
    assert prompt == solver.prompt_text(question)
    assert solver.extract_answer(response, 4) == "B"


def test_only_the_response_and_its_end_carry_loss():
    tokenizer = make.make_tokenizer()
    pair = ("What is 1 plus 2?", "The answer is 3")
    ids, labels = warmup.encode_pair(tokenizer, pair)

    learned = [i for i in labels if i != -100]
    words = tokenizer.convert_ids_to_tokens(learned)
    assert words == ["The", "answer", "is", "3", "<|end|>"]
    assert ids[-len(learned):] == learned and len(ids) == len(labels)


def test_padding_and_company_do_not_change_the_loss():
    tokenizer = make.make_tokenizer()
    model = tiny_model(tokenizer)
    pairs = [
        ("What is 1 plus 2?", "The answer is 3"),
        ("What is 10 plus 2?", "12"),
        ("Who came first?", "The answer is Tom and Bea")]

    together, n = warmup.pass_loss(model, tokenizer, pairs)
    apart = [warmup.pass_loss(model, tokenizer, [pair]) for pair in pairs]
    assert n == sum(tokens for _, tokens in apart)
    assert torch.allclose(together, sum(loss for loss, _ in apart), rtol=1e-5)


def test_fit_learns_what_it_is_shown():
    tokenizer = make.make_tokenizer()
    model = tiny_model(tokenizer)
    pairs = [
        ("What is 1 plus 2?", "The answer is 3"),
        ("What is 2 plus 2?", "The answer is 4")]

    before = warmup.pass_loss(model, tokenizer, pairs)[0].item()
    warmup.fit(model, tokenizer, itertools.repeat([pairs]), 60, lr=1e-2)
    assert warmup.pass_loss(model, tokenizer, pairs)[0].item() < 0.1 * before


@pytest.mark.parametrize("change, fragment", [
    ({"content": ""}, "content"),
    ({"content": 5}, "content"),
    ({"choices": None}, "choices"),
    ({"ground_truth": "It flies"}, "It flies"),
])
def test_a_bad_demonstration_is_one_clear_line(tmp_path, change, fragment):
    path = tmp_path / "demos.jsonl"
    path.write_text(json.dumps(DEMO) + "\n" + json.dumps(DEMO | change) + "\n")
    with pytest.raises(InputError, match="line 2") as error:
        load_demos(str(path))
    assert fragment in str(error.value) and "\n" not in str(error.value)


def test_key_first_changes_the_order_and_nothing_else():
    prompt, response = warmup.generator_pair(DEMO)
    same_prompt, key_first = warmup.generator_pair(DEMO, warmup.How(key_first=True))
    assert prompt == same_prompt
    assert key_first.index("ground_truth") < key_first.index("choices")
    assert json.loads(key_first) == json.loads(response)
    assert generator.parse_question(key_first) == generator.parse_question(response)


def test_a_drill_names_every_option_and_learns_the_letters_alone():
    prompt, pieces = warmup.drill(DEMO, random.Random(3))
    assert prompt == warmup.solver_pair(DEMO)[0]
    lines = "".join(text for text, _ in pieces).split("\n")
    said = {line.partition(" \\boxed")[0].removeprefix("The answer is "):
            solver.extract_answer(line, 4) for line in lines}
    assert said == dict(zip(DEMO["choices"], "ABCD"))
    assert sorted(text for text, learned in pieces if learned) == ["A}", "B}", "C}", "D}"]


def test_with_the_book_open_the_document_stands_above_the_question():
    how = warmup.How(open_book=True)
    prompt, _ = warmup.solver_pair(DEMO, how=how)
    assert prompt.startswith(f"{DEMO['content']}\n\n{DEMO['question_text']}\n\nA. ")
    assert warmup.drill(DEMO, random.Random(0), how)[0] == prompt
    assert warmup.generator_pair(DEMO, how) == warmup.generator_pair(DEMO)


def test_a_drill_counts_for_the_longest_pair_only_where_it_is_shown(monkeypatch):
    measured = []
    tokenizer = make.make_tokenizer()
    policy = SimpleNamespace(model=None, tokenizer=tokenizer)
    monkeypatch.setattr(warmup, "Policy", lambda *_: policy)
    monkeypatch.setattr(
        warmup, "check_model", lambda policy, cfg: measured.append(cfg.max_prompt_tokens))
    args = SimpleNamespace(model="m", lr=1e-3)
    for how in (warmup.How(), warmup.How(drills=True)):
        warmup.load(args, [DEMO], how)
    pairs = [warmup.generator_pair(DEMO), warmup.solver_pair(DEMO)]
    longest = max(len(warmup.encode_pair(tokenizer, pair)[0]) for pair in pairs)
    drill = len(warmup.encode_pair(tokenizer, warmup.drill(DEMO, random.Random(0)))[0])
    assert measured == [longest, max(longest, drill)]


def test_a_step_has_drills_where_they_were_asked_for():
    steps = warmup.epochs([DEMO] * 4, 2, warmup.How(drills=True))
    assert [len(part) for part in next(steps)] == [2, 2, 2]
    # without, the stream is that of always
    plain, again = warmup.epochs([DEMO] * 4, 2), warmup.epochs([DEMO] * 4, 2, warmup.How())
    assert next(plain) == next(again) and len(next(plain)) == 2
