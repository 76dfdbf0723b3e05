"""Where does the method stop helping? One knob of the embedded world at a time.

    python -m studies.regimes dev       one knob of KNOBS, below
    python -m studies.regimes           all of them, the cheapest first; hours, in many sittings
    python -m studies.regimes --summary no run: sums up the runs that are there

    knob      what is turned                                        arms
    dev       dev questions; fewer are samples, one for each seed   influence, dev_only, fixed
    keys      share of right keys in what the writer was taught     influence, learnability,
                                                                    spice, fixed
    useless   share of notes about skills that nobody needs         the same
    trivial   the same notes, and a solver that knows their skills  the same
    noise     the notes of useless: the noise differs between       dugrpo, group_std, batch_std,
              documents, which sigma_B is for                       none
    scales    factor between weights that follow each other         AdamW's direction and raw,
    lengths   how much longer answers are where dev does not ask    cosine and dot
    rare      of so many notes one has the numbers above 49         the same
    formats   problems without choices in the solver's batch        the same

Every arm runs 20 iterations on 5 seeds, at the rate that the race's search found for its reward.
The four of noise share influence's: AdamW divides by the size of the gradient, so their updates are
alike. An arm that a knob cannot reach is a level line.

docs/results/regimes.json gets every run as it ends and is all that must be kept (records.py).
toy.knobs makes notes, questions and anchors; nothing that trains learns what is true in them.
"""
import os
import sys
from pathlib import Path

from tqdm import tqdm

import config
from data import InputError
from engine.arguments import Parser
from studies import frozen
from studies.race import ARMS, DEFAULT_RATE
from studies.records import Records, fill_page, read_json
from studies.runs import Job, add_flags, command, held, run_all, settle_places
from studies.standings import compare, final_measure, late_mean, percent, points, t_interval
from toy import knobs

DOCS = config.ROOT / "docs/results"
SEEDS = 5
FIRST_SEED = 2000
ITERATIONS = 20

PAYS = ("influence", "learnability", "spice", "fixed")
# arm: flags of train.py beside those of the race's arms
ALL_ARMS = ARMS | {
    "dugrpo": ARMS["influence"],
    "preconditioned_cosine": ARMS["influence"],
    "preconditioned_dot": {"reward": "influence", "similarity": "preconditioned_dot"},
    "dot": {"reward": "influence", "similarity": "dot"},
    "dev_only": {"reward": "fixed", "train_on": "file"},
}
SIMILARITIES = ("preconditioned_cosine", "cosine", "preconditioned_dot", "dot")

# knob: its values, what it is called, its arms; with the first arm the others are compared
KNOBS = {
    "dev":     ((5, 10, 20, 40, 80, 160), "dev questions", ("influence", "dev_only", "fixed")),
    "keys":    ((0.2, 0.5, 1.0), "right keys taught (share)", PAYS),
    "useless": ((0, 0.5, 0.9), "notes nobody needs (share)", PAYS),
    "trivial": ((0, 0.5, 0.9), "notes with trivial questions (share)", PAYS),
    "noise":   ((0, 0.5, 0.9), "notes that give noise alone (share)",
                ("dugrpo", "group_std", "batch_std", "none")),
    "scales":  ((1, 4, 16), "factor between weights", SIMILARITIES),
    "lengths": ((1, 4, 12), "times as long, other answers", SIMILARITIES),
    "rare":    ((2, 10, 50), "one note in so many has rare numbers", SIMILARITIES),
    "formats": ((0, 24, 72), "problems without choices, a batch", SIMILARITIES),
}
ORDER = ("scales", "lengths", "rare", "formats", "noise", "dev", "keys", "useless", "trivial")
# arms that the knob cannot reach
LEVEL = {("dev", "fixed")}


# ---------------------------------------------------------------- a point of a knob

def setting(knob, value, seed, worlds):
    """-> the name of what is different from the easy world, its flags, and what toy.knobs has to
    make for them: (knob, value, folder, seed), ...

    Where two knobs ask for the same, the name is the same, and so is the run.
    """
    neutral = {"dev": 160, "useless": 0, "noise": 0, "scales": 1}
    if neutral.get(knob) == value:
        return "easy", {}, ()
    source = "useless" if knob in ("noise", "trivial") else knob
    name = f"{source}-{value}"
    if source == "formats":
        problems = {"rlvr": str(config.ROOT / "toy/free/rlvr.json"), "rlvr_per_step": value}
        return name, {"preset": "toy-free"} | (problems if value else {}), ()
    folder = os.path.join(worlds, name)
    made = ((source, value, folder, seed),)

    if source == "dev":
        return name, {"dev": os.path.join(folder, f"seed{seed}.json")}, made
    if source == "keys":
        return name, {"generator_model": os.path.join(folder, "anchor")}, made
    # another solver leaves the generator the easy world's
    same_writer = {"generator_model": str(config.ROOT / "toy/anchor")}
    if source in ("scales", "lengths"):
        return name, same_writer | {"model": os.path.join(folder, "anchor")}, made

    notes = {"documents": os.path.join(folder, "documents.json")} if value else {}
    if knob == "trivial":
        masters = os.path.join(worlds, "masters")
        notes |= same_writer | {"model": os.path.join(masters, "anchor")}
        return f"trivial-{value}", notes, (*made, ("masters", None, masters, seed))
    return name, notes, made


