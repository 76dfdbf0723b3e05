"""Which way to pay a generator serves the solver best? Fourteen arms, one search, eight seeds.

    python -m studies.race              the search, then the race: hours, in as many sittings
    python -m studies.race search       the search alone
    python -m studies.race --quick      seven arms x 3 seeds of 15 iterations, no search; at most 15
                                        minutes on two cores
    python -m studies.race --check 3    three rows of the table from scratch: do they come out?
    python -m studies.race --summary    no run: sums up the runs that are there

    arm      flags of train.py, and a generator learning rate if its generator moves
    search   of that rate: 5 of them, further ones while the best lies at the edge, on 3 seeds that
             are not reported, by the dev questions alone
    race     every arm on the same 8 seeds with the rate that its search found

Fixed in advance, in a commit of main's history that race.json names: this plan, and the measure,
test accuracy after the last iteration. On a seed all arms meet the same documents in the same
order; runs go seed by seed. race.json (docs/results/; of a trial OUT/) gets every run as it ends
and is all that must be kept (records.py); the table and the figure beside it are made of it, and
docs/results/race.md is filled in. Costs are counted as standings.py says.
"""
import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import config
from data import InputError
from engine import presets
from engine.arguments import Parser
from studies import figures, frozen
from studies.records import Records, cpu, fill_page, read_json
from studies.runs import Job, add_flags, command, run_all, settle_places
from studies.standings import (
    agreement, final_measure, points, runs_of, standings, t_interval, table, whole_table)

DOCS = config.ROOT / "docs/results"
TEACHER = "teacher"

REWARDS = ("influence", "spice", "rzero", "azr", "learnability", "random", "fixed")
ARMS = {name: {"reward": name} for name in REWARDS} | {         # arm: flags of train.py
    # the generator that influence made on a search seed writes, and moves no more
    "frozen":    {"reward": "fixed", "generator_model": TEACHER},
    "cosine":    {"reward": "influence", "similarity": "cosine"},
    "group_std": {"reward": "influence", "advantage": "group_std"},
    "batch_std": {"reward": "influence", "advantage": "batch_std"},
    "none":      {"reward": "influence", "advantage": "none"},
    "mixed":     {"reward": "influence + 0.5 spice"},
    # no generator: the solver trains on the dev questions
    "dev_only":  {"reward": "fixed", "train_on": "dev"},
}
QUICK = ("influence", "fixed", "spice", "azr", "learnability", "random", "dev_only")
# ways to pay a generator; the others are compared with influence alone
RANKED = (*REWARDS, "frozen")

# reported seeds: FIRST_SEED, FIRST_SEED + 1, ...
FIRST_SEED = 1000
SEEDS = 8
SEARCH_SEEDS = (100, 101, 102)
ITERATIONS = {"race": 30, "search": 20, "quick": 15}
EVAL_EVERY = 5

# Generator learning rates, each three times the last; text, since they name runs. The search begins
# with the five in the middle.
LADDER = ("1.9e-6", "5.6e-6", "1.7e-5", "5e-5", "1.5e-4", "4.5e-4", "1.35e-3", "4e-3", "1.2e-2")
FIRST_RATES = slice(2, 7)
DEFAULT_RATE = "1.5e-4"


# ---------------------------------------------------------------- what is run

def moves(arm):
    return ARMS[arm]["reward"] != "fixed"


