"""Runs a student's code in a process of its own, with an end to its time and memory.

Whatever that code does (an endless loop, a crash, all of the memory), a sentence comes back.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from classroom import sources
from classroom.course import ROOT, submission
from classroom.judge import Verdict

# of the processor, so that a busy machine makes no endless loop of a slow one; asleep, SLACK times
# as long by the clock
SECONDS = 60
SLACK = 10
GIGABYTES = 6


def check(folder, exercise, seconds=SECONDS):
    """The student's folder -> Verdict of one exercise, without the run."""
    try:
        text = submission(folder, exercise)
    except sources.NotThere as error:
        return Verdict([("file", False, f"{exercise.FILE} {error}")])

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "submission.py"
        report = Path(place) / "verdict.json"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "classroom.judge", exercise.NAME, str(file), str(report)]
        problem = apart(command, seconds)
        if report.exists():
            return Verdict(json.loads(report.read_text(encoding="utf-8")))
    return Verdict([("grading", False, problem or "the process ended without a verdict")])


def apart(command, seconds, folder=ROOT, output=subprocess.DEVNULL):
    """Run a command under the limits -> None, or the sentence about why it did not end well."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1",
                       TOKENIZERS_PARALLELISM="false")
    endless = (f"it had not come to an end after {seconds} seconds: is there a loop that never "
               "ends?")
    child = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                             stdout=output, stderr=subprocess.PIPE, text=True,
                             start_new_session=True, preexec_fn=partial(limit, seconds))
    try:
        _, errors = child.communicate(timeout=SLACK * seconds)
    except subprocess.TimeoutExpired:
        end(child)
        return endless
    except BaseException:
        end(child)
        raise
    if child.returncode == 0:
        return None
    if child.returncode == -signal.SIGXCPU:
        return endless
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return f"the process was killed by {name}; was there memory enough?"
    last = errors.strip().split("\n")[-1][:200]
    if "MemoryError" in last or "alloc" in last:
        return f"it wanted more than {GIGABYTES} GB of memory"
    return last or f"the process ended with exit code {child.returncode}"


def end(child):
    """The process and all that it started."""
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def limit(seconds):
    """In the child, before it begins. Not every system has this limit."""
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES * 2 ** 30,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
