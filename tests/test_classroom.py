"""The classroom: ours passes, a blank is said, and every planted mistake gets its own sentence."""
import pytest

from classroom import course, judge, sources
from classroom.exercises import EXERCISES

pytestmark = pytest.mark.slow
NAMES = list(EXERCISES)
MISTAKES = [(name, i) for name in NAMES for i in range(len(EXERCISES[name].MISTAKES))]


@pytest.mark.parametrize("name", NAMES)
def test_our_own_function_passes(name):
    exercise = EXERCISES[name]
    verdict = judge.grade(exercise, course.reference(exercise.FILE))
    assert verdict == [("by_hand", True, "ok"), ("oracle", True, "ok")]


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_is_said_and_keeps_signature_docstring_and_three_hints(name):
    exercise = EXERCISES[name]
    text = course.reference(exercise.FILE)
    for function in exercise.BLANKS:
        text = sources.blanked(text, function, exercise)
        blank = sources.source(text, function)
        ours = sources.source(course.reference(exercise.FILE), function)
        assert blank.split("\n")[0] == ours.split("\n")[0]
        hints = [f"Hint {i}. " in blank for i in (1, 2, 3, 4)]
        first = function == exercise.BLANKS[0]
        assert hints == [first, first, first, False]
    (what, right, sentence), = judge.grade(exercise, text)
    assert not right and "still blank" in sentence


@pytest.mark.parametrize("name, i", MISTAKES, ids=str)
def test_a_planted_mistake_fails_with_its_own_sentence(name, i):
    exercise = EXERCISES[name]
    sentence, text = list(judge.planted_mistakes(exercise))[i]
    what, right, said = judge.grade(exercise, text)[-1]
    assert not right and said == sentence


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_knows_at_least_four_mistakes(name):
    assert len(EXERCISES[name].MISTAKES) >= 4
