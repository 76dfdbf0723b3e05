"""Checkpoints, logs and configs that somebody or some disk has changed; the run is then resumed.

It either ends bit for bit like a run whose files nobody touched (the checkpoint before the newest
was whole, or nothing that counts was changed), or is refused in one line with every file left as
it was. Whoever computes the checksums anew is believed, so nothing here does.
"""
import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import train
from config import CHANGEABLE
from engine import flags

from . import mutators, runs
from .outcome import Hang, limit

SECONDS = 120
# of a run's folder: what a resume reads
FILES = ["config.json", "metrics.jsonl", "questions.jsonl", ".lock", "checkpoint/state.json",
         "checkpoint.previous/state.json"]
JUNK = [None, -1, 0, 3, 10**30, "x", [], {}, True, 1.5, "\u2028"]


def flip(rng, path, other):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(rng, path, other):
    data = path.read_bytes()
    path.write_bytes(data[:rng.randrange(len(data))])


def delete(rng, path, other):
    path.unlink()


def empty(rng, path, other):
    path.write_bytes(b"")


def append(rng, path, other):
    path.write_bytes(path.read_bytes() + rng.choice(mutators.SNIPPETS))


def another_runs(rng, path, other):
    shutil.copy(other, path)


def a_folder(rng, path, other):
    path.unlink()
    path.mkdir()


def damage(rng, path, other):
    path.write_bytes(mutators.damaged(rng, path.read_bytes())[1])


ON_FILES = [flip, flip, cut, delete, empty, append, another_runs, a_folder, damage]


def changed_field(rng, path):
    """A field of a JSON file, however deep, takes another value. -> what was changed"""
    whole = json.loads(path.read_text())
    names = [name for name in whole if name not in CHANGEABLE]
    inside, name = whole, rng.choice(names)
    while isinstance(inside[name], dict) and inside[name] and rng.random() < 0.8:
        inside = inside[name]
        name = rng.choice(list(inside))
    junk = [x for x in JUNK if x != inside[name]]
    how = rng.choice(["junk", "junk", "gone", "next"])
    if how == "gone":
        del inside[name]
    elif how == "next" and isinstance(inside[name], (int, float)):
        inside[name] += 1
    else:
        inside[name] = rng.choice(junk)
    path.write_text(json.dumps(whole))
    return f"{how} {name}"


def tampered(rng, run, other):
    """Changes something in a run's folder -> what."""
    kind = rng.choice(["file", "file", "file", "field", "field", "folder"])
    if kind == "field":
        name = rng.choice(["config.json", "checkpoint/state.json"])
        return f"{name}: {changed_field(rng, run / name)}"
    if kind == "folder":
        return whole_folder(rng, run, other)
    tensors = [str(x.relative_to(run)) for x in sorted(run.glob("checkpoint*/*/*"))]
    name = rng.choice(FILES + tensors)
    change = rng.choice(ON_FILES)
    if not (run / name).exists() or not (run / name).stat().st_size:
        change = append if (run / name).exists() else None
    if change is None or change is another_runs and not (other / name).exists():
        return f"{name}: is not there"
    change(rng, run / name, other / name)
    return f"{name}: {change.__name__}"


def whole_folder(rng, run, other):
    name = rng.choice(["checkpoint", "checkpoint/solver", "checkpoint/generator",
                       "checkpoint.previous"])
    how = rng.choice(["gone", "another run's", "a file", "the one before"])
    shutil.rmtree(run / name)
    if how == "another run's":
        shutil.copytree(other / name, run / name)
    elif how == "a file":
        (run / name).write_text("x")
    elif how == "the one before" and name.startswith("checkpoint/"):
        shutil.copytree(run / name.replace("checkpoint/", "checkpoint.previous/"), run / name)
    return f"{name}: {how}"


# ---------------------------------------------------------------- what comes of it

def contents(run):
    """What may not be lost -> {name: bytes}."""
    found = {}
    for path in [*run.glob("*.jsonl"), *run.glob("checkpoint*/**/*")]:
        if path.is_file():
            found[str(path.relative_to(run))] = path.read_bytes()
    return found


def resume(run):
    """In this process -> (exit code, what stood on stderr)."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["train.py", "--resume", str(run)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = train.main(flags.from_command_line())
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    return code, said.getvalue()


def judge(tally, what, run, whole):
    before = contents(run)
    try:
        with limit(SECONDS):
            code, said = resume(run)
    except Hang:
        tally.add("hang", what)
    except Exception as error:
        tally.add("traceback", what, repr(error))
    else:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if code == 0:
            differ = runs.differences(run, whole)
            tally.add("loss" if differ else "right", what, f"other: {differ[:5]}")
        elif code != 2 or len(errors) != 1 or "Traceback" in said:
            tally.add("traceback", what, f"exit code {code}: {said}")
        else:
            kept = contents(run) == before
            tally.add("one line" if kept else "loss", what, f"{errors[0]}: files were changed")


def run(tally, seed, long, folder):
    folder = Path(folder)
    words = runs.world(folder)
    made = {}
    # killed at its very end a run still has the checkpoint before the last
    for name, more, die in (("whole", [], {}), ("base", [], {"die": LATE}),
                            ("other", ["--seed", "1"], {"die": LATE})):
        made[name] = folder / name
        runs.ended(runs.begin([*words, *more], made[name], **die))
    assert (made["base"] / "checkpoint.previous").exists(), runs.output(made["base"])
    for i in range(240 if long else 6):
        rng, path = mutators.seeded(seed, "checkpoints", i), folder / "tampered"
        shutil.copytree(made["base"], path)
        what = tampered(rng, path, made["other"])
        judge(tally, f"{i}: {what}", path, made["whole"])
        shutil.rmtree(path)


LATE = ("checkpoint", "drop_previous", 1)
