"""How many keys are right, by a reader that errs itself."""
import json

import numpy as np
import pytest
import torch

import config
from data import Document, InputError, Question
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
    one, = keys.drafts_of(path, [Document("a", "It has 2.")])
    assert one.passage == "It has 2." and one.ground_truth == "2" and keys.in_passage(one)
    with pytest.raises(InputError, match="none of --documents"):
        keys.drafts_of(path, [Document("b", "")])


def test_a_reader_that_cannot_read_is_one_line(tmp_path):
    questions = [{"question_text": f"What is {i}?", "choices": ["a", "b", "c", "d"],
                  "ground_truth": "abcd"[i % 4], "passage": "x"} for i in range(8)]
    (tmp_path / "known.json").write_text(json.dumps(questions))
    (tmp_path / "d.json").write_text(json.dumps([{"doc_id": "a", "content": "text"}]))
    (tmp_path / "x.jsonl").write_text(json.dumps(
        {"status": "valid", "doc_id": "a", "question": "Q?", "choices": ["1", "2", "3", "4"],
         "answer": "2"}))
    with pytest.raises(InputError, match="too few to tell"):
        keys.main([str(tmp_path / "x.jsonl"), "--documents", str(tmp_path / "d.json"), "--known",
                   str(tmp_path / "known.json"), "--model", str(config.ROOT / "toy/anchor")])