def make_job(arm, seed, rate, args, key, iterations, keep=(), **changes):
    flags = {"preset": args.world, **ARMS[arm]}
    flags |= {"seed": seed, "iterations": iterations, "threads": 1, "show_every": 0,
              "eval_every": EVAL_EVERY, "dev_every": iterations,
              "checkpoint_every": max(1, iterations // 3)}
    if flags.get("generator_model") == TEACHER:
        flags["generator_model"] = os.path.join(args.out, TEACHER, "generator")
    if moves(arm):
        flags["generator_lr"] = rate
    return Job(key, flags | changes, keep)


def race_jobs(args, rates):
    """-> {arm: {seed: job}}, seeds in their order."""
    jobs = {arm: {} for arm in args.arms}
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        for arm in args.arms:
            jobs[arm][seed] = make_job(arm, seed, rates[arm], args, f"race/{arm}/{seed}",
                                       args.iterations)
    return jobs


def seed_by_seed(jobs):
    """{arm: {seed: job}} -> the jobs, all arms of a seed before the next: a race that was stopped
    has treated all alike."""
    each = []
    for of_arm in jobs.values():
        each += of_arm.values()
    return sorted(each, key=lambda job: job.flags["seed"])


def teacher_job(args, rate):
    """The run whose generator the arm frozen takes, on a seed of the search."""
    return make_job("influence", SEARCH_SEEDS[0], rate, args, TEACHER, args.iterations,
                    keep=("generator",))


# ---------------------------------------------------------------- the search

def search_jobs(arm, rates, args):
    """-> {rate: [a job of each search seed]}."""
    iterations = min(args.iterations, ITERATIONS["search"])
    jobs = {}
    for rate in rates:
        jobs[rate] = [make_job(arm, seed, rate, args, f"search/{arm}/{rate}/{seed}", iterations,
                               dev_every=2, eval_every=iterations)
                      for seed in SEARCH_SEEDS[:args.search_seeds]]
    return jobs


def search(args, records):
    """Search every arm whose generator moves, its grid widened until the best rate is not at the
    edge -> {arm: {"generator_lr", "at_the_edge", "dev_accuracy": {rate: mean}}}, failed runs."""
    rates = {arm: list(LADDER[FIRST_RATES]) for arm in args.arms if moves(arm)}
    while True:
        jobs = []
        for arm in rates:
            for of_rate in search_jobs(arm, rates[arm], args).values():
                jobs += of_rate
        jobs.sort(key=lambda job: job.flags["seed"])
        failed = []
        if not args.summary and records.left(jobs):
            failed = run_all(jobs, records, args, plans(args))
        if failed or records.left(jobs):
            return {}, failed

        found = {arm: choose(arm, rates[arm], args, records) for arm in rates}
        wider = {arm: beyond(rates[arm], x["generator_lr"]) for arm, x in found.items()}
        if not any(wider.values()):
            return found, []
        for arm, rate in wider.items():
            if rate:
                tqdm.write(f"{arm}: {found[arm]['generator_lr']} is best and lies at the edge, so "
                           f"{rate} is tried")
                rates[arm] = sorted([*rates[arm], rate], key=float)


def choose(arm, rates, args, records):
    """-> the rate with the best late accuracy on the dev questions, and what all of them had."""
    dev = {}
    for rate, jobs in search_jobs(arm, rates, args).items():
        dev[rate] = float(np.mean([late_dev_accuracy(records.of(job)) for job in jobs]))
    best = max(rates, key=dev.get)
    return {"generator_lr": best, "at_the_edge": best in (rates[0], rates[-1]),
            "dev_accuracy": dev}


def late_dev_accuracy(record):
    """Mean accuracy on the dev questions over the last third of the iterations."""
    curve = record["dev_accuracy"]
    late = [x for t, x in enumerate(curve, 1) if 3 * t > 2 * len(curve) and x is not None]
    return float(np.mean(late))


def beyond(rates, best):
    """The rate to try next, if the best of them lies at the edge and the ladder goes on; or None.

    >>> beyond(["5e-5", "1.5e-4"], "1.5e-4"), beyond(["5e-5", "1.5e-4", "4.5e-4"], "1.5e-4")
    ('4.5e-4', None)
    """
    place = LADDER.index(best)
    if best == rates[-1] and place + 1 < len(LADDER):
        return LADDER[place + 1]
    if best == rates[0] and place > 0:
        return LADDER[place - 1]
    return None


def chosen_rates(args, searched):
    """-> {arm: its generator learning rate as text, or None if its generator does not move}.

    Without a search of their own: those of the reported race on this world, else the default, which
    is said.
    """
    published = (read_json(DOCS / f"{stem(args.world)}.json") or {}).get("search", {})
    rates = {}
    for arm in {*args.arms, "influence"}:
        found = searched.get(arm) or published.get(arm)
        rates[arm] = None
        if moves(arm):
            rates[arm] = found["generator_lr"] if found else DEFAULT_RATE
            if not found and arm in args.arms:
                tqdm.write(f"{arm}: not searched on the world {args.world}, so its generator_lr is "
                           f"the default {DEFAULT_RATE}")
    return rates


# ---------------------------------------------------------------- the race

def plans(args):
    """-> {name: iterations of all its runs}, for the hours that are said."""
    moving = sum(moves(arm) for arm in args.arms)
    first = len(LADDER[FIRST_RATES]) * args.search_seeds
    of_search = moving * first * min(args.iterations, ITERATIONS["search"])
    found = {"search (without wider grids)": of_search} if of_search else {}
    if args.what == "race":
        found["race"] = len(args.arms) * args.seeds * args.iterations
    return found


def run_race(args, records, rates):
    """Run what is missing of the race -> its jobs, the names of the runs that failed."""
    jobs = race_jobs(args, rates)
    failed = []
    if not args.summary:
        left = records.left(seed_by_seed(jobs))
        if any(job.key.startswith("race/frozen/") for job in left):
            failed += make_teacher(args, records, rates["influence"])
        failed += run_all(seed_by_seed(jobs), records, args, plans(args))
    return jobs, failed


def make_teacher(args, records, rate):
    """Its record is not enough: the frozen arm needs the generator that it left behind."""
    job = teacher_job(args, rate)
    there = os.path.isdir(os.path.join(job.folder(args.out), "generator"))
    if not there and records.runs.pop(job.key, None):
        # it had ended: its logs alone would pass for a finished run
        shutil.rmtree(job.folder(args.out), ignore_errors=True)
    return run_all([job], records, args)


# ---------------------------------------------------------------- what came out

def summarise(jobs, searched, args, records):
    """Write the results into the JSON, the table and the figure beside it; print the table and what
    it says. Of some arms or seeds of the reported race, print only."""
    arms = arms_of(jobs, records)
    if not arms:
        raise InputError(f"{records.path}: no finished run to sum up")
    n = sum(len(x["keys"]) for x in arms.values())
    planned = sum(map(len, jobs.values()))

    # of arms that are not asked for now, the search stays known
    searched = records.found.get("search", {}) | searched
    found = about(args, records) | {"runs_done": f"{n} of {planned}", "search": searched}
    found |= standings(arms, records.runs)
    found["hours"] = round(sum(x["hours"] for x in records.runs.values()), 2)
    if args.reported and (args.chosen_arms or args.seeds != SEEDS):
        # the published p-values are of all arms together
        print(f"\n{table(found)}\n\n" + "\n".join(found["conclusion"])
              + "\n\nOf these arms and seeds alone; what is published from "
              f"{records.path} stays as it is.")
        return
    published = read_json(DOCS / f"{stem(args.world)}.json")
    if not args.reported and published and "pairs" in published:
        found["conclusion"].append(agreement(found, published))
    records.save(**found)

    base = os.path.splitext(records.path)[0]
    sentences = "\n".join(found["conclusion"])
    told = searches(searched) + checked(records.found.get("checks", [])) + small_print(found)
    text = (f"{table(found)}\n\n{sentences}\n\nWhole runs, means over the seeds:\n\n"
            f"{whole_table(found)}\n\n{told}\n")
    Path(f"{base}-tables.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{records.path}, {base}-tables.md")
    if args.reported:
        fill_page(f"{base}.md", "results", text)
    # Of a race in docs/ that is not whole, the figure waits: README shows it.
    if not args.reported or set(arms) == set(ARMS) and n == len(ARMS) * SEEDS:
        draw_figures(str(records.path))


def arms_of(jobs, records):
    """-> {arm: what standings needs of it} of the arms that have a finished run."""
    arms = {}
    for arm, of_arm in jobs.items():
        keys = {seed: job.key for seed, job in of_arm.items() if records.of(job)}
        if keys:
            first = next(iter(of_arm.values()))
            arms[arm] = {"ablation": arm not in RANKED, "flags": ARMS[arm], "keys": keys,
                         "generator_lr": first.flags.get("generator_lr")}
    return arms


def draw_figures(path):
    """Without matplotlib, which nothing else here needs, one line says so."""
    figures.main(["race", path])


def about(args, records):
    """-> where the results come from."""
    runs = records.runs.values()
    return {
        "world": args.world,
        "date": max(x["date"] for x in runs),
        "commits": sorted({x["commit"] for x in runs}),
        "search_seeds": list(SEARCH_SEEDS[:args.search_seeds]),
        "machines": sorted({x["cpu"] for x in runs}),
    }


def searches(searched):
    """What the search found, a line an arm."""
    lines = []
    for arm, x in searched.items():
        said = ", ".join(f"{rate}: {100 * dev:.1f}" for rate, dev in x["dev_accuracy"].items())
        edge = " (the edge of all that was tried)" if x["at_the_edge"] else ""
        lines.append(f"- {arm}: {x['generator_lr']}{edge}, of {said}")
    if not lines:
        return ""
    return "Generator learning rates by dev accuracy, percent:\n\n" + "\n".join(lines) + "\n\n"


def checked(checks):
    """What came out of every --check, a line a row."""
    if not checks:
        return ""
    lines = []
    for check in checks:
        said = [row_sentence(arm, row) for arm, row in check["rows"].items()]
        lines += [f"- {check['date']}, {check['cpu']}: {sentence}" for sentence in said]
    return "Rows run again from scratch:\n\n" + "\n".join(lines) + "\n\n"


def small_print(found):
    first = min(min(x["seeds"]) for x in found["arms"].values())
    last = max(max(x["seeds"]) for x in found["arms"].values())
    return (f"Percent: mean [95 % interval over seeds {first} to {last}]. Differences are paired "
            f"by seed, p is that of flipping their signs. Keys, target share and valid: means of "
            f"the last five iterations. Tokens x, seconds x: times influence's on the same seed, "
            f"where both get there.\n"
            f"World {found['world']}, {found['iterations']} iterations, {found['runs_done']} runs, "
            f"{found['hours']} hours of one core with the search, commit "
            f"{'; '.join(found['commits'])}, {found['date']}, {', '.join(found['machines'])}.")


def stem(world):
    """What a world's results are called.

    >>> stem("toy"), stem("toy-hard")
    ('race', 'race-hard')
    """
    return "race" + world.removeprefix("toy")


# ---------------------------------------------------------------- do three rows come out?

def check_rows(args, records, rates):
    """Rerun args.check rows of the table from scratch, drawn by chance unless --arms names them ->
    the names of the runs that failed. What came out goes into the JSON, too."""
    rows = records.found.get("arms", {})
    if not rows:
        raise InputError(f"{records.path}: holds no race to check; python -m studies.race runs one")
    if not args.chosen_arms:
        args.arms = random.sample(sorted(rows), min(args.check, len(rows)))
    args = replace_out(args, f"{args.out}-check-{time.strftime('%Y%m%d-%H%M%S')}")
    again = Records(os.path.join(args.out, "check.json"))
    jobs, failed = run_race(args, again, rates)

    verdicts = {}
    for arm in args.arms:
        done = {seed: again.of(job) for seed, job in jobs[arm].items()}
        done = {seed: record for seed, record in done.items() if record}
        if done and arm in rows:
            verdicts[arm] = compare_row(arm, done, rows[arm], records)
    checks = records.found.get("checks", [])
    checks.append({"date": time.strftime("%Y-%m-%d"), "commit": frozen.commit(), "cpu": cpu(),
                   "rows": verdicts})
    records.save(checks=checks)
    return failed


def compare_row(arm, done, row, records):
    """Say whether the mean of a row that was run again lies in the interval of the table."""
    before = final_measure(runs_of(row, records.runs))
    after = final_measure(done)
    mean = float(np.mean(list(after.values())))
    low, high = row["final"]["low"], row["final"]["high"]
    inside = low is not None and low <= mean <= high
    same = sum(after[seed] == before.get(seed) for seed in after)
    moved = t_interval([after[seed] - before[seed] for seed in after if seed in before])
    again = {"mean": mean, "recorded": row["final"], "within": inside, "same": same,
             "seeds": list(after), "moved": moved}
    print(row_sentence(arm, again))
    return again


def row_sentence(arm, row):
    n = len(row["seeds"])
    return (f"{arm}: {100 * row['mean']:.1f} on {n} seeds, recorded {points(row['recorded'], '')}: "
            f"{'within' if row['within'] else 'NOT within'} the interval; {row['same']} of {n} "
            f"seeds give the very same number, the difference on a seed is {points(row['moved'])}")


def replace_out(args, out):
    return type(args)(**vars(args) | {"out": out, "search_seeds": 0})


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = Parser("python -m studies.race", __doc__)
    parser.add_argument("what", nargs="?", default="race", choices=("race", "search"),
                        help="search: only the search of the rates (default race, with its search)")
    parser.add_argument("--quick", action="store_true",
                        help="seven arms, fewer seeds and iterations, no search")
    parser.add_argument("--check", type=int, default=0, metavar="N",
                        help="run N rows of the table again from scratch, drawn by chance, or "
                             "those of --arms")
    parser.add_argument("--world", default="toy", help="toy or toy-hard (default toy)")
    parser.add_argument("--search_seeds", type=int,
                        help=f"seeds of the search (default {len(SEARCH_SEEDS)}; 0 with --quick); "
                             "0: none, but the rates of the reported race")
    add_flags(parser, ARMS, SEEDS, ITERATIONS["race"])
    return settle(parser.parse_args(argv))


def settle(args):
    """What was not given -> the plan's. InputError for what cannot be."""
    args.chosen_arms = args.arms is not None
    args.arms = args.arms.split(",") if args.arms else list(QUICK if args.quick else ARMS)
    for arm in args.arms:
        if arm not in ARMS:
            raise InputError(f"--arms {arm}: expected some of {', '.join(ARMS)}")
    worlds = [name for name in presets.PRESETS if name.startswith("toy")]
    if args.world not in worlds:
        raise InputError(f"--world {args.world}: expected one of {', '.join(worlds)}")

    planned = args.iterations is None and not args.quick
    if args.iterations is None:
        args.iterations = ITERATIONS["quick" if args.quick else "race"]
    if args.seeds is None:
        args.seeds = 3 if args.quick else SEEDS
    if args.search_seeds is None:
        args.search_seeds = len(SEARCH_SEEDS) if planned else 0
    if not 0 <= args.search_seeds <= len(SEARCH_SEEDS):
        raise InputError(f"--search_seeds {args.search_seeds}: expected 0 to {len(SEARCH_SEEDS)}")

    # A file that is not in docs/ is a trial: no commit binds it.
    args.reported = planned and args.file is None
    settle_places(args, f"runs/{stem(args.world)}{'-quick' if args.quick else ''}", "race.json",
                  DOCS / f"{stem(args.world)}.json" if planned else None)
    return args


def play(argv):
    args = read_flags(argv)
    records = Records(args.file)
    if args.reported and not args.summary and not args.check:
        records.save(frozen=frozen.freeze(records.found.get("frozen"), args.file))

    if args.check:
        return check_rows(args, records, chosen_rates(args, records.found.get("search", {})))
    searched, failed = search(args, records) if args.search_seeds else ({}, [])
    if failed or args.what == "search":
        records.save(search=records.found.get("search", {}) | searched)
        print(searches(searched))
        return failed
    if args.search_seeds and not searched and any(map(moves, args.arms)):
        raise InputError(f"{args.file}: its search is not finished; python -m studies.race goes on")
    jobs, failed = run_race(args, records, chosen_rates(args, searched))
    summarise(jobs, searched, args, records)
    return failed


def main(argv=None):
    """-> exit code, as studies.runs.command says."""
    return command(play, argv)


if __name__ == "__main__":
    sys.exit(main())