def make_job(knob, value, arm, seed, rates, args):
    worlds = os.path.join(args.out, "worlds")
    name, changes, needs = "easy", {}, ()
    if (knob, arm) not in LEVEL:
        name, changes, needs = setting(knob, value, seed, worlds)
    flags = {"preset": "toy", **ALL_ARMS[arm], **changes}
    if arm == "dev_only":
        flags["questions"] = flags.get("dev", str(config.ROOT / "toy/dev.json"))
    flags |= {"seed": seed, "iterations": args.iterations, "threads": 1, "show_every": 0,
              "eval_every": args.iterations, "dev_every": args.iterations,
              "checkpoint_every": max(1, args.iterations // 2)}
    if flags["reward"] != "fixed":
        flags["generator_lr"] = rates[ALL_ARMS[arm]["reward"]]
    return Job(f"{name}/{same(arm)}/{seed}", flags, needs=needs)


def make_worlds(jobs):
    """Notes, questions and anchors that are not there yet; the same everywhere, up to rounding."""
    needs = {}
    for job in jobs:
        needs |= dict.fromkeys(job.needs)
    for need in needs:
        knobs.turn(*need)


def same(arm):
    """The same run has one name: influence is what dugrpo and preconditioned_cosine are.

    >>> same("dugrpo"), same("spice")
    ('influence', 'spice')
    """
    return "influence" if ALL_ARMS[arm] == ARMS["influence"] else arm


def jobs_of(knob, rates, args):
    """-> {arm: {value: {seed: job}}}"""
    values, _, arms = KNOBS[knob]
    jobs = {}
    # --arms are those of the knob that was asked for
    for arm in (args.chosen if knob == args.knob else None) or arms:
        jobs[arm] = {value: {} for value in values}
        for value in values:
            for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
                jobs[arm][value][seed] = make_job(knob, value, arm, seed, rates, args)
    return jobs


def each(jobs):
    """{arm: {value: {seed: job}}} -> the jobs, each once, seed by seed."""
    unique = {}
    for of_arm in jobs.values():
        for of_value in of_arm.values():
            unique |= {job.key: job for job in of_value.values()}
    return sorted(unique.values(), key=lambda job: job.flags["seed"])


def rates_of_race():
    """-> {reward: generator learning rate}: what the race's search found, else the default."""
    found = (read_json(DOCS / "race.json") or {}).get("search", {})
    rates = {}
    for reward in ("influence", "learnability", "spice"):
        rates[reward] = found.get(reward, {}).get("generator_lr", DEFAULT_RATE)
    if not found:
        tqdm.write(f"race.json holds no search yet: all generators learn at {DEFAULT_RATE}")
    return rates


# ---------------------------------------------------------------- what came out

def point(runs, jobs):
    """{seed: job} of one arm at one value -> what its finished runs say, or None."""
    done = {seed: runs[job.key] for seed, job in jobs.items() if job.key in runs}
    if not done:
        return None
    final = final_measure(done)
    records = list(done.values())
    found = {"seeds": final, "final": t_interval(list(final.values()))}
    for metric in ("key_accuracy", "target_share", "valid_share"):
        found[metric] = late_mean([record[metric] for record in records])
    moved = [record["moved"] for record in records if record.get("moved") is not None]
    return found | {"moved": sum(moved) / len(moved) if moved else None}


def results_of(knob, jobs, runs):
    """-> {"arms": {arm: [a point of each value]}, "pairs": {value: each arm against the first}}."""
    values, label, arms = KNOBS[knob]
    points_of = {}
    for arm, of_arm in jobs.items():
        points_of[arm] = [point(runs, of_arm[value]) for value in values]
    final = {}
    for arm, line in points_of.items():
        final |= {(arm, value): x["seeds"] for value, x in zip(values, line) if x}
    first = next(iter(jobs))
    family = [((arm, value), (first, value)) for arm, value in final
              if arm != first and (first, value) in final]
    pairs = {value: [] for value in values}
    for pair in compare(final, family):
        (better, value), (other, _) = pair["better"], pair["other"]
        pairs[value].append(pair | {"better": better, "other": other})
    return {"values": list(values), "label": label, "arms": points_of, "pairs": pairs}


def tables(found):
    """{knob: results} -> Markdown: a table a knob, and which differences its seeds can tell."""
    text = []
    for knob, x in found.items():
        text.append(f"**{knob}: {x['label']}**\n")
        text.append(f"| arm | {' | '.join(map(str, x['values']))} |")
        text.append(f"| --- |{' --: |' * len(x['values'])}")
        for arm, line in x["arms"].items():
            text.append(f"| {arm} | {' | '.join(map(cell, line))} |")
        text.append(f"\n{told(x)}\n")
    return "\n".join(text)


def cell(x):
    """Accuracy with its interval, and in brackets right keys and how far the generator moved."""
    if x is None:
        return "-"
    beside = [f"keys {percent(x['key_accuracy'])}"] if x["key_accuracy"] is not None else []
    beside += [f"moved {x['moved']:.2f}"] if x["moved"] else []
    return points(x["final"], "") + (f" ({', '.join(beside)})" if beside else "")


def told(x):
    """The pairs that are told apart, and at which values; or that none is."""
    apart = []
    for value, pairs in x["pairs"].items():
        apart += [f"at {value} {pair['better']} above {pair['other']} by {points(pair)}"
                  for pair in pairs if pair["told_apart"]]
    test = "paired t-tests, Holm's correction for the whole knob, p < 0.05"
    if not apart:
        return f"Against {next(iter(x['arms']))} these seeds tell nothing apart ({test})."
    return f"Told apart from {next(iter(x['arms']))} ({test}): {'; '.join(apart)}."


def summarise(chosen, rates, args, records):
    found, shown = {}, set()
    for knob in KNOBS:
        if knob in chosen or knob in records.found.get("knobs", {}):
            jobs = jobs_of(knob, rates, args)
            planned = each(jobs)
            n = sum(job.key in records.runs for job in planned)
            if args.reported and n < len(planned):
                print(f"{knob}: {n} of {len(planned)} runs have ended; the page waits for all")
                continue
            x = results_of(knob, jobs, records.runs)
            if begun(x):
                found[knob] = x
                shown |= {job.key for job in planned}
    if not found:
        raise InputError(f"{records.path}: no finished run to sum up")
    records.save(knobs=found, rates=rates)

    runs = [record for key, record in records.runs.items() if key in shown]
    small = (f"Test accuracy after {args.iterations} iterations, percent: mean [95 % interval over "
             f"{args.seeds} seeds]; keys: % right in the last five iterations; moved: distance "
             f"of the generator's weights from where they began. Equal cells are the same runs.\n"
             f"{len(runs)} runs, "
             f"{sum(x['hours'] for x in runs):.1f} hours of one core, commit "
             f"{'; '.join(sorted({x['commit'] for x in runs}))}, {max(x['date'] for x in runs)}, "
             f"{', '.join(sorted({x['cpu'] for x in runs}))}.")
    text = f"{tables(found)}\n{small}\n"
    base = os.path.splitext(records.path)[0]
    Path(f"{base}-tables.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{records.path}, {base}-tables.md")
    if args.reported:
        fill_page(f"{base}.md", "results", text)
    draw_figures(str(records.path))


def begun(x):
    """Has any arm of a knob two points? A single one may be a run that knobs share."""
    return any(len(line) - line.count(None) >= min(2, len(line)) for line in x["arms"].values())


def draw_figures(path):
    # Here, not at the top: the figures' file imports much that running does not need.
    from studies import figures
    figures.main(["regimes", path])


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = Parser("python -m studies.regimes", __doc__)
    parser.add_argument("knob", nargs="?", help=f"one of {', '.join(KNOBS)}; none: all")
    add_flags(parser, ["those of the knob"], SEEDS, ITERATIONS)
    args = parser.parse_args(argv)
    if args.knob and args.knob not in KNOBS:
        raise InputError(f"{args.knob}: expected one of {', '.join(KNOBS)}")
    args.chosen = args.arms.split(",") if args.arms else None
    for arm in args.chosen or ():
        if not args.knob or arm not in KNOBS[args.knob][2]:
            some = f"some of {', '.join(KNOBS[args.knob][2])}" if args.knob else "one knob, too"
            raise InputError(f"--arms {arm}: expected {some}")

    args.reported = not (args.iterations or args.file or args.seeds or args.chosen)
    args.iterations = args.iterations or ITERATIONS
    args.seeds = args.seeds or SEEDS
    settle_places(args, "runs/regimes", "regimes.json",
                  DOCS / "regimes.json" if args.reported else None)
    return args


def plans(rates, args):
    """-> {knob: iterations of all its runs}, and of all knobs together, whose runs are shared."""
    every = type(args)(**vars(args) | {"chosen": None})
    found, keys = {}, set()
    for knob in KNOBS:
        jobs = each(jobs_of(knob, rates, every))
        found[knob] = len(jobs) * args.iterations
        keys |= {job.key for job in jobs}
    return found | {"all of them": len(keys) * args.iterations}


def play(argv):
    args = read_flags(argv)
    records = Records(args.file)
    rates = records.found.get("rates") or rates_of_race()
    if args.reported and not args.summary:
        records.save(frozen=frozen.freeze(records.found.get("frozen"), args.file), rates=rates)

    chosen = [args.knob] if args.knob else list(ORDER)
    failed = []
    if not args.summary:
        with held(args.out) as lock:
            for knob in chosen:
                jobs = each(jobs_of(knob, rates, args))
                make_worlds(records.left(jobs))
                failed += run_all(jobs, records, args, plans(rates, args), lock)
    summarise(chosen, rates, args, records)
    return failed


def main(argv=None):
    """-> exit code, as studies.runs.command says."""
    return command(play, argv)


if __name__ == "__main__":
    sys.exit(main())
