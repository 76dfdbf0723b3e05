"""Runs that are killed, interrupted, ended or stopped, at random and at chosen moments.

Each is resumed and compared bit for bit with a run that nobody disturbed. A signal that asks has to
be answered within 10 seconds, by one line and the exit code that engine/ending.py promises.
"""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import ROOT, mutators, runs
from .outcome import SECONDS

# (module, function): a run dies in its n-th call
MOMENTS = [("os", "rename"), ("os", "replace"), ("os", "fsync"), ("log", "append"),
           ("checkpoint", "drop_previous"), ("checkpoint", "write_state")]
# what a rank is at, in iteration 2: (function of train.py, number of its call)
STAGES = {
    "dev answers": ("solve", 3), "drafts": ("write_questions", 2), "answers": ("solve", 4),
    "g_dev": ("dev_gradient", 2), "scores": ("influence_scores", 2),
    "the generator's update": ("update", 3), "the solver's update": ("update", 4),
    "evaluation": ("accuracy", 2), "saving": ("save", 2)}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def run(tally, seed, long, folder):
    folder = Path(folder)
    words = runs.world(folder)
    whole = folder / "whole"
    # twice: the first warms the server of processes up, and shows that two runs are the same
    for path in (folder / "first", whole):
        begun = time.monotonic()
        assert runs.ended(runs.begin(words, path)) == 0, runs.output(path)
    seconds = time.monotonic() - begun
    differ = runs.differences(folder / "first", whole)
    tally.add("loss" if differ else "right", "nobody disturbed it", str(differ))

    # in rounds, so that a campaign that is cut short has some of each
    for i in range(12 if long else 1):
        numbers = range(3 * i, 3 * i + 3 if long else 1)
        at_random(tally, seed, numbers, words, whole, seconds, folder)
        for module, function in MOMENTS[::1 if long else 6]:
            path = folder / f"{function}-{i + 1}"
            runs.ended(runs.begin(words, path, die=(module, function, i + 1)))
            runs.verdict(tally, f"SIGKILL in call {i + 1} of {function}", words, path, whole)
        asked(tally, seed, long, i, words, whole, seconds, folder)
        stopped(tally, seed, i, words, whole, seconds, folder)
        of_ranks(tally, seed, i, words, seconds, folder)
        if long:
            while_importing(tally, seed, i, words, whole, folder)
    for i, stage in enumerate(STAGES if long else ["scores"]):
        for number in (signal.SIGKILL, signal.SIGSTOP)[:2 if long else 1]:
            at_a_stage(tally, stage, number, i % 2, words, folder)


def at_random(tally, seed, numbers, words, whole, seconds, folder):
    """SIGKILL two times in a row."""
    for i in numbers:
        rng, path = mutators.seeded(seed, "kill", i), folder / f"kill-{i}"
        moments = []
        for _ in range(2):
            process = runs.begin(words, path)
            moments.append(rng.uniform(0, seconds))
            process.join(moments[-1])
            process.kill()
            process.join()
        runs.verdict(tally, f"{i}: SIGKILL after {moments}", words, path, whole)


def asked(tally, seed, long, i, words, whole, seconds, folder):
    """SIGTERM, SIGINT once and twice."""
    every = (signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)
    for number, times in every if long else every[2:]:
        rng = mutators.seeded(seed, "asked", i, number, times)
        path = folder / f"asked-{i}-{number.name}-{times}"
        process = runs.begin(words, path)
        # once its own handlers are there; before, Python's are
        process.join(rng.uniform(0.3, 1) * seconds)
        for _ in range(times):
            if process.is_alive():
                os.kill(process.pid, number)
                time.sleep(0.1)
        code = runs.ended(process, SECONDS)
        what = f"{i}: {number.name} {times} times"
        if code is None:
            tally.add("hang", what, runs.output(path))
        elif code not in (0, CODES[number], -number):
            tally.add("traceback", what, f"exit code {code}: {runs.output(path)}")
        else:
            runs.verdict(tally, what, words, path, whole)


