"""Does the method make a real model better? SmolLM2-135M on real passages, taught in four ways.

    python -m studies.passages DIR              every arm on every seed: hours; it resumes
    python -m studies.passages DIR --summary    no run: sums up what is there

    DIR        files of studies.reading, and two warm starts: DIR/writer, whose drafts are mostly
               valid, and DIR/solver, which has something to learn
    arm        what pays the generator: influence, spice, or nothing (fixed); or no generator but
               the real questions on the same passages (oracle), the ceiling
    exam       of DIR/solver and of every run's, at the temperature of training: test, each question
               with its passage, and test-bare, without, for what was learned beside reading

    code       shape    meaning
    exact      (Q,)     P(right letter), counted over all answers "The answer is OPTION
                        \\boxed{LETTER}" in one forward pass: no sampling noise
    mass       (Q,)     P(any of these answers); exact is off by at most 1 - mass
    option     (Q,)     P(right option, whatever its letter)
    fits       (Q,)     P(the letter is the option's own): what was learned of letters

What was read is what option gains with the passages more than it gains without. Beside these, one
sampled answer to each test question before and after, as the trainer evaluates. Intervals are over
the questions, paired: a question's gain is its own. The JSON file gets every run and exam as it
ends and is all that must be kept (records.py). No text of the passages goes into it: what
generators wrote lies in OUT.
"""
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import torch

from data import InputError
from engine import flags
from engine.arguments import Parser
from engine.chat import text_ids
from engine.page import read_lines
from engine.progress import long_bar
from engine.readers import load_questions
from engine.statistics import interval, mean_and_error
from policy import Policy
from studies import expected
from studies.records import Records, fill_page
from studies.runs import Job, add_flags, command, held, run_all, settle_places
from studies.standings import late_mean, percent
from warmup import answer_text

SETS = ("test", "test-bare")
SEEDS, ITERATIONS = 2, 40
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
               "eval_every": args.iterations, "dev_every": 10, "checkpoint_every": 5}
    return Job(f"{arm}/{seed}", chosen, keep=("solver",))


def seeds_of(args):
    return range(args.first_seed, args.first_seed + args.seeds)


def jobs_of(args):
    """All arms of a seed before the next."""
    jobs = []
    for seed in seeds_of(args):
        jobs += [make_job(arm, seed, args) for arm in args.arms]
    return jobs


def run(args, records, lock):
    """Runs side by side, then exams side by side -> the names of the runs that failed."""
    jobs, anchor = jobs_of(args), content_hash(args.solver)
    for job in jobs:
        record = records.of(job)
        if record and "exam" not in record and not os.path.isdir(solver_of(job, args)):
            # stopped between the run and its exam, and the solver is lost: once more from the start
            records.runs.pop(job.key)
            shutil.rmtree(job.folder(args.out), ignore_errors=True)
    failed = run_all(jobs, records, args, lock=lock)

    anchors = records.found.setdefault("anchors", {})
    models = {} if anchor in anchors else {"anchor": args.solver}
    for job in jobs:
        record = records.of(job)
        if record and "exam" not in record:
            models[job.key] = solver_of(job, args)

    for name, found in side_by_side(models, args):
        if name == "anchor":
            anchors[anchor] = found
            records.save()
            continue
        records.runs[name] |= {"anchor": anchor, "exam": found}
        records.save()
        if not args.keep:
            shutil.rmtree(models[name])
    return failed


def side_by_side(models, args):
    """{name: model} -> yields (name, what exam() found) as they end, each of them on one thread."""
    if not models:
        return
    jobs = min(args.jobs, len(models))
    with multiprocessing.get_context("spawn").Pool(jobs, begin_worker) as workers:
        what = [(name, model, args) for name, model in models.items()]
        yield from workers.imap_unordered(exam, what)


def begin_worker():
    torch.set_num_threads(1)
    # Ctrl-C is for the process that waits for this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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

