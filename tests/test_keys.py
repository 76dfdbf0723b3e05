"""How many keys are right, by a reader that errs itself."""
import json

import numpy as np
import pytest
import torch

import config
from data import Document, InputError, Question
from engine.readers import load_questions
from studies import keys


@pytest.fixture(scope="module")
def reader():
    return keys.Reader(config.ROOT / "toy/anchor")


def test_the_likeliest_option_is_picked_by_the_models_own_loss(reader):
    question = Question("Which is it?", ["42", "Monday", "7", "Mara"], "7", passage="Mara has 7.")
    before = "Mara has 7.\n\nQuestion: Which is it?\nAnswer:"
    losses = {}
    for option in question.choices:
        prompt = reader.tokenizer(before).input_ids
        ids = torch.tensor([prompt + reader.tokenizer(f" {option}",
                                                      add_special_tokens=False).input_ids])
        labels = ids.clone()
        labels[0, :len(prompt)] = -100
        losses[option] = reader.model(ids, labels=labels).loss.item()
        assert reader.likelihood(question, option) == pytest.approx(-losses[option], abs=1e-4)
    assert reader.picks(question) == min(losses, key=losses.get)


def test_the_share_of_right_keys_is_found_again_from_a_reader_that_errs():
    """Of drafts with 60 % right keys a reader that is right on 80 % picks .6 x .8 + .4 x .2 / 3."""
    rng = np.random.default_rng(0)
    n = 20_000
    best = np.where(rng.random(n) < 0.8, 0, rng.integers(1, 4, n))      # option 0 is right
    key = np.where(rng.random(n) < 0.6, 0, rng.integers(1, 4, n))
    known = np.where(rng.random(n) < 0.8, 0, rng.integers(1, 4, n)) == 0
    middle, low, high = keys.estimate(best == key, known, repeats=200)
    assert middle == pytest.approx(0.6, abs=0.02) and low < 0.6 < high and high - low < 0.05


def test_drafts_are_read_with_their_passages(tmp_path):
    rows = [{"status": "valid", "doc_id": "a", "question": "Q?", "choices": ["1", "2", "3", "4"],
             "answer": "2"}, {"status": "no_json", "doc_id": "a"}]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (one,), _ = keys.drafts_of(path, [Document("a", "It has 2.")])
    assert one.passage == "It has 2." and one.ground_truth == "2" and keys.in_passage(one)
    with pytest.raises(InputError, match="none of --documents"):
        keys.drafts_of(path, [Document("b", "")])


def test_known_questions_and_drafts_are_asked_alike(tmp_path, reader, monkeypatch):
    """The known ones say how well the reader reads the others."""
    rows = [{"status": "valid", "doc_id": "a", "question": "Who has 7?", "answer": "Mara",
             "choices": ["Mara", "Ann", "Bo", "Eve"]}]
    drafts, known = tmp_path / "x.jsonl", tmp_path / "known.jsonl"
    drafts.write_text(json.dumps(rows[0]))
    known.write_text(json.dumps({
        "question": "Who has 7?", "choices": ["Mara", "Ann", "Bo", "Eve"], "answer": "Mara",
        "passage": "Mara has 7."}))
    asked, _ = keys.drafts_of(drafts, [Document("a", "Mara has 7.")])
    asked += [keys.apart(question) for question in load_questions(known)]
    prompts = [(one.passage, one.question_text, one.choices, one.ground_truth) for one in asked]
    assert prompts[0] == prompts[1]


def test_what_was_liked_stands_by_the_letter_of_the_key(capsys):
    def draft(key, passage):
        return Question("Q?", ["1", "2", "3", "4"], key, passage=passage)

    asked = [draft("1", "It has 1."), draft("4", "It has 4."), draft("4", "no"), draft("4", "no")]
    found = keys.liked(asked, [0.0, 0.1, 0.3, 0.2])
    assert found["key under A"] == [0.0] and found["key under D"] == [0.1, 0.3, 0.2]
    assert found["key in the passage"] == [0.0, 0.1] and found["not in it"] == [0.3, 0.2]
    keys.say_liked({"a/paid.jsonl": (asked, [0.0, 0.1, 0.3, 0.2]), "unpaid": (asked, [None] * 4)})
    said = capsys.readouterr().out
    cells = ["paid", "-", "-", "-", "+0.200 ± 0.058 (3)", "+0.050 ± 0.050 (2)",
             "+0.250 ± 0.050 (2)"]
    assert f"| {' | '.join(cells)} |" in said
    assert "unpaid" not in said

    six = Question("Q?", list("123456"), "6", passage="6")
    keys.say_liked({"six": ([six, six], [0.1, 0.3])})
    assert "| key under F | key in the passage |" in capsys.readouterr().out


def test_of_more_options_fewer_wrong_keys_are_picked_by_chance():
    """A reader that is right on half; a quarter of the keys are right; eight options."""
    rng, n = np.random.default_rng(0), 40_000
    key = np.where(rng.random(n) < 0.25, 0, rng.integers(1, 8, n))
    best = np.where(rng.random(n) < 0.5, 0, rng.integers(1, 8, n))
    known = rng.random(n) < 0.5
    assert keys.estimate(best == key, known, 1 / 7, repeats=50)[0] == pytest.approx(0.25, abs=0.02)
    assert keys.estimate(best == key, known, repeats=50)[0] < 0.1


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_draft_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path, letter):
    row = {"status": "valid", "doc_id": "a", "question": f"Which{letter}is it?", "answer": "2",
           "choices": ["1", "2", "3", "4"]}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (one,), _ = keys.drafts_of(path, [Document("a", "It has 2.")])
    assert one.question_text == f"Which{letter}is it?"


@pytest.mark.parametrize("content", [
    None, "", "\n", "no JSON\n", "no JSON\n{}\n", "[1]\n", '{"doc_id": "a"}\n',
    '{"status": "valid", "doc_id": "a", "question": "Q?", "choices": null, "answer": "2"}\n'])
def test_a_file_without_drafts_is_one_line(tmp_path, content):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="expected"):
        keys.drafts_of(path, [Document("a", "It has 2.")])


def test_a_reader_that_cannot_read_is_one_line(tmp_path):
    questions = [{"question_text": f"What is {i}?", "choices": ["a", "b", "c", "d"],
                  "ground_truth": "abcd"[i % 4], "passage": "x"} for i in range(8)]
    (tmp_path / "known.json").write_text(json.dumps(questions))
    (tmp_path / "d.json").write_text(json.dumps([{"doc_id": "a", "content": "text"}]))
    (tmp_path / "x.jsonl").write_text(json.dumps(
        {"status": "valid", "doc_id": "a", "question": "Q?", "choices": ["1", "2", "3", "4"],
         "answer": "2"}))
    with pytest.raises(InputError, match="expected at least 40 %"):
        keys.main([str(tmp_path / "x.jsonl"), "--documents", str(tmp_path / "d.json"), "--known",
                   str(tmp_path / "known.json"), "--model", str(config.ROOT / "toy/anchor")])
