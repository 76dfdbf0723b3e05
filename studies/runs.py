"""Runs of train.py side by side, each on one thread; whatever stops them, the same command goes on.

    Job                          one run: its key, the flags of train.py, what of its folder stays
    run_all(jobs, records, args) what has no record yet -> the names of the runs that failed

A run is in OUT/KEY, what it printed in OUT/KEY.log. At most args.jobs at a time, and no more than
this process has cores. A finished run's numbers go into the JSON file at once (records.py), and its
folder keeps its logs alone, unless --keep is given; an interrupted run is resumed. The first run on
a machine goes alone, so that the hours of all that is planned can be said before they are spent.
"""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import config
from data import InputError
from engine import flags
from engine.outputs import folder_to_write
from engine.speech import run_script
from studies import frozen
from studies.records import place, read_json, record_of

TRAIN = config.ROOT / "train.py"
POLL_SECONDS = 1.0

# settings that change nothing that is learned
MAY_DIFFER = {*config.CHANGEABLE, "dev_every", "run", "resume", "save_every"} - {"iterations"}
DROPPED = ("checkpoint", "checkpoint.previous", "checkpoint.part", "solver", "generator")


@dataclass(frozen=True, eq=False)
class Job:
    key: str
    flags: dict         # of train.py: {field: value}
    keep: tuple = ()    # what of DROPPED stays all the same
    needs: tuple = ()   # what must be made before; its study knows how

    @property
    def iterations(self):
        return self.flags["iterations"]

    def folder(self, out):
        return os.path.join(out, self.key)


# ---------------------------------------------------------------- how far a run is

def lines_of(run):
    """Lines of the run's metrics.jsonl, as text; one that was cut short is left out."""
    path = Path(run, "metrics.jsonl")
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def metrics_of(run):
    return [json.loads(line) for line in lines_of(run)]


def state(job, out):
    """-> "new", "begun", "finished", or what the run in the job's folder has that the job does not
    ask for.

    The last line of metrics.jsonl comes before the models are saved, the generator last.
    """
    run = job.folder(out)
    saved = read_json(Path(run, "config.json"))
    if saved is None:
        return "new"

    asked = flags.from_flags({**job.flags, "run": run})
    differ = []
    for name in config.SETTINGS:
        if name in saved and name not in MAY_DIFFER and not fits(getattr(asked, name), saved[name]):
            differ.append(f"{name} {saved[name]}, not {getattr(asked, name)}")
    if differ:
        what = "; ".join(differ)
        return f"{run} holds another run ({what}); give another --out, or move it away"
    unsaved = Path(run, "checkpoint").exists() and not Path(run, "generator").exists()
    return "finished" if len(lines_of(run)) >= job.iterations and not unsaved else "begun"


def fits(asked, saved):
    """Is the setting that a run saved the one that was asked for?

    `auto` leaves it to the run, which settles it at its start and saves what it settled on.

    >>> fits("auto", "fp32"), fits("bf16", "fp32"), fits("/a/toy/dev.json", "/b/toy/dev.json")
    (True, False, True)
    """
    return asked == "auto" or place(asked) == place(saved)


# ---------------------------------------------------------------- running them

def run_all(jobs, records, args, plans=None, lock=None):
    """Run what has no record -> the names of the runs that failed.

    plans: {name: iterations of all its runs}, whose hours are said once one run was timed. lock:
    of `held`, where the caller has it.
    """
    with contextlib.nullcontext(lock) if lock else held(args.out) as lock:
        todo, failed = what_is_left(jobs, records, args)
        total = sum(job.iterations for job in todo)
        with tqdm(total=total, unit="iteration", disable=None) as bar:
            if plans and todo and not records.seconds_per_iteration():
                tqdm.write(f"timing one run on one thread: {todo[0].key}")
                failed += work_off(todo[:1], records, args, lock, bar, at_once=1)
                todo = todo[1:]
            if plans:
                say_hours(plans, records, args)
            return failed + work_off(todo, records, args, lock, bar, at_once=args.jobs)


def what_is_left(jobs, records, args):
    """-> (jobs to start or resume, names of the runs whose folder holds another run); both said.

    A run that ended just before its race was stopped is recorded now.
    """
    todo, refused = [], []
    for job in records.left(jobs):
        how = state(job, args.out)
        if how == "finished":
            remember(job, records, args)
        elif how in ("new", "begun"):
            todo.append(job)
        else:
            tqdm.write(f"not run: {how}")
            refused.append(job.key)
    tqdm.write(f"{len(jobs)} runs, recorded in {records.path}: "
               f"{len(jobs) - len(todo) - len(refused)} finished, {len(todo)} to do, "
               f"{args.jobs} at a time")
    return todo, refused


def say_hours(plans, records, args):
    """How long each plan takes from its start on this machine, by the runs it has seen."""
    known = records.seconds_per_iteration()
    if not known:
        return
    pace = float(np.mean(known))
    tqdm.write(f"{pace:.1f} s an iteration on one thread here; from the start on, {args.jobs} runs "
               "at a time:")
    for name, iterations in plans.items():
        hours = iterations * pace / args.jobs / 3600
        tqdm.write(f"    {name}: about {hours:.1f} hours ({iterations} iterations)")


def work_off(todo, records, args, lock, bar, at_once):
    """Run the jobs -> the names of those that failed. One failure does not stop the others."""
    waiting = list(todo)
    running = {}                # {process: job}
    failed = []
    ended_before = bar.n
    began = iterations_done(todo, args)
    started = time.time()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[start(job, args, lock)] = job

            time.sleep(POLL_SECONDS)
            done = iterations_done(todo, args)
            bar.n = ended_before + done
            bar.refresh()

            pace = (time.time() - started) / max(1, done - began)
            for process in [process for process in running if process.poll() is not None]:
                job = running.pop(process)
                left = pace * (bar.total - bar.n)
                if not ended_well(job, process.returncode, records, args, left):
                    failed.append(job.key)
    finally:
        stop(running)
    return failed


