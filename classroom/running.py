"""Ten iterations of the embedded world with a student's function, beside ours.

    python train.py --iterations 10 --eval_every 5 --docs_per_step 8 --threads 1 --seed 0

in a copy of the project that has the student's file in the place of ours, and behind it the
exercise's IN_RUN, if it has one. Our own curve is measured in the same way on the same machine
once, and kept in the folder of the course.
"""
import json
import sys
import tempfile
from pathlib import Path

from classroom.course import copy_project, reference, submission
from classroom.grader import apart
from engine.outputs import write_whole

ITERATIONS = 10
SECONDS = 600
FLAGS = ["--iterations", str(ITERATIONS), "--eval_every", "5", "--docs_per_step", "8",
         "--threads", "1", "--seed", "0", "--show_every", "0"]
# How far below ours the last test accuracy may lie: a rounding can change a token, and from there
# on a run is another run.
SLACK = 0.04


def run(text, exercise, seconds=SECONDS):
    """A student's file -> (metrics of the iterations, None) or (None, sentence)."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "project"
        copy_project(folder)
        text += getattr(exercise, "IN_RUN", "")
        (folder / exercise.FILE).write_text(text, encoding="utf-8")
        command = [sys.executable, "train.py", *FLAGS, "--run", str(Path(place) / "run")]
        problem = apart(command, seconds, folder)
        if problem:
            return None, problem
        lines = (Path(place) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], None


def ours(folder, exercise):
    """-> metrics of our own ten iterations, measured once for the folder of a course; once more for
    an exercise whose run is another."""
    other = f"-{exercise.NAME}" if hasattr(exercise, "IN_RUN") else ""
    kept = Path(folder) / f"reference{other}.jsonl"
    if not kept.exists():
        metrics, problem = run(reference(exercise.FILE), exercise)
        if problem:
            return None, f"our own run did not end: {problem}"
        write_whole(kept, "\n".join(json.dumps(line) for line in metrics) + "\n")
    lines = kept.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], None


def beside(folder, exercise):
    """The student's ten iterations and ours -> (right, sentence), lines of the curve."""
    reference_curve, problem = ours(folder, exercise)
    if not problem:
        metrics, problem = run(submission(folder, exercise), exercise)
    if problem:
        return (False, problem), []

    expected = curve(reference_curve)
    found = curve(metrics)
    lines = [row("iteration", [f"{t}" for t, _ in expected]),
             row("yours", [f"{100 * x:.1f} %" for _, x in found]),
             row("ours", [f"{100 * x:.1f} %" for _, x in expected])]
    return judged(found, expected), lines


def judged(found, expected):
    """Two curves -> (right, sentence)."""
    if found == expected:
        return True, "the same curve as ours"
    last, ours_last = found[-1][1], expected[-1][1]
    if last < ours_last - SLACK:
        return False, (f"the solver ends at {100 * last:.1f} % of the test questions, with ours at "
                       f"{100 * ours_last:.1f} %")
    return True, "it learns as ours does"


def curve(metrics):
    """Lines of metrics.jsonl -> [(iteration, test accuracy)] where it was tested, the anchor first.
    """
    tested = [(line["iteration"], line["test_accuracy"]) for line in metrics
              if line.get("test_accuracy") is not None]
    return [(0, metrics[0]["test_accuracy_anchor"])] + tested


def row(name, cells):
    return f"{name:>12}" + "".join(f"{cell:>9}" for cell in cells)
