"""Which way to pay a generator serves the solver best? Rewards and ablations over several seeds.

    python -m studies.race search       chooses each reward's generator learning rate: 3 rates on
                                        one seed, 20 iterations
    python -m studies.race              the race: 7 rewards x 8 seeds and 5 ablations x 5 seeds of
                                        30 iterations; hours
    python -m studies.race --quick      the 7 rewards x 3 seeds of 20 iterations; at most 20
                                        minutes on two cores
    python -m studies.race --summary    no run: sums up the runs that are there

    arm     flags of train.py, and a generator learning rate if its generator moves
    job     one run: an arm on a seed

A run is train.py on one thread, at most one per core, in OUT/ARM-seedS; what it printed is in
OUT/ARM-seedS.log. Runs go seed by seed, so that a race that was stopped has treated all arms alike.
The same command goes on: finished runs are skipped, interrupted ones resumed. A finished run keeps
its logs alone, unless --keep is given. Results (standings.py): race.json, race-tables.md and
figures, in docs/results/ for the whole race, else in OUT. The measure, test accuracy after the last
iteration, was fixed in advance.

The solver's budget is the same for all, and on a seed all meet the same documents in the same
order. Rates are chosen by the dev questions, never by the test questions or by what only the
embedded world knows, on a seed that is not reported (search_jobs, late_dev_accuracy).
"""
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
from engine import flags, presets
from engine.arguments import Parser
from engine.outputs import folder_to_write
from engine.speech import complain
from data import InputError
from studies.standings import agreement, standings, table
from studies import figures

REWARDS = ("influence", "spice", "rzero", "azr", "learnability", "random", "fixed")
ARMS = {name: {"reward": name} for name in REWARDS} | {         # arm: flags of train.py
    "cosine":    {"reward": "influence", "similarity": "cosine"},
    "group_std": {"reward": "influence", "advantage": "group_std"},
    "batch_std": {"reward": "influence", "advantage": "batch_std"},
    "none":      {"reward": "influence", "advantage": "none"},
    # trains on as many dev questions as the others draw drafts
    "dev_only":  {"reward": "fixed", "train_on": "dev"},
}
ABLATIONS = tuple(arm for arm in ARMS if arm not in REWARDS)

# reported seeds: FIRST_SEED, FIRST_SEED + 1, ...
FIRST_SEED = 1000
ABLATION_SEEDS = 5
SEARCH_SEEDS = (100,)

# of the generator; text, since it names folders
RATES = ("5e-5", "1.5e-4", "4.5e-4")
DEFAULT_RATE = "1.5e-4"

PLANS = {
    "search": dict(iterations=20, seeds=len(SEARCH_SEEDS), out="-search"),
    "quick":  dict(iterations=20, seeds=3, out="-quick"),
    "race":   dict(iterations=30, seeds=8, out=""),
}
EVAL_EVERY = 5
POLL_SECONDS = 1.0

TRAIN = config.ROOT / "train.py"
DOCS = config.ROOT / "docs/results"

