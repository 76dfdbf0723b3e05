"""The folder a student works in: the real files, with the functions of the exercises blanked.

    DIR/              a copy of the top floor, of engine/, of prompts/ and of the embedded world
    DIR/course.json   which exercises it was started with

Ours are the files this package lies beside. A student's file is graded with the functions of all
other exercises filled in from ours, so that each exercise stands alone.
"""
import json
import shutil
from pathlib import Path

from classroom import sources
from classroom.exercises import EXERCISES
from data import InputError
from engine.outputs import folder_to_write

ROOT = Path(__file__).resolve().parent.parent
# where the course was started last, so that `check` finds it from the project's own folder
LAST = ROOT / "runs" / "classroom"


def start(folder, names):
    """Copy the project into a new folder and blank the functions of the exercises."""
    folder = Path(folder)
    folder_to_write("DIR", folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; give a new folder")
    copy_project(folder)
    (folder / "course.json").write_text(json.dumps({"exercises": names}) + "\n", encoding="utf-8")
    for name in names:
        reset(folder, EXERCISES[name])

    LAST.parent.mkdir(exist_ok=True)
    LAST.write_text(str(folder.resolve()), encoding="utf-8")


def copy_project(folder):
    """The top floor, engine/, prompts/, the embedded world -> a folder in which train.py runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "engine", folder / "engine", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "toy", folder / "toy", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__", "hard", "free"))
    shutil.copytree(ROOT / "prompts", folder / "prompts", dirs_exist_ok=True)


def reset(folder, exercise):
    """Blank the exercise's functions again; the rest of the file stays as the student has it."""
    path = Path(folder) / exercise.FILE
    text = theirs(folder, exercise)
    ours = reference(exercise.FILE)
    for name in exercise.BLANKS:
        function = sources.source(sources.blanked(ours, name, exercise), name)
        text = sources.put(text, name, function)
    path.write_text(text, encoding="utf-8")


def find(folder):
    """--dir, the present folder, or the one started last -> the folder of a course."""
    places = [folder] if folder else [Path.cwd()]
    if not folder and LAST.exists():
        places.append(LAST.read_text(encoding="utf-8"))
    for place in places:
        if (Path(place) / "course.json").exists():
            return Path(place)
    raise InputError(f"{places[0]}: no course is there; begin with: python -m classroom start DIR")


def exercises_of(folder):
    """-> the exercises a course was started with, in order."""
    names = json.loads((Path(folder) / "course.json").read_text(encoding="utf-8"))["exercises"]
    return [EXERCISES[name] for name in names]


def reference(file):
    """-> the text of our own file."""
    return (ROOT / file).read_text(encoding="utf-8")


def theirs(folder, exercise):
    """-> the text of the student's file."""
    path = Path(folder) / exercise.FILE
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: is not there any more; copy it anew from {ROOT}, then `reset`")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})")


def submission(folder, exercise):
    """-> the student's file, with every other exercise's functions as ours."""
    text = theirs(folder, exercise)
    ours = reference(exercise.FILE)
    for name in exercise.BLANKS:
        sources.find(text, name)
    for other in EXERCISES.values():
        if other is exercise or other.FILE != exercise.FILE:
            continue
        for name in set(other.BLANKS) - set(exercise.BLANKS):
            text = sources.put(text, name, sources.source(ours, name))
    return text
