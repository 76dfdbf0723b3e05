"""Runs a student's code in a process of its own, with an end to its time and memory.

Whatever that code does (an endless loop, a crash, all of the memory), a sentence comes back.
"""
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from classroom import judge, sources
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
        words = [exercise.NAME, str(file), str(report)]
        if sys.platform == "linux":
            problem = forked(partial(judge.main, *words), seconds)
        else:
            problem = apart([sys.executable, "-m", "classroom.judge", *words], seconds)
        if report.exists():
            return Verdict(json.loads(report.read_text(encoding="utf-8")))
    return Verdict([("grading", False, problem or "the process ended without a verdict")])


def forked(target, seconds):
    """Call target() in a copy of this process, under the limits.

    -> None, or the sentence about why it did not end well. The copy has torch imported, which
    else takes longer than all grading. Only Linux copies a process safely.
    """
    with tempfile.TemporaryFile() as errors:
        child = multiprocessing.get_context("fork").Process(
            target=in_the_copy, args=(target, errors.fileno(), seconds))
        child.start()
        try:
            child.join(SLACK * seconds)
        finally:
            alive = child.is_alive()
            end(child.pid)
            child.kill()
            child.join()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    return endless(seconds) if alive else sentence(child.exitcode, said, seconds)


def in_the_copy(target, errors, seconds):
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(errors, 2)
    sys.stdout = sys.stderr = open(2, "w", closefd=False)
    limit(seconds)
    target()


def apart(command, seconds, folder=ROOT, output=subprocess.DEVNULL):
    """Run a command under the limits -> None, or the sentence about why it did not end well."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1",
                       TOKENIZERS_PARALLELISM="false")
    child = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                             stdout=output, stderr=subprocess.PIPE, text=True,
                             start_new_session=True, preexec_fn=partial(limit, seconds))
    try:
        _, errors = child.communicate(timeout=SLACK * seconds)
    except subprocess.TimeoutExpired:
        end(child.pid)
        child.communicate()
        return endless(seconds)
    except BaseException:
        end(child.pid)
        raise
    return sentence(child.returncode, errors, seconds)


def sentence(code, errors, seconds):
    """How a process ended -> None where it ended well, else what is said of it."""
    if code == 0:
        return None
    if code == -signal.SIGXCPU:
        return endless(seconds)
    if code < 0:
        name = signal.Signals(-code).name
        return f"the process was killed by {name}; was there memory enough?"
    last = errors.strip().split("\n")[-1][:200]
    if "MemoryError" in last or "alloc" in last:
        return f"it wanted more than {GIGABYTES} GB of memory"
    return last or f"the process ended with exit code {code}"


def endless(seconds):
    return f"it had not come to an end after {seconds} seconds: is there a loop that never ends?"


def end(group):
    """The process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def limit(seconds):
    """In the child, before it begins. Not every system has this limit."""
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES * 2 ** 30,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