# settings that change nothing that is learned
MAY_DIFFER = {*config.CHANGEABLE, "dev_every", "run", "resume", "save_every"} - {"iterations"}
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
    flags = {
        "preset": args.world,
        **ARMS[arm],
        "seed": seed,
        "iterations": args.iterations,
        "threads": 1,
        "show_every": 0,
        "eval_every": EVAL_EVERY,
        "dev_every": EVAL_EVERY,
        "checkpoint_every": max(1, args.iterations // 3),
    }
    if moves(arm):
        flags["generator_lr"] = rate
    return Job(arm, seed, flags | changes, os.path.join(args.out, name))


def race_jobs(args):
    """-> the jobs of the race, all arms of a seed before the next seed.

    An ablation has only the first few seeds.
    """
    rates = {arm: chosen_rate(arm, args.world) for arm in args.arms}
    jobs = []
    for i in range(args.seeds):
        seed = FIRST_SEED + i
        for arm in args.arms:
            if arm in REWARDS or i < ABLATION_SEEDS:
                jobs.append(make_job(arm, seed, rates[arm], args, f"{arm}-seed{seed}"))
    return jobs


def search_jobs(args):
    """-> the jobs of the search: every rate for every reward that moves a generator."""
    searched = [arm for arm in args.arms if arm in REWARDS and moves(arm)]
    jobs = []
    for seed in SEARCH_SEEDS[:args.seeds]:
        for arm in searched:
            for rate in RATES:
                name = f"{arm}-lr{rate}-seed{seed}"
                jobs.append(make_job(arm, seed, rate, args, name, dev_every=2,
                                     eval_every=args.iterations))
    return jobs


def search_file():
    """{world: {arm: what the search found}}"""
    return DOCS / "race-search.json"


def chosen_rate(arm, world):
    """-> the generator learning rate of an arm as text, None if its generator does not move.

    The search's on this world, else on the first one, else the default, which is said. Ablations
    take influence's.
    """
    if not moves(arm):
        return None
    searched = read_json(search_file(), {})
    reward = ARMS[arm]["reward"]
    found = searched.get(world, {}).get(reward) or searched.get("toy", {}).get(reward)
    if found:
        return found["generator_lr"]

    tqdm.write(f"{arm}: no search on the world {world} in {search_file().name}, "
               f"so its generator_lr is the default {DEFAULT_RATE}")
    return DEFAULT_RATE


def read_json(path, otherwise=None):
    if not os.path.exists(path):
        return otherwise
    return json.loads(Path(path).read_text(encoding="utf-8"))


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


def state(job):
    """-> "new", "begun", "finished", or what the run in the job's folder has that the job does not
    ask for."""
    saved = read_json(Path(job.run, "config.json"))
    if saved is None:
        return "new"

    asked = flags.from_flags({**job.flags, "run": job.run})
    differ = []
    for name in config.SETTINGS:
        if name in saved and name not in MAY_DIFFER and not fits(getattr(asked, name), saved[name]):
            differ.append(f"{name} {saved[name]}, not {getattr(asked, name)}")
    if differ:
        what = "; ".join(differ)
        return f"{job.run} holds another run ({what}); give another --out, or move it away"

    finished = len(lines_of(job.run)) >= job.flags["iterations"]
    return "finished" if finished else "begun"


def fits(asked, saved):
    """Is the setting that a run saved the one that was asked for?

    `auto` leaves it to the run, which settles it at its start and saves what it settled on.
    Of a path the last two parts count, since the repository may have moved.

    >>> fits("auto", "fp32"), fits("bf16", "fp32"), fits("/a/toy/dev.json", "/b/toy/dev.json")
    (True, False, True)
    """
    return asked == "auto" or place(asked) == place(saved)


def place(value):
    return "/".join(Path(value).parts[-2:]) if isinstance(value, str) else value


# ---------------------------------------------------------------- running it

def run_all(jobs, args):
    """Run what is not finished, args.jobs at a time -> the names of the runs that failed."""
    os.makedirs(args.out, exist_ok=True)
    todo, failed = what_is_left(jobs, args)
    total = len(todo) * args.iterations
    done = iterations_done(todo, args)
    with (open(os.path.join(args.out, ".lock"), "w") as lock,
          tqdm(total=total, initial=done, unit="iteration", disable=None) as bar):
        hold(lock, args.out)
        return failed + work_off(todo, args, lock, bar)


def what_is_left(jobs, args):
    """-> (jobs to start or resume, names of the runs whose folder holds another run); both said."""
    states = {job: state(job) for job in jobs}
    todo = [job for job in jobs if states[job] in ("new", "begun")]
    finished = [job for job in jobs if states[job] == "finished"]
    refused = [job for job in jobs if job not in todo and job not in finished]

    for job in refused:
        tqdm.write(f"not run: {states[job]}")
    tqdm.write(f"{len(jobs)} runs in {args.out}: {len(finished)} finished, {len(todo)} to do, "
               f"{args.jobs} at a time")
    return todo, [job.run for job in refused]


def iterations_done(jobs, args):
    return sum(min(len(lines_of(job.run)), args.iterations) for job in jobs)


def work_off(todo, args, lock, bar):
    """Run the jobs -> the names of those that failed. One failure does not stop the others."""
    waiting = list(todo)
    running = {}                # {process: job}
    failed = []
    first = bar.n
    started = time.time()
    try:
        while waiting or running:
            while waiting and len(running) < args.jobs:
                job = waiting.pop(0)
                running[start(job, lock)] = job

            time.sleep(POLL_SECONDS)
            bar.n = iterations_done(todo, args)
            bar.refresh()

            pace = (time.time() - started) / max(1, bar.n - first)
            ended = [process for process in running if process.poll() is not None]
            for process in ended:
                job = running.pop(process)
                if not ended_well(job, process.returncode, args, pace * (bar.total - bar.n)):
                    failed.append(job.run)
    finally:
        stop(running)
    return failed


def hold(lock, folder):
    """One race in a folder at a time.

    The runs inherit the lock, so it also holds while one of them outlives a race that was killed.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another race, or a run that it left behind, "
                         "is still at work here")


def start(job, lock):
    """Start or resume the job's run -> its process. RUN/race.jsonl notes what code it runs."""
    if os.path.exists(os.path.join(job.run, "config.json")):
        words = ["--resume", job.run]
    else:
        words = [f"--{name}={value}" for name, value in job.flags.items()] + [f"--run={job.run}"]

    os.makedirs(job.run, exist_ok=True)
    note = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "command": ["train.py", *words],
    }
    with open(os.path.join(job.run, "race.jsonl"), "a") as f:
        f.write(json.dumps(note) + "\n")

    with open(f"{job.run}.log", "a") as log:
        # A session of its own: Ctrl-C reaches the race alone, which passes it on.
        return subprocess.Popen([sys.executable, str(TRAIN), *words], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=subprocess.STDOUT,
                                env=os.environ | {"OMP_NUM_THREADS": "1"},
                                pass_fds=(lock.fileno(),), start_new_session=True)


