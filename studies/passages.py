"""Does the method make a real model better? SmolLM2-135M on real passages, taught in four ways.

    python -m studies.passages DIR              every arm on every seed: hours; it resumes
    python -m studies.passages DIR --summary    no run: sums up what is there

    DIR        the files of studies.reading, and two warm starts: DIR/writer, whose drafts are
               mostly valid, and DIR/solver, which has seen less and has something to learn
    arm        what pays the generator: influence, spice, or nothing (fixed); or no generator but
               the real questions on the same passages (oracle), the ceiling
    budget     iterations, questions in each and answers to each are the same for all

    exam       two sets of questions: test, each with its passage, as the questions that are trained
               on; test-bare, the same without, for what was learned beside reading
    exact      (Q,) P(right answer), all likely answers counted (expected.py)
    sampled    (Q,) share of right ones among SAMPLES answers
    mass       (Q,) what was counted of all answers; exact is off by at most 1 - mass

An exam is taken by DIR/solver and by every run's solver, at the temperature of training. Intervals
are over the test questions, paired: a question's gain is its own. The JSON file gets every run and
exam as it ends and is all that must be kept (records.py). No text of the passages goes into it:
what generators wrote lies in OUT.
"""
import hashlib
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

import solver as solver_role
from data import InputError
from engine import flags
from engine.arguments import Parser
from engine.progress import bar
from engine.readers import load_questions
from engine.statistics import interval, mean_and_error
from engine.verify import Verifier
from policy import Policy
from studies import expected, reality
from studies.records import Records, fill_page
from studies.runs import Job, add_flags, command, run_all, settle_places
from studies.standings import late_mean, percent

SETS = ("test", "test-bare")
SEEDS, FIRST_SEED, ITERATIONS = 2, 0, 40
SAMPLES = 4
AT_ONCE = 16            # questions of an exam

ARMS = {
    "influence": {"reward": "influence"},
    "fixed": {"reward": "fixed"},
    "oracle": {"reward": "fixed", "train_on": "file", "open_book": False},
    "spice": {"reward": "spice"},
}


# ---------------------------------------------------------------- the runs

def make_job(arm, seed, args):
    """Its solver stays until its exam."""
    path = {name: os.path.join(args.folder, f"{name}.jsonl")
            for name in ("documents", "dev", "test", "oracle")}
    chosen = {"preset": "reading", "model": args.solver, "documents": path["documents"],
              "dev": path["dev"], "test": path["test"], **ARMS[arm]}
    if chosen.get("train_on") == "file":
        chosen["questions"] = path["oracle"]
    else:
        chosen["generator_model"] = args.writer
    chosen |= {"seed": seed, "iterations": args.iterations, "threads": 1, "show_every": 0,
               "eval_every": args.iterations, "checkpoint_every": 5}
    return Job(f"{arm}/{seed}", chosen, keep=("solver",))


def jobs_of(args):
    """All arms of a seed before the next."""
    jobs = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        jobs += [make_job(arm, seed, args) for arm in args.arms]
    return jobs


def run(args, records):
    """Runs side by side, and their exams as they end -> the names of those that failed."""
    jobs = jobs_of(args)
    for job in jobs:
        record = records.of(job)
        if record and "exam" not in record and not os.path.isdir(solver_of(job, args)):
            # stopped between the run and its exam, and the solver is lost
            records.runs.pop(job.key)
    anchor = exam_of_anchor(args, records)

    failed = []
    for i in range(0, len(jobs), args.jobs):
        some = jobs[i:i + args.jobs]
        failed += run_all(some, records, args)
        for job in some:
            record = records.of(job)
            if record and "exam" not in record:
                record |= {"anchor": anchor, "exam": exam(solver_of(job, args), job.key, args)}
                records.save()
                if not args.keep:
                    shutil.rmtree(solver_of(job, args))
    return failed


def solver_of(job, args):
    return os.path.join(job.folder(args.out), "solver")