def exam(what):
    """(name, model, args) -> name, {set: {column: list of Q}}, the columns as above."""
    name, model, args = what
    cfg = flags.from_flags({"preset": "reading", "model": args.solver, "run": args.out})
    policy = Policy("solver", model, cfg.solver_lr, cfg)
    found = {}
    for set_name in SETS:
        questions = load_questions(os.path.join(args.folder, f"{set_name}.jsonl"))
        columns = {}
        pieces = range(0, len(questions), AT_ONCE)
        for i in long_bar(pieces, desc=f"{name}, {set_name}", unit="piece"):
            some = questions[i:i + AT_ONCE]
            for key, values in counted(policy, some, cfg).items():
                columns.setdefault(key, []).extend(round(float(x), 4) for x in values)
        found[set_name] = columns
    return name, found


def counted(policy, questions, cfg):
    """-> {"exact", "mass", "option", "fits"}, each (Q,)."""
    trees = expected.plant(policy, questions, cfg.prompts)
    answers = [plant_answers(policy, tree) for tree in trees]
    layout = expected.Layout(policy, trees, cfg)
    logp = layout.logps(policy, cfg).cpu()                                  # (nodes,)

    found = {"exact": [], "mass": [], "option": [], "fits": []}
    for tree, start, paths in zip(trees, layout.start, answers):
        P = np.exp([float(logp[start:][nodes].sum()) for nodes in paths])
        # row: the option that is named; column: the letter in the box
        P = P.reshape(len(tree.question.choices), -1)
        key = tree.question.choices.index(tree.question.ground_truth)
        found["exact"].append(P[:, key].sum())
        found["mass"].append(P.sum())
        found["option"].append(P[key].sum())
        found["fits"].append(P.trace())
    return found


def plant_answers(policy, tree):
    """Every option with every letter, as the warm start taught it -> their nodes."""
    options = tree.question.choices
    answers = itertools.product(options, ascii_uppercase[:len(options)])
    return [tree.add_answer(text_ids(policy.tokenizer, answer_text(option, letter)))
            for option, letter in answers]


# ---------------------------------------------------------------- what came out

def gains(record, records, set_name, kind="exact"):
    """A run -> (Q,) what its solver's chance is above its anchor's; nan where one is unknown."""
    before = records.found["anchors"][record["anchor"]][set_name][kind]
    after = record["exam"][set_name][kind]
    return np.array(after, dtype=float) - np.array(before, dtype=float)


def arm_gains(arm, args, records, set_name, kind="exact"):
    """-> {seed: (Q,)} of the arm's runs that have had their exam."""
    found = {}
    for seed in seeds_of(args):
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
        for kind in ("option", "fits"):
            row[kind] = over_questions(arm_gains(arm, args, records, "test", kind))
        bare = arm_gains(arm, args, records, "test-bare", "option")
        option = arm_gains(arm, args, records, "test", "option")
        row["option, bare"] = over_questions(bare)
        # the same questions in both sets
        row["read"] = over_questions({seed: option[seed] - bare[seed] for seed in option})
        fixed = arm_gains("fixed", args, records, "test")
        both = {seed: x - fixed[seed] for seed, x in by_set["test"].items() if seed in fixed}
        if both and arm != "fixed":
            row["against fixed"] = over_questions(both)
            row["against fixed"]["seeds to decide"] = seeds_to_decide(row["against fixed"]["seeds"])
        runs = [records.of(make_job(arm, seed, args)) for seed in by_set["test"]]
        row["sampled"] = [record["test_accuracy"] for record in runs]
        row["valid_share"] = late_mean([record["valid_share"] for record in runs], args.iterations)
        row["solved_share"] = late_mean([record["solved_share"] for record in runs])
        found[arm] = row
    return found


COLUMNS = {"test": "test, exact", "test-bare": "without passages", "fits": "letter fits option",
           "option": "right option", "option, bare": "right option without passages",
           "read": "with less without passages"}


def table(found):
    """-> Markdown, points: an arm a row."""
    titles = ["arm", "seeds", *COLUMNS.values(), "test, one answer", "test, less fixed",
              "seeds for 80 % power", "valid drafts", "solved"]
    text = [f"| {' | '.join(titles)} |", "|---|" + "--:|" * (len(titles) - 1)]
    for arm, x in found.items():
        against = x.get("against fixed")
        each = ", ".join(f"{seed}: {100 * x:+.1f}" for seed, x in x["test"]["seeds"].items())
        sampled = ", ".join(f"{100 * x[0]:.1f} to {100 * x[-1]:.1f}" for x in x["sampled"])
        cells = [arm, each, *[points(x[name]) for name in COLUMNS], sampled,
                 points(against) if against else "-",
                 str(against and against["seeds to decide"] or "-"),
                 percent(x["valid_share"]), percent(x["solved_share"])]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def points(x):
    low, high = x["interval"] or (math.nan, math.nan)
    return f"{100 * x['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def anchors(records):
    """-> a line an anchor: what it knows, in percent."""
    lines = []
    for name, sets in records.found["anchors"].items():
        said = [f"{set_name} {known(x)}" for set_name, x in sets.items()]
        lines.append(f"- Anchor {name}: {'; '.join(said)}.")
    return "\n".join(lines)