def commit():
    """-> the short hash of the code, with ", changed" if files that git knows differ from it;
    "unknown" without git."""
    try:
        head = git("rev-parse", "--short", "HEAD")
        changes = git("status", "--porcelain", "-uno", "--", "*.py", "toy")
    except FileNotFoundError:
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + (", changed" if changes.stdout.strip() else "")


def git(*words):
    return subprocess.run(["git", "-C", str(config.ROOT), *words], capture_output=True, text=True)


def ended_well(job, code, args, left):
    """Say how a run ended -> whether it is finished; then what is not needed any more goes.

    left: seconds until the race ends.
    """
    name = os.path.basename(job.run)
    how = state(job)
    if code or how != "finished":
        why = f"exit code {code}" if code else f"exit code 0, but it is not finished: {how}"
        log = Path(f"{job.run}.log").read_text(encoding="utf-8", errors="replace")
        end = "\n    ".join(log.splitlines()[-6:])
        tqdm.write(f"{name} failed with {why}. The end of {job.run}.log:\n    {end}")
        return False

    lines = metrics_of(job.run)
    minutes = sum(sum(line["seconds"].values()) for line in lines) / 60
    last = lines[-1]["test_accuracy"]
    test = "-" if last is None else f"{100 * last:.1f}"
    tqdm.write(f"{name}: test {test} %, {minutes:.1f} min; "
               f"about {tqdm.format_interval(left)} left")
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
    """Write what the search found into docs/results/race-search.json, beside what it holds of other
    arms and worlds; say it."""
    found = read_json(search_file(), {})
    for arm in dict.fromkeys(job.arm for job in jobs):
        of_arm = [job for job in jobs if job.arm == arm]
        if any(state(job) != "finished" for job in of_arm):
            print(f"{arm}: not all its runs are finished, so nothing is chosen")
            continue
        found.setdefault(args.world, {})[arm] = choose(of_arm, args)
    write_json(search_file(), found)


