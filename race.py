"""Which way to pay a generator serves the solver best? Every reward and every ablation over several seeds, the solver's budget the same.

    python race.py search            chooses each reward's generator learning rate: 3 rates on one seed, 20 iterations
    python race.py                   the race: 7 rewards x 8 seeds and 5 ablations x 5 seeds of 30 iterations; hours
    python race.py --quick           the 7 rewards x 3 seeds of 20 iterations; at most 20 minutes on two cores
    python race.py --summary         no run: results, table and figures from the runs that are there

Each run is train.py on one thread, at most one run per core: OUT/ARM-seedS, and what it printed in OUT/ARM-seedS.log. Runs go seed by seed,
so that a race that was stopped has treated all arms alike. The same command goes on: finished runs are skipped, interrupted ones resumed. A
finished run is needed for its logs alone, so its checkpoint/, solver/ and generator/ are removed unless --keep is given.

What comes out (standings.py): race.json, race.md and figures, in docs/ for the whole race, else in OUT. The measure, test accuracy after
the last iteration, was fixed in advance.

    arm         flags of train.py, and a generator learning rate if its generator moves
    job         one run: an arm on a seed

The rates are chosen by the accuracy on the dev questions over the last third of the search, never by the test questions or by what only the
embedded world knows (are the keys right). Every reward that moves a generator gets the same search, on a seed that is never reported; the
ablations of influence take influence's rate. On a seed all arms meet the same documents in the same order. dev_only trains on as many dev
questions as the others draw drafts.
"""
import argparse
import fcntl
import json
import os
import re
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
from standings import agreement, standings, table

REWARDS = ("influence", "spice", "rzero", "azr", "learnability", "random", "fixed")
ARMS = {name: {"reward": name} for name in REWARDS} | {         # arm: flags of train.py
    "cosine": {"reward": "influence", "similarity": "cosine"},
    "group_std": {"reward": "influence", "advantage": "group_std"},
    "batch_std": {"reward": "influence", "advantage": "batch_std"},
    "none": {"reward": "influence", "advantage": "none"},
    "dev_only": {"reward": "fixed", "train_on": "dev"},
}
ABLATIONS = tuple(arm for arm in ARMS if arm not in REWARDS)
FIRST_SEED, ABLATION_SEEDS = 1000, 5                            # reported seeds: FIRST_SEED, FIRST_SEED + 1, ...
SEARCH_SEEDS = (100,)
RATES, DEFAULT_RATE = ("5e-5", "1.5e-4", "4.5e-4"), "1.5e-4"    # of the generator; text, since it names folders
PLANS = {"search": dict(iterations=20, seeds=len(SEARCH_SEEDS), out="-search"), "quick": dict(iterations=20, seeds=3, out="-quick"),
         "race": dict(iterations=30, seeds=8, out="")}
EVAL_EVERY, POLL_SECONDS = 5, 1.0
ROOT = Path(__file__).resolve().parent
TRAIN, DOCS = ROOT / "train.py", ROOT / "docs"
MAY_DIFFER = {*config.CHANGEABLE, "dev_every", "run", "resume", "save_every"} - {"iterations"}      # changes nothing that is learned
DROPPED = ("checkpoint", "checkpoint.previous", "checkpoint.part", "solver", "generator")


@dataclass(frozen=True, eq=False)
class Job:
    arm: str
    seed: int
    flags: dict         # of train.py: {field: value}
    run: str            # its folder


# ---------------------------------------------------------------- what is run

def moves(arm):
    return ARMS[arm]["reward"] != "fixed"