def iterations_done(jobs, args):
    return sum(min(len(lines_of(job.folder(args.out))), job.iterations) for job in jobs)


@contextlib.contextmanager
def held(folder):
    """One study in a folder at a time -> its lock, which InputError says is another's.

    The runs inherit the lock, so it also holds while one of them outlives a study that was killed.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another study, or a run that it left behind, "
                             "is still at work here") from None
        yield lock


def start(job, args, lock):
    """Start or resume the job's run -> its process. RUN/started.jsonl notes what code it runs."""
    run = job.folder(args.out)
    if os.path.exists(os.path.join(run, "config.json")):
        words = ["--resume", run]
    else:
        words = [f"--{name}={value}" for name, value in job.flags.items()] + [f"--run={run}"]

    os.makedirs(run, exist_ok=True)
    note = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": frozen.commit(),
        "command": ["train.py", *words],
    }
    with open(os.path.join(run, "started.jsonl"), "a") as f:
        f.write(json.dumps(note) + "\n")

    with open(f"{run}.log", "a") as log:
        # A session of its own: Ctrl-C reaches the study alone, which passes it on.
        return subprocess.Popen([sys.executable, str(TRAIN), *words], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=subprocess.STDOUT,
                                env=os.environ | {"OMP_NUM_THREADS": "1"},
                                pass_fds=(lock.fileno(),), start_new_session=True)


def ended_well(job, code, records, args, left):
    """Say how a run ended -> whether it is finished; then it is recorded.

    left: seconds until all runs have ended.
    """
    run = job.folder(args.out)
    how = state(job, args.out)
    if code or how != "finished":
        why = f"exit code {code}" if code else f"exit code 0, but it is not finished: {how}"
        log = Path(f"{run}.log").read_text(encoding="utf-8", errors="replace")
        end = "\n    ".join(log.splitlines()[-6:])
        tqdm.write(f"{job.key} failed with {why}. The end of {run}.log:\n    {end}")
        return False

    record = remember(job, records, args)
    last = record["test_accuracy"][-1]
    test = "-" if last is None else f"{100 * last:.1f}"
    tqdm.write(f"{job.key}: test {test} %, {60 * record['hours']:.1f} min; "
               f"about {tqdm.format_interval(left)} left")
    return True


def remember(job, records, args):
    """A finished run -> its record, in the file; then what is not needed any more goes."""
    run = job.folder(args.out)
    notes = Path(run, "started.jsonl").read_text(encoding="utf-8").splitlines()
    commits = sorted({json.loads(line)["commit"] for line in notes})
    record = record_of(job, metrics_of(run), "; ".join(commits)) | {"moved": moved(run)}
    records.add(job, record)
    for name in DROPPED:
        if not args.keep and name not in job.keep:
            shutil.rmtree(os.path.join(run, name), ignore_errors=True)
    return record


def moved(run):
    """-> how far the run's generator ended from where it began: the norm of the difference of its
    weights; None where it left none."""
    saved = read_json(Path(run, "config.json"))
    began = Path(saved.get("generator_model") or saved.get("model") or "", "model.safetensors")
    ended = Path(run, "generator", "model.safetensors")
    if not began.exists() or not ended.exists():
        return None
    # Here, not at the top: a study of a fake needs none of it.
    from safetensors.numpy import load_file

    before, after = load_file(began), load_file(ended)
    squares = [float(np.sum((after[name] - before[name]) ** 2)) for name in before]
    return round(sum(squares) ** 0.5, 4)


def stop(running):
    """Ctrl-C for every run, and time to write what it has."""
    for process in running:
        process.send_signal(signal.SIGINT)
    for process in running:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


# ---------------------------------------------------------------- what the commands share

def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def add_flags(parser, arms, seeds, iterations):
    """The flags of every study that runs train.py many times, with its own defaults."""
    parser.add_argument("--arms", help=f"comma-separated, only these, of {', '.join(arms)}")
    parser.add_argument("--seeds", type=int, help=f"of each arm (default {seeds})")
    parser.add_argument("--iterations", type=int, help=f"of each run (default {iterations})")
    parser.add_argument("--jobs", type=int, default=cores(),
                        help=f"runs at a time (default {cores()}, the cores it may use, at most)")
    parser.add_argument("--file", help="the JSON file of the results; what it holds is not run "
                                       "again")
    parser.add_argument("--out", help="folder of the runs; may be lost once they have ended")
    parser.add_argument("--keep", action="store_true",
                        help="keep the checkpoints and models of finished runs")
    parser.add_argument("--summary", action="store_true", help="run nothing, sum up what is there")


def settle_places(args, out, name, reported=None):
    """Where runs and results go, and how many at a time, as far as the flags left it open.

    out: folder of the runs; reported: file of the results; None: `name` in that folder.
    """
    args.out = args.out or out
    args.file = args.file or reported or os.path.join(args.out, name)
    folder_to_write("--out", args.out)
    folder_to_write("--file", os.path.dirname(args.file) or ".")
    args.jobs = max(1, min(args.jobs, cores()))


def command(play, argv):
    """Play a study -> exit code: 0, 1 if a run failed, 2 for wrong input, 130 after Ctrl-C.

    play(argv) -> the names of the runs that failed.
    """
    # Also where the shell had SIGINT ignored, in us and so in the runs.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        failed = run_script(lambda: play(argv), "stopped. The same command goes on from here.")
    except SystemExit as end:
        return end.code
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