def choose(jobs, args):
    """Finished jobs of one arm -> the rate with the best late dev accuracy, and what that was."""
    dev = {rate: {} for rate in RATES}          # {rate: {seed: accuracy}}
    for job in jobs:
        dev[job.flags["generator_lr"]][job.seed] = late_dev_accuracy(job)

    means = {rate: np.mean(list(dev[rate].values())) for rate in RATES}
    best = max(RATES, key=means.get)
    at_the_edge = best in (RATES[0], RATES[-1])

    said = "  ".join(f"{rate}: {mean:.3f}" for rate, mean in means.items())
    edge = ", the edge of what was tried" if at_the_edge else ""
    print(f"{jobs[0].arm:13}{said}  -> {best}{edge}")
    return {
        "generator_lr": best,
        "at_the_edge": at_the_edge,
        "iterations": args.iterations,
        "dev_accuracy": dev,
    }


def late_dev_accuracy(job):
    """Mean accuracy on the dev questions over the last third of the iterations."""
    iterations = job.flags["iterations"]
    late = [line for line in metrics_of(job.run) if 3 * line["iteration"] > 2 * iterations]
    known = [line["dev_accuracy"] for line in late if line["dev_accuracy"] is not None]
    return float(np.mean(known))


def write_json(path, content):
    """Indented JSON with the innermost lists on one line, whole or not at all."""
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda part: " ".join(part[0].split()), text)
    Path(f"{path}.part").write_text(text + "\n", encoding="utf-8")
    os.replace(f"{path}.part", path)


# ---------------------------------------------------------------- what came out

def summarise(jobs, args):
    """Write race.json, race.md and the figures from the finished runs; print the table and what it
    says."""
    done = [job for job in jobs if state(job) == "finished"]
    if not done:
        raise InputError(f"{args.out}: no finished run to sum up")
    whole = args.whole and len(done) == len(jobs)

    found = about(args, done, jobs) | standings(arms_of(done, args), args.iterations, EVAL_EVERY)
    found["hours"] = round(sum(x["hours"] for x in found["arms"].values()), 2)
    published = read_json(DOCS / f"{stem(args.world)}.json")
    if published and not whole:
        found["conclusion"].append(agreement(found, published))

    base = str(DOCS / stem(args.world)) if whole else os.path.join(args.out, "race")
    sentences = "\n".join(found["conclusion"])
    text = f"{table(found)}\n\n{sentences}\n\n{small_print(found)}\n"
    write_json(f"{base}.json", found)
    Path(f"{base}-tables.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{base}.json, {base}-tables.md")
    draw_figures(f"{base}.json")


def arms_of(done, args):
    """Finished jobs -> {arm: what standings.standings needs of it}, in the order asked for."""
    arms = {}
    for arm in args.arms:
        jobs = [job for job in done if job.arm == arm]
        if jobs:
            arms[arm] = {
                "ablation": arm in ABLATIONS,
                "flags": ARMS[arm],
                "generator_lr": jobs[-1].flags.get("generator_lr"),
                "runs": {job.seed: metrics_of(job.run) for job in jobs},
            }
    return arms


def draw_figures(path):
    """Without matplotlib, which nothing else here needs, one line says so."""
    figures.main(["race", path])


def about(args, done, jobs):
    """-> where the results come from: world, date, commits, machine."""
    # Here, not at the top: it needs torch, which running the race does not.
    from tools.bench import machine

    here = {name: value for name, value in machine().items() if name not in ("load", "threads")}
    return {
        "world": args.world,
        "date": time.strftime("%Y-%m-%d"),
        "commits": commits_of(done) or ["unknown"],
        "runs": f"{len(done)} of {len(jobs)}",
        "search_seeds": list(SEARCH_SEEDS),
        "machine": here,
    }