def known(x):
    mean, error = mean_and_error(np.array(x["exact"]))
    low, high = interval(mean, error)
    option, fits, mass = [100 * np.mean(x[kind]) for kind in ("option", "fits", "mass")]
    return (f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] (right option {option:.1f}, "
            f"letter fits {fits:.1f}, of all answers counted {mass:.1f})")


def summarise(args, records):
    found = standings(args, records)
    if not found:
        raise InputError(f"{records.path}: no run that has ended and had its exam")
    records.save(arms=found)
    runs, by_commit = records.runs.values(), {}
    for key, record in records.runs.items():
        by_commit.setdefault(record["commit"], []).append(key)
    commits = "; ".join(f"{commit} ({', '.join(keys)})" for commit, keys in by_commit.items())
    text = (f"Gain over the anchor after {args.iterations} iterations, points: mean [95 % interval "
            f"over the test questions], seeds averaged first; the first column has each seed's. "
            f"One answer: the trainer's own test before and after, one sampled answer to each "
            f"question as evaluations sample, no gain. Valid: all iterations; solved: the last "
            f"five.\n\n"
            f"{table(found)}\n\n{anchors(records)}\n\n{len(runs)} runs, "
            f"{sum(x['hours'] for x in runs):.1f} hours of one core without exams, commits "
            f"{commits}, {max(x['date'] for x in runs)}, "
            f"{', '.join(sorted({x['cpu'] for x in runs}))}.")
    print(f"\n{text}")
    if args.page and not fill_page(args.page, "results", text):
        raise InputError(f"{args.page}: has no place for the results, expected "
                         "<!-- results --> and <!-- end of results -->")


def write_drafts(args, records, most=200):
    """What each run's generator wrote first and last, at most half of it each, for reading:
    OUT/drafts/ARM-SEED-early.jsonl."""
    folder = Path(args.out, "drafts")
    for job in jobs_of(args):
        path = Path(job.folder(args.out), "questions.jsonl")
        if not path.exists():
            continue
        rows, _ = read_lines(path, ("status",))
        drafts = [json.dumps(row, ensure_ascii=False) for row in rows if row["status"] == "valid"]
        folder.mkdir(parents=True, exist_ok=True)
        n = min(most, (len(drafts) + 1) // 2)
        for when, some in (("early", drafts[:n]), ("late", drafts[len(drafts) - n:])):
            name = f"{job.key.replace('/', '-')}-{when}.jsonl"
            Path(folder, name).write_text("".join(f"{x}\n" for x in some), encoding="utf-8")


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = Parser("python -m studies.passages", __doc__)
    parser.add_argument("folder", metavar="DIR", help="files of studies.reading, and warm starts")
    parser.add_argument("--solver", help="where the solver begins; none: DIR/solver")
    parser.add_argument("--writer", help="where the generator begins; none: DIR/writer")
    parser.add_argument("--first_seed", type=int, default=0,
                        help="the first of --seeds (default 0)")
    parser.add_argument("--page", metavar="FILE",
                        help="to fill in, between <!-- results --> and <!-- end of results -->")
    add_flags(parser, ARMS, SEEDS, ITERATIONS)
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
    failed = []
    if not args.summary:
        torch.set_num_threads(1)
        # exams, too: whoever comes in between would write over what they find
        with held(args.out) as lock:
            failed = run(args, Records(args.file), lock)
    records = Records(args.file)
    write_drafts(args, records)
    summarise(args, records)
    return failed


def main(argv=None):
    """-> exit code, as studies.runs.command says."""
    return command(play, argv)


if __name__ == "__main__":
    sys.exit(main())
