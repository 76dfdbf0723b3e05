"""The overlap detector: what counts as a repeat of a dev or test question, and what does not."""
from engine.presets import TOY
from data import Question
from engine.overlap import N, Overlap, runs
from engine.readers import load_questions


def questions(*texts):
    return [Question(text, ["1", "2", "3", "4"], "1") for text in texts]


LONG = ("A train leaves the station at nine and meets another train at noon. "
        "How far apart were they?")


def test_a_copy_is_found_however_it_is_dressed():
    found = Overlap({"dev": questions(LONG), "test": questions("Who came last?")})
    assert found.of(LONG) == ["dev"]
    assert found.of("  a TRAIN leaves the station, at nine; and meets another train!") == ["dev"]
    assert found.of("Who came last") == ["test"]


def test_eight_words_in_a_row_count_and_seven_do_not():
    words = LONG.split()
    found = Overlap({"dev": questions(LONG)})
    assert found.of("Suppose " + " ".join(words[3:3 + N]) + " today") == ["dev"]
    assert found.of("Suppose " + " ".join(words[3:3 + N - 1]) + " today") == []


def test_a_short_question_is_one_run_and_not_a_part_of_a_long_one():
    assert runs("Who came last?") == {"who came last"} and runs("?!") == set()
    longer = questions("They ran and ran. Who came last? Nobody knows to this day.")
    assert Overlap({"dev": longer}).of("Who came last?") == []


def test_every_dev_question_of_the_embedded_world_is_found_and_no_test_question_is_among_them():
    dev, test = load_questions(TOY["dev"]), load_questions(TOY["test"])
    found = Overlap({"dev": dev})
    assert all(found.of(question.question_text) == ["dev"] for question in dev)
    whole = {" ".join(sorted(question.choices)) for question in dev}
    assert not any(" ".join(sorted(question.choices)) in whole for question in test)


def test_an_empty_set_overlaps_with_nothing():
    assert Overlap({"dev": [], "test": []}).of(LONG) == []