def commits_of(jobs):
    """-> the commits that their runs noted, sorted."""
    commits = set()
    for job in jobs:
        path = Path(job.run, "race.jsonl")
        if path.exists():
            commits |= {json.loads(line)["commit"] for line in path.read_text().splitlines()}
    return sorted(commits)


def small_print(found):
    first = min(min(x["seeds"]) for x in found["arms"].values())
    last = max(max(x["seeds"]) for x in found["arms"].values())
    return (f"Percent: mean [95 % interval over seeds {first} to {last}]. Differences are paired "
            f"by seed, p is that of flipping their signs. Keys, target share and valid: means of "
            f"the last five iterations.\n"
            f"World {found['world']}, {found['iterations']} iterations, {found['runs']} runs, "
            f"{found['hours']} hours of one core, commit {'; '.join(found['commits'])}, "
            f"{found['date']}, {found['machine']['cpu']}.")


def stem(world):
    """What a world's results are called.

    >>> stem("toy"), stem("toy-hard")
    ('race', 'race-hard')
    """
    return "race" + world.removeprefix("toy")


# ---------------------------------------------------------------- the command

def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def read_flags(argv):
    parser = Parser("python -m studies.race", __doc__)
    parser.add_argument("what", nargs="?", default="race", choices=("race", "search"))
    parser.add_argument("--quick", action="store_true",
                        help="the rewards alone, fewer seeds and iterations")
    parser.add_argument("--summary", action="store_true",
                        help="run nothing, sum up what is there")
    parser.add_argument("--arms", help=f"comma-separated, among {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, help="how many; ablations have at most 5")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--world", default="toy", help="toy or toy-hard")
    parser.add_argument("--jobs", type=int, default=cores(),
                        help="runs at a time; never more than the cores it may use")
    parser.add_argument("--out", help="folder of the runs; default runs/race, runs/race-hard, "
                                      "with -quick or -search behind it")
    parser.add_argument("--keep", action="store_true",
                        help="keep the checkpoints and models of finished runs")
    return check(fill_in(parser.parse_args(argv)))


def fill_in(args):
    """What was not given -> the plan's."""
    as_planned = (args.arms, args.seeds, args.iterations) == (None, None, None)
    args.whole = args.what == "race" and not args.quick and as_planned

    plan = PLANS["quick" if args.quick and args.what == "race" else args.what]
    if args.seeds is None:
        args.seeds = plan["seeds"]
    if args.iterations is None:
        args.iterations = plan["iterations"]
    if args.arms:
        args.arms = args.arms.split(",")
    else:
        args.arms = list(REWARDS if args.quick else ARMS)
    args.out = args.out or f"runs/{stem(args.world)}{plan['out']}"
    args.jobs = max(1, min(args.jobs, cores()))
    return args


def check(args):
    for arm in args.arms:
        if arm not in ARMS:
            raise InputError(f"--arms {arm}: expected some of {', '.join(ARMS)}")
    worlds = [name for name in presets.PRESETS if name.startswith("toy")]
    if args.world not in worlds:
        raise InputError(f"--world {args.world}: expected one of {', '.join(worlds)}")
    if args.seeds < 1 or args.iterations < 1:
        raise InputError(f"--seeds {args.seeds} --iterations {args.iterations}: "
                         "expected at least 1 of each")
    folder_to_write("--out", args.out)
    return args


def main(argv=None):
    """-> exit code: 0, 1 if a run failed, 2 for wrong input, 130 after Ctrl-C."""
    # Also where the shell had SIGINT ignored, in us and so in the runs.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    failed = []
    try:
        args = read_flags(argv)
        jobs = search_jobs(args) if args.what == "search" else race_jobs(args)
        if not args.summary:
            failed = run_all(jobs, args)
        if failed:
            print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)

        if args.what == "search":
            save_search(jobs, args)
        else:
            summarise(jobs, args)
    except InputError as error:
        complain(str(error))
        return 1 if failed else 2
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