def make_job(arm, seed, rate, args, name, **changes):
    flags = {"preset": args.world, **ARMS[arm], "seed": seed, "iterations": args.iterations, "threads": 1, "show_every": 0,
             "eval_every": EVAL_EVERY, "dev_every": EVAL_EVERY, "checkpoint_every": max(1, args.iterations // 3)}
    flags |= {"generator_lr": rate} if moves(arm) else {}
    return Job(arm, seed, flags | changes, os.path.join(args.out, name))


def race_jobs(args):
    """-> the jobs of the race, all arms of a seed before the next seed; an ablation has only the first few seeds."""
    rates = {arm: chosen_rate(arm, args.world) for arm in args.arms}
    count = lambda arm: args.seeds if arm in REWARDS else min(args.seeds, ABLATION_SEEDS)
    return [make_job(arm, FIRST_SEED + i, rates[arm], args, f"{arm}-seed{FIRST_SEED + i}")
            for i in range(args.seeds) for arm in args.arms if i < count(arm)]


def search_jobs(args):
    """-> the jobs of the search: every rate for every reward that moves a generator."""
    return [make_job(arm, seed, rate, args, f"{arm}-lr{rate}-seed{seed}", dev_every=2, eval_every=args.iterations)
            for seed in SEARCH_SEEDS[:args.seeds] for arm in args.arms if arm in REWARDS and moves(arm) for rate in RATES]


def search_file():
    return DOCS / "race-search.json"                            # {world: {arm: what the search found}}


def chosen_rate(arm, world):
    """-> the generator learning rate of an arm as text: the search's on this world, else on the first one, else the default, which is said.

    Ablations take influence's.
    """
    if not moves(arm):
        return None
    searched, reward = read_json(search_file(), {}), ARMS[arm]["reward"]
    found = searched.get(world, {}).get(reward) or searched.get("toy", {}).get(reward)
    if found is None:
        tqdm.write(f"{arm}: no search on the world {world} in {search_file().name}, so its generator_lr is the default {DEFAULT_RATE}")
    return found["generator_lr"] if found else DEFAULT_RATE


def read_json(path, otherwise=None):
    return json.loads(Path(path).read_text(encoding="utf-8")) if os.path.exists(path) else otherwise


def lines_of(run):
    """Lines of the run's metrics.jsonl, as text; one that was cut short is left out."""
    path = Path(run, "metrics.jsonl")
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


def state(job):
    """-> "new", "begun", "finished", or what the run in the job's folder has that the job does not ask for."""
    saved = read_json(Path(job.run, "config.json"))
    if saved is None:
        return "new"
    wanted = config.from_flags({**job.flags, "run": job.run})
    place = lambda value: "/".join(Path(value).parts[-2:]) if isinstance(value, str) else value         # the repository may have moved
    differ = [f"{name} {saved[name]}, not {getattr(wanted, name)}" for name in config.SETTINGS
              if name in saved and name not in MAY_DIFFER and place(saved[name]) != place(getattr(wanted, name))]
    if differ:
        return f"{job.run} holds another run ({'; '.join(differ)}); give another --out, or move it away"
    return "finished" if len(lines_of(job.run)) >= job.flags["iterations"] else "begun"


# ---------------------------------------------------------------- running it

def run_all(jobs, args):
    """Run what is not finished, args.jobs at a time -> the names of the runs that failed. One failure does not stop the others."""
    os.makedirs(args.out, exist_ok=True)
    states = {job: state(job) for job in jobs}
    waiting, running, failed = [job for job in jobs if states[job] in ("new", "begun")], {}, []
    for job in jobs:
        if states[job] not in ("new", "begun", "finished"):
            failed.append(job.run)
            tqdm.write(f"not run: {states[job]}")
    finished = list(states.values()).count("finished")
    tqdm.write(f"{len(jobs)} runs in {args.out}: {finished} finished, {len(waiting)} to do, {args.jobs} at a time")
    todo = list(waiting)
    done = lambda: sum(min(len(lines_of(job.run)), args.iterations) for job in todo)
    total, first, started = len(todo) * args.iterations, done(), time.time()
    with open(os.path.join(args.out, ".lock"), "w") as lock, tqdm(total=total, initial=first, unit="iteration", disable=None) as bar:
        hold(lock, args.out)
        try:
            while waiting or running:
                while waiting and len(running) < args.jobs:
                    job = waiting.pop(0)
                    running[start(job, lock)] = job
                time.sleep(POLL_SECONDS)
                bar.n = n = done()
                bar.refresh()
                for process in [process for process in running if process.poll() is not None]:
                    job = running.pop(process)
                    left = (time.time() - started) / max(1, n - first) * (total - n)
                    failed += [] if ended_well(job, process.returncode, args, left) else [job.run]
        finally:
            stop(running)
    return failed


def hold(lock, folder):
    """One race in a folder at a time. The runs inherit the lock, so it also holds while one of them outlives a race that was killed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another race, or a run that it left behind, is still at work here")


def start(job, lock):
    """Start or resume the job's run -> its process. What code it runs is noted in RUN/race.jsonl."""
    resume = os.path.exists(os.path.join(job.run, "config.json"))
    words = ["--resume", job.run] if resume else [*(f"--{name}={value}" for name, value in job.flags.items()), f"--run={job.run}"]
    os.makedirs(job.run, exist_ok=True)
    with open(os.path.join(job.run, "race.jsonl"), "a") as f:
        f.write(json.dumps({"date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(), "command": ["train.py", *words]}) + "\n")
    with open(f"{job.run}.log", "a") as log:
        return subprocess.Popen([sys.executable, str(TRAIN), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                env=os.environ | {"OMP_NUM_THREADS": "1"}, pass_fds=(lock.fileno(),),
                                start_new_session=True)         # Ctrl-C reaches the race alone, which passes it on


def commit():
    """-> the short hash of the code beside this file, with ", changed" if the files git knows differ from it; "unknown" without git."""
    git = lambda *words: subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    try:
        head, changes = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "-uno", "--", "*.py", "toy")
    except FileNotFoundError:
        return "unknown"
    return head.stdout.strip() + (", changed" if changes.stdout.strip() else "") if head.returncode == 0 else "unknown"


def ended_well(job, code, args, left):
    """Say how a run ended -> whether it is finished; if so, remove what is not needed any more."""
    name = os.path.basename(job.run)
    if code or state(job) != "finished":
        end = Path(f"{job.run}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
        tqdm.write(f"{name} failed with exit code {code}. The end of {job.run}.log:\n    " + "\n    ".join(end))
        return False
    lines = [json.loads(line) for line in lines_of(job.run)]
    minutes = sum(sum(line["seconds"].values()) for line in lines) / 60
    last = lines[-1]["test_accuracy"]
    tqdm.write(f"{name}: test {'-' if last is None else f'{100 * last:.1f}'} %, {minutes:.1f} min; about {tqdm.format_interval(left)} left")
    if not args.keep:
        for folder in DROPPED:
            shutil.rmtree(os.path.join(job.run, folder), ignore_errors=True)
    return True


def stop(running):
    """Ctrl-C for every run, and time to write what it has."""
    for process in running:
        process.send_signal(signal.SIGINT)
    for process in running:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


# ---------------------------------------------------------------- the search

def save_search(jobs, args):
    """Write what the search found into docs/race-search.json, beside what it holds of other arms and worlds; say it."""
    found = read_json(search_file(), {})
    for arm in dict.fromkeys(job.arm for job in jobs):
        runs = {rate: [job for job in jobs if (job.arm, job.flags["generator_lr"]) == (arm, rate)] for rate in RATES}
        if any(state(job) != "finished" for js in runs.values() for job in js):
            print(f"{arm}: not all its runs are finished, so nothing is chosen")
            continue
        dev = {rate: {job.seed: late_dev_accuracy(job) for job in js} for rate, js in runs.items()}
        best = max(RATES, key=lambda rate: np.mean(list(dev[rate].values())))
        at_the_edge = best in (RATES[0], RATES[-1])
        found.setdefault(args.world, {})[arm] = {"generator_lr": best, "at_the_edge": at_the_edge, "iterations": args.iterations,
                                                 "dev_accuracy": dev}
        print(f"{arm:13}" + "  ".join(f"{rate}: {np.mean(list(x.values())):.3f}" for rate, x in dev.items())
              + f"  -> {best}" + (", the edge of what was tried" if at_the_edge else ""))
    write_json(search_file(), found)


def late_dev_accuracy(job):
    """Mean accuracy on the dev questions over the last third of the iterations."""
    lines = [json.loads(line) for line in lines_of(job.run)]
    late = [x["dev_accuracy"] for x in lines if 3 * x["iteration"] > 2 * job.flags["iterations"]]
    return float(np.mean([x for x in late if x is not None]))


def write_json(path, content):
    """Indented JSON with the innermost lists on one line, whole or not at all."""
    text = re.sub(r"\[[^\[\]{}]*\]", lambda part: " ".join(part[0].split()), json.dumps(content, indent=1))
    Path(f"{path}.part").write_text(text + "\n", encoding="utf-8")
    os.replace(f"{path}.part", path)


# ---------------------------------------------------------------- what came out

def summarise(jobs, args):
    """Write race.json, race.md and the figures from the finished runs; print the table and what it says."""
    done = [job for job in jobs if state(job) == "finished"]
    if not done:
        raise InputError(f"{args.out}: no finished run to sum up")
    runs = lambda arm: {job.seed: [json.loads(line) for line in lines_of(job.run)] for job in done if job.arm == arm}
    rate = {job.arm: job.flags.get("generator_lr") for job in done}
    arms = {arm: {"ablation": arm in ABLATIONS, "flags": ARMS[arm], "generator_lr": rate[arm], "runs": runs(arm)}
            for arm in args.arms if arm in rate}
    found = about(args, done, jobs) | standings(arms, args.iterations, EVAL_EVERY)
    found["hours"] = round(sum(x["hours"] for x in found["arms"].values()), 2)
    published = read_json(DOCS / f"{stem(args.world)}.json")
    whole = args.whole and len(done) == len(jobs)
    found["conclusion"] += [agreement(found, published)] if published and not whole else []
    base = str(DOCS / stem(args.world)) if whole else os.path.join(args.out, "race")
    write_json(f"{base}.json", found)
    text = f"{table(found)}\n\n" + "\n".join(found["conclusion"]) + f"\n\n{small_print(found)}\n"
    Path(f"{base}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{base}.json, {base}.md")
    draw_figures(f"{base}.json")


def draw_figures(path):
    """In a process of its own, since the figures need matplotlib and nothing here does; without it, one line says so."""
    subprocess.run([sys.executable, str(ROOT / "docs/race_figures.py"), path])


def about(args, done, jobs):
    from bench import machine                                   # needs torch, which running the race does not
    notes = [Path(job.run, "race.jsonl") for job in done]
    commits = {json.loads(line)["commit"] for path in notes if path.exists() for line in path.read_text().splitlines()}
    return {"world": args.world, "date": time.strftime("%Y-%m-%d"), "commits": sorted(commits) or ["unknown"],
            "runs": f"{len(done)} of {len(jobs)}", "search_seeds": list(SEARCH_SEEDS),
            "machine": {name: value for name, value in machine().items() if name not in ("load", "threads")}}


def small_print(found):
    seeds = sorted({seed for x in found["arms"].values() for seed in x["seeds"]})
    return (f"Percent: mean [95 % interval over seeds {seeds[0]} to {seeds[-1]}]. Differences are paired by seed, p is that of "
            f"flipping their signs. Keys, target share and valid: means of the last five iterations.\n"
            f"World {found['world']}, {found['iterations']} iterations, {found['runs']} runs, {found['hours']} hours of one core, "
            f"commit {'; '.join(found['commits'])}, {found['date']}, {found['machine']['cpu']}.")


def stem(world):
    return "race" + world.removeprefix("toy")                   # race, race-hard


# ---------------------------------------------------------------- the command

def read_flags(argv):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="race", choices=("race", "search"))
    parser.add_argument("--quick", action="store_true", help="the rewards alone, fewer seeds and iterations")
    parser.add_argument("--summary", action="store_true", help="run nothing, sum up what is there")
    parser.add_argument("--arms", help=f"comma-separated, among {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, help="how many; ablations have at most 5")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--world", default="toy", help="toy or toy-hard")
    parser.add_argument("--jobs", type=int, default=cores, help="runs at a time; never more than the cores it may use")
    parser.add_argument("--out", help="folder of the runs; default runs/race, runs/race-hard, with -quick or -search behind it")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints and models of finished runs")
    args = parser.parse_args(argv)
    plan = PLANS["search" if args.what == "search" else "quick" if args.quick else "race"]
    args.whole = args.what == "race" and not args.quick and (args.arms, args.seeds, args.iterations) == (None,) * 3
    args.arms = args.arms.split(",") if args.arms else list(REWARDS if args.quick else ARMS)
    args.seeds, args.iterations = [plan[name] if getattr(args, name) is None else getattr(args, name) for name in ("seeds", "iterations")]
    args.out = args.out or f"runs/{stem(args.world)}{plan['out']}"
    args.jobs = max(1, min(args.jobs, cores))
    for arm in args.arms:
        if arm not in ARMS:
            raise InputError(f"--arms {arm}: expected some of {', '.join(ARMS)}")
    worlds = [name for name in config.PRESETS if name.startswith("toy")]
    if args.world not in worlds:
        raise InputError(f"--world {args.world}: expected one of {', '.join(worlds)}")
    if args.seeds < 1 or args.iterations < 1:
        raise InputError(f"--seeds {args.seeds} --iterations {args.iterations}: expected at least 1 of each")
    return args


def main(argv=None):
    """-> exit code: 0, 1 if a run failed, 2 for wrong input, 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):              # also where the shell had SIGINT ignored, in us and so in the runs
        signal.signal(number, signal.default_int_handler)
    failed = []
    try:
        args = read_flags(argv)
        jobs = search_jobs(args) if args.what == "search" else race_jobs(args)
        failed = [] if args.summary else run_all(jobs, args)
        if failed:
            print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
        save_search(jobs, args) if args.what == "search" else summarise(jobs, args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if failed else 2
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