def content_hash(model):
    """A warm start that was made again on another processor is another anchor, by rounding."""
    weights = Path(model, "model.safetensors")
    if not weights.exists():
        raise InputError(f"{model}: expected the model that warmup.py made of demos.jsonl, "
                         "with its model.safetensors")
    with open(weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


# ---------------------------------------------------------------- exams

def exam_of_anchor(args, records):
    """-> its name among the anchors that have had their exam."""
    anchors = records.found.setdefault("anchors", {})
    name = content_hash(args.solver)
    if name not in anchors:
        anchors[name] = exam(args.solver, "before", args)
        records.save()
    return name


def exam(model, name, args):
    """-> {set: {"exact", "sampled", "mass"}}, lists of Q; exact None where a question has too many
    likely answers."""
    cfg = flags.from_flags({"preset": "reading", "model": args.solver, "run": args.out})
    policy = Policy("solver", model, cfg.solver_lr, cfg)
    found = {}
    with Verifier() as verifier:
        for set_name in SETS:
            questions = load_questions(os.path.join(args.folder, f"{set_name}.jsonl"))
            columns = {"exact": [], "sampled": [], "mass": []}
            pieces = range(0, len(questions), AT_ONCE)
            for i in bar(pieces, desc=f"{name}, {set_name}", unit="piece"):
                some = questions[i:i + AT_ONCE]
                answers = solver_role.answer_questions(
                    policy, some, SAMPLES, (0, "exam", set_name, i), cfg)
                r = solver_role.rewards(some, answers, verifier)            # (AT_ONCE, SAMPLES)
                columns["sampled"] += r.mean(1).tolist()
                for exact, mass in chances(policy, some, answers, cfg):
                    columns["exact"].append(exact)
                    columns["mass"].append(mass)
            found[set_name] = {key: rounded(values) for key, values in columns.items()}
    return found


def chances(policy, questions, answers, cfg):
    """-> of each question P(right), and how much of all answers was counted; None twice where they
    are too many."""
    trees = expected.plant(policy, questions)
    reality.add_answers(trees, answers)
    if not expected.grow(policy, trees, cfg):
        if len(questions) == 1:
            return [(None, None)]
        # whose trees are too large is found one by one
        return [chances(policy, [question], [group], cfg)[0]
                for question, group in zip(questions, answers)]
    found = []
    for tree in trees:
        layout = expected.Layout(policy, [tree], cfg)
        accuracy, mass = expected.Accuracy(layout)(layout.logps(policy, cfg))
        found.append((float(accuracy), float(mass)))
    return found


def rounded(values):
    return [None if x is None else round(x, 4) for x in values]


# ---------------------------------------------------------------- what came out

def gains(record, records, set_name, kind="exact"):
    """A run -> (Q,) what its solver's chance is above its anchor's; nan where one is unknown."""
    before = records.found["anchors"][record["anchor"]][set_name][kind]
    after = record["exam"][set_name][kind]
    return np.array(after, dtype=float) - np.array(before, dtype=float)


def arm_gains(arm, args, records, set_name, kind="exact"):
    """-> {seed: (Q,)} of the arm's runs that have had their exam."""
    found = {}
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        record = records.of(make_job(arm, seed, args))
        if record and "exam" in record:
            found[seed] = gains(record, records, set_name, kind)
    return found


def over_questions(by_seed):
    """{seed: (Q,)} -> {"mean", "interval", "seeds": each one's mean}: seeds are averaged before."""
    mean, error = mean_and_error(np.mean(list(by_seed.values()), axis=0))
    return {"mean": mean, "interval": interval(mean, error),
            "seeds": {seed: float(np.nanmean(x)) for seed, x in by_seed.items()}}


def seeds_to_decide(by_seed):
    """{seed: difference of two arms} -> seeds at which it would be told from 0 four times in five.

    From the spread that few seeds show, so a rough number; None with fewer than two.

    >>> seeds_to_decide({0: 0.02, 1: 0.04})
    2
    """
    d = list(by_seed.values())
    if len(d) < 2 or not np.mean(d):
        return None
    return max(2, math.ceil(((1.96 + 0.84) * np.std(d, ddof=1) / np.mean(d)) ** 2))


def standings(args, records):
    """-> {arm: {set: gains, "against fixed", "runs"}}"""
    found = {}
    for arm in args.arms:
        by_set = {name: arm_gains(arm, args, records, name) for name in SETS}
        if not by_set["test"]:
            continue
        row = {name: over_questions(by_seed) for name, by_seed in by_set.items()}
        row["sampled"] = over_questions(arm_gains(arm, args, records, "test", "sampled"))
        fixed = arm_gains("fixed", args, records, "test")
        both = {seed: x - fixed[seed] for seed, x in by_set["test"].items() if seed in fixed}
        if both and arm != "fixed":
            row["against fixed"] = over_questions(both)
            row["against fixed"]["seeds to decide"] = seeds_to_decide(row["against fixed"]["seeds"])
        runs = [records.of(make_job(arm, seed, args)) for seed in by_set["test"]]
        for metric in ("valid_share", "solved_share"):
            row[metric] = late_mean([record[metric] for record in runs])
        found[arm] = row
    return found


def table(found):
    """-> Markdown, points: an arm a row."""
    text = ["| arm | seeds | test, exact | sampled | bare, exact | test, less fixed | seeds that "
            "would decide | valid drafts | solved |", "|---|" + "--:|" * 8]
    for arm, x in found.items():
        against = x.get("against fixed")
        each = ", ".join(f"{100 * mean:+.1f}" for mean in x["test"]["seeds"].values())
        cells = [each, *[points(x[name]) for name in ("test", "sampled", "test-bare")],
                 points(against) if against else "-",
                 str(against and against["seeds to decide"] or "-"),
                 percent(x["valid_share"]), percent(x["solved_share"])]
        text.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(text)


def points(x):
    low, high = x["interval"] or (math.nan, math.nan)
    return f"{100 * x['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def anchors(records):
    """-> a line an anchor: what it knows."""
    lines = []
    for name, sets in records.found["anchors"].items():
        said = []
        for set_name, x in sets.items():
            mean, error = mean_and_error(np.array(x["exact"], dtype=float))
            mass = np.nanmean(np.array(x["mass"], dtype=float))
            said.append(f"{set_name} {100 * mean:.1f} ± {196 * error:.1f} (sampled "
                        f"{100 * np.mean(x['sampled']):.1f}; {100 * mass:.1f} % of all answers "
                        f"counted, {x['exact'].count(None)} questions left out)")
        lines.append(f"- Anchor {name}: {'; '.join(said)}.")
    return "\n".join(lines)


def summarise(args, records):
    found = standings(args, records)
    if not found:
        raise InputError(f"{records.path}: no run that has ended and had its exam")
    records.save(arms=found)
    runs = records.runs.values()
    text = (f"Gain over the anchor after {args.iterations} iterations, points: mean [95 % interval "
            f"over the test questions], seeds averaged first; the first column has each seed's.\n\n"
            f"{table(found)}\n\n{anchors(records)}\n\n{len(runs)} runs, "
            f"{sum(x['hours'] for x in runs):.1f} hours of one core without exams, commit "
            f"{'; '.join(sorted({x['commit'] for x in runs}))}, {max(x['date'] for x in runs)}, "
            f"{', '.join(sorted({x['cpu'] for x in runs}))}.")
    print(f"\n{text}")
    if args.page and not fill_page(args.page, "results", text):
        raise InputError(f"{args.page}: has no place for the results, expected "
                         "<!-- results --> and <!-- end of results -->")


def write_drafts(args, records, most=200):
    """What each run's generator wrote first and last, for reading: OUT/drafts/ARM-SEED-early.jsonl.
    """
    folder = Path(args.out, "drafts")
    for job in jobs_of(args):
        path = Path(job.folder(args.out), "questions.jsonl")
        if not path.exists():
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        drafts = [line for line in lines if json.loads(line)["status"] == "valid"]
        folder.mkdir(parents=True, exist_ok=True)
        for when, some in (("early", drafts[:most]), ("late", drafts[-most:])):
            name = f"{job.key.replace('/', '-')}-{when}.jsonl"
            Path(folder, name).write_text("\n".join(some) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = Parser("python -m studies.passages", __doc__)
    parser.add_argument("folder", metavar="DIR", help="files of studies.reading, and warm starts")
    parser.add_argument("--solver", help="where the solver begins; none: DIR/solver")
    parser.add_argument("--writer", help="where the generator begins; none: DIR/writer")
    parser.add_argument("--page", metavar="FILE", help="a page to fill in, at <!-- results -->")
    add_flags(parser)
    args = parser.parse_args(argv)
    args.arms = args.arms.split(",") if args.arms else list(ARMS)
    for arm in args.arms:
        if arm not in ARMS:
            raise InputError(f"--arms {arm}: expected some of {', '.join(ARMS)}")
    args.solver = args.solver or os.path.join(args.folder, "solver")
    args.writer = args.writer or os.path.join(args.folder, "writer")
    args.iterations = args.iterations or ITERATIONS
    args.seeds = args.seeds or SEEDS
    settle_places(args, "runs/passages", "passages.json")
    return args


def play(argv):
    args = read_flags(argv)
    records = Records(args.file)
    failed = []
    if not args.summary:
        torch.set_num_threads(1)
        failed = run(args, records)
    write_drafts(args, records)
    summarise(args, records)
    return failed


def main(argv=None):
    """-> exit code, as studies.runs.command says."""
    return command(play, argv)


if __name__ == "__main__":
    sys.exit(main())