def stopped(tally, seed, i, words, whole, seconds, folder):
    """STOP, a while of nothing, CONT."""
    rng, path = mutators.seeded(seed, "stop", i), folder / f"stop-{i}"
    process = runs.begin(words, path)
    for _ in range(3):
        process.join(rng.uniform(0, 0.3) * seconds)
        if process.is_alive():
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGCONT)
    runs.ended(process)
    runs.verdict(tally, f"{i}: STOP and CONT", words, path, whole)


def of_ranks(tally, seed, i, words, seconds, folder):
    """One of two ranks is killed: the other says so and ends. Or stopped: it goes on."""
    rng, path = mutators.seeded(seed, "ranks", i), folder / f"ranks-{i}"
    undisturbed_pair(words, folder)
    pair = runs.ranks_of(words, path)
    victim = pair[rng.randrange(2)]
    victim.join(rng.uniform(0.1, 0.9) * undisturbed_pair.seconds)
    if i % 2 and victim.is_alive():
        os.kill(victim.pid, signal.SIGSTOP)
        pause(victim)
        verdict_of_ranks(tally, f"{i}: a rank stopped for 2 s", pair, runs.LONGEST, words, path)
    else:
        victim.kill()
        verdict_of_ranks(tally, f"{i}: a rank killed", pair, 3 * SECONDS, words, path)


def at_a_stage(tally, stage, number, rank, words, folder):
    """The same at a chosen moment: where the rank begins with the stage."""
    path = folder / f"{number.name} {stage}"
    undisturbed_pair(words, folder)
    pair = runs.ranks_of(words, path, victim=rank, die=("train", *STAGES[stage], number))
    killed = number == signal.SIGKILL
    if killed:
        pair[rank].join(runs.LONGEST)
    else:
        while pair[rank].is_alive() and not is_stopped(pair[rank].pid):
            time.sleep(0.1)
        pause(pair[rank])
    what = f"rank {rank} {'killed' if killed else 'stopped for 2 s'} at {stage}"
    verdict_of_ranks(tally, what, pair, 3 * SECONDS if killed else runs.LONGEST, words, path)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def pause(process):
    time.sleep(2)
    if process.is_alive():
        os.kill(process.pid, signal.SIGCONT)


def undisturbed_pair(words, folder):
    """Two ranks that nobody disturbs, once -> their folder."""
    whole = folder / "pair"
    if not whole.exists():
        begun = time.monotonic()
        codes = [runs.ended(p) for p in runs.ranks_of(words, whole)]
        assert codes == [0, 0], runs.output(whole)
        undisturbed_pair.seconds = time.monotonic() - begun
    return whole


def verdict_of_ranks(tally, what, pair, seconds, words, path):
    """Both end within the seconds, in words; resumed, they end like the undisturbed pair."""
    codes = [runs.ended(p, seconds) for p in pair]
    text = runs.output(path)
    if None in codes:
        tally.add("hang", what, text)
        return
    if "Traceback" in text:
        tally.add("traceback", what, f"exit codes {codes}: {text}")
        return
    codes = [runs.ended(p) for p in runs.ranks_of(words, path)]
    whole = path.parent / "pair"
    differ = runs.differences(path, whole) if codes == [0, 0] else [f"exit codes {codes}"]
    tally.add("loss" if differ else "right", what, f"{differ[:5]} {runs.output(path)}")


def heeds_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def while_importing(tally, seed, i, words, whole, folder):
    """A signal before the run's own code has begun: nothing is there yet that could be lost."""
    rng, path = mutators.seeded(seed, "import", i), folder / f"import-{i}"
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[i % 3]
    with open(f"{path}.output", "w") as f:
        command = [sys.executable, "train.py", *map(str, words), "--run", str(path)]
        # as a shell's foreground starts it: in the background SIGINT is ignored
        process = subprocess.Popen(command, stdout=f, stderr=f, cwd=ROOT, preexec_fn=heeds_ctrl_c)
    time.sleep(rng.uniform(0.05, 3))
    process.send_signal(number)
    what = f"{i}: {number.name} during the imports"
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        tally.add("hang", what)
        return
    runs.verdict(tally, what, words, path, whole)
