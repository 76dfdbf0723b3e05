"""Grades one exercise: by hand, by an oracle, and by what usual mistakes compute.

    by_hand   worked numbers that one can check on paper
    oracle    an outside way to the same numbers: torch's own AdamW, a finite difference, a loop
    mistakes  our function with one fault planted: if the student's computes the same, the
              sentence about that fault is said

Runs in a process of its own (grader.py), since it runs a student's code: `python -m
classroom.judge NAME FILE` reads the student's file and prints one line of JSON.
"""
import contextlib
import functools
import io
import json
import sys
import tempfile
import traceback
import types
from pathlib import Path

import torch

from classroom import sources
from classroom.course import reference
from classroom.exercises import EXERCISES
from classroom.compare import Wrong, same


class Verdict(list):
    """[(what was checked, was it right, sentence)] in the order of the checks."""

    @property
    def passed(self):
        return all(right for _, right, _ in self)


def load(text, file):
    """Text of a module -> the module, run under a name of its own.

    What it imports is ours.
    """
    module = types.ModuleType(f"student_{Path(file).stem}")
    module.__file__ = file
    # dataclasses and pickle look a module up by its name
    sys.modules[module.__name__] = module
    exec(compile(text, file, "exec"), module.__dict__)
    return module


def grade(exercise, text):
    """A student's whole file -> Verdict. Nothing is raised for what the student's code does."""
    verdict = Verdict()
    blank = [name for name in exercise.BLANKS if sources.is_blank(text, name, exercise)]
    if blank:
        sentence = f"{blank[0]} is still blank; the hints stand in {exercise.FILE}"
        return Verdict([("blank", False, sentence)])

    theirs = None
    for what in ("by_hand", "oracle"):
        try:
            with quiet():
                theirs = theirs or load(text, exercise.FILE)
                getattr(exercise, what)(theirs)
        except Wrong as wrong:
            sentence = recognised(exercise, theirs) or str(wrong)
            verdict.append((what, False, sentence))
            return verdict
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            sentence = theirs and recognised(exercise, theirs)
            verdict.append((what, False, sentence or told(error, exercise, text)))
            return verdict
        verdict.append((what, True, "ok"))
    return verdict


def recognised(exercise, theirs):
    """-> the sentence of the mistake that computes what theirs computes, or None."""
    try:
        with quiet():
            found = exercise.probe(theirs)
    except (Exception, SystemExit):
        return None
    for i, mistake in enumerate(exercise.MISTAKES):
        if same(found, of_mistake(exercise.NAME, i)):
            return mistake.sentence
    return None


@functools.cache
def of_mistake(name, i):
    """What our function computes with the i-th mistake in it; None if it cannot."""
    exercise = EXERCISES[name]
    _, planted = list(planted_mistakes(exercise))[i]
    try:
        with quiet():
            return exercise.probe(load(planted, exercise.FILE))
    except Exception:
        return None


def planted_mistakes(exercise):
    """-> (sentence, the text of our file with that one fault) for every known mistake."""
    ours = reference(exercise.FILE)
    for mistake in exercise.MISTAKES:
        text = ours
        for name, old, new in mistake.edits:
            text = sources.changed(text, name, old, new)
        yield mistake.sentence, text


def told(error, exercise, text):
    """An exception of the student's code -> one sentence with the line it came from.

    The line itself, since its number in `text` is not that in the student's file.
    """
    if isinstance(error, SystemExit):
        return f"it ended the program (sys.exit); {exercise.FILE} must return instead"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == exercise.FILE]
    message = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:200]
    if not lines:
        # ours stumbled over what theirs returned
        return (f"what {' or '.join(exercise.BLANKS)} gave cannot be used; does each path end in "
                f"a return? ({message})")
    line = text.splitlines()[lines[-1] - 1].strip()
    return f"`{line}` of {exercise.FILE}: {message}"


@contextlib.contextmanager
def quiet():
    """What a student's code prints does not disturb the verdict."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def main(name, file, report):
    """Grades `file` and writes the verdict to `report`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = Path(file).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory():
        verdict = grade(EXERCISES[name], text)
    Path(report).write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
