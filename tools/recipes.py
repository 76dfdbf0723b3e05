"""Runs every command of docs/recipes.md on the embedded world, two iterations each -> one table.

    python -m tools.recipes --out DIR                  all of them: a quarter of an hour, one core
    python -m tools.recipes --out DIR --only RLVR      those with that word in their name
    python -m tools.recipes --out DIR --write          and the table into docs/recipes.md

A recipe is what its command changes in the main recipe of the 8B anchor. Here the same fields are
changed; of their values

    a file               becomes one of the embedded world's, by its name (FILES)
    a learning rate      is as many times the toy's as it is of the main recipe's
    a count of problems  keeps its share of the documents, or of an iteration's drafts
    generator_model      becomes --generator, the generator of a longer toy run, made first unless
                         given: as Qwen3-32B beside an 8B solver, it writes better questions

and everything else stays. Model, prompts and sizes are the toy's. A recipe is `ok` if it ends, its
solver moved, and its generator moved if it is paid and did not otherwise. What two iterations teach
says nothing. A recipe whose run is in DIR already is not run again.
"""
import contextlib
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import train
from config import FILES as FILE_FIELDS
from config import ROOT, SETTINGS
from data import InputError
from engine import flags
from engine.arguments import Parser
from engine.metrics import mean
from engine.outputs import folder_to_write
from engine.pools import chunks
from engine.readers import load_documents, load_questions
from engine.speech import run_script

PAGE = ROOT / "docs/recipes.md"
MARK = "<!-- python -m tools.recipes --write -->"
COMMAND = re.compile(r"^\| ([^|`]+) \| `torchrun --nproc_per_node 8 train\.py ([^`]*)` \|", re.M)

ITERATIONS = 2
SMALL = dict(
    preset="toy-free", iterations=ITERATIONS, docs_per_step=6, questions_per_doc=8,
    answers_per_question=8, minibatch_rows=48, valid_every=1, save_every=ITERATIONS, show_every=0,
    test=None)
# Of the recipe's files, the small one in its place.
FILES = {
    "documents_with_putnam_aime_history_math10000.json": "notes-and-problems.json",
    "supergpqa_science_pruned_400_aime_history_400.json": "dev-mixed.json",
    "supergpqa_science_800.json": "pool.json",
    "dev-150.json": "dev.json",
    "problems.json": "problems.json",
    "written.jsonl": "written.jsonl",
}
# What follows from others, or is the toy's.
ASIDE = {"model", "preset", "run", "invalid_score"}


def recipes(text):
    """The page -> {name: the words behind train.py}."""
    return {name: shlex.split(words) for name, words in COMMAND.findall(text)}


# ---------------------------------------------------------------- a recipe in small

def changed(words):
    """Words of a recipe -> {field: (value, value of the main recipe)} of what it changes."""
    cfg, plain = flags.parse(words), flags.parse(["--model", "Qwen3-8B-Base"])
    found = {}
    for name in SETTINGS:
        value, usual = getattr(cfg, name), getattr(plain, name)
        if value != usual and name not in ASIDE:
            found[name] = value, usual
    return found


def in_small(words, files, generator):
    """Words of a recipe -> {field: value} of what it changes on the embedded world.

    files: the folder that write_files filled. generator: a better generator's folder.
    """
    toy = flags.from_flags(SMALL)
    documents, drafts = len(load_documents(toy.documents)), toy.drafts_per_step
    counts = {"rlvr_chunks": documents / 12260, "rlvr_per_step": drafts / 1024}
    small = {}
    for name, (value, usual) in changed(words).items():
        if name in FILE_FIELDS:
            value = str(files / FILES[os.path.basename(value)])
        elif name == "generator_model":
            value = str(generator)
        elif name in ("solver_lr", "generator_lr"):
            value = getattr(toy, name) * value / usual
        elif name in counts:
            value = round(value * counts[name])
        elif name == "dev_refresh":
            # once within the two iterations
            value = 1
        small[name] = value
    return small


def write_files(folder, run=None):
    """The small files, out of the embedded world's. run: whose questions are `written`."""
    folder.mkdir(parents=True, exist_ok=True)

    def some(name, part):
        items = json.loads((ROOT / f"toy/{name}.json").read_text(encoding="utf-8"))
        return items[part]

    # the mixed file ends with free-form questions
    mixed = some("free/dev-mixed", slice(24)) + some("free/dev-mixed", slice(-24, None))
    problems = load_questions(ROOT / "toy/free/rlvr.json")
    notes = some("documents", slice(None))
    made = chunks(problems, round(len(notes) * 10000 / 12260))
    taught = [{"doc_id": f"problem-{i}", "content": x.content} for i, x in enumerate(made)]
    files = {
        "dev": some("dev", slice(48)), "dev-mixed": mixed, "notes-and-problems": notes + taught,
        "pool": some("free/dev-pool", slice(80)), "valid": some("free/dev-pool", slice(80, None)),
        "problems": some("free/rlvr", slice(None))}
    for name, items in files.items():
        (folder / f"{name}.json").write_text(json.dumps(items), encoding="utf-8")
    if run:
        text = Path(run, "questions.jsonl").read_text(encoding="utf-8")
        (folder / "written.jsonl").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- running them

def run_of(values, folder):
    """Trains, with what it says in FOLDER.log; nothing where that run is there and whole."""
    lines = lines_of(folder)
    if len(lines) == values["iterations"] and (folder / "solver").is_dir():
        return lines
    with open(f"{folder}.log", "w", encoding="utf-8") as f, contextlib.redirect_stdout(f):
        train.train(flags.from_flags(values | {"run": str(folder)}))
    return lines_of(folder)


def lines_of(run):
    path = Path(run, "metrics.jsonl")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def moved(run, role, anchor):
    """Are a role's weights others than its anchor's?"""
    weights = load_file(Path(run, role, "model.safetensors"))
    before = load_file(Path(anchor, "model.safetensors"))
    return not all(torch.equal(w, before[name]) for name, w in weights.items())


def row_of(name, small, run, lines):
    """-> the cells of a recipe that has ended, and is it ok."""
    cfg = flags.load(Path(run, "config.json"))
    solver = moved(run, "solver", cfg.model)
    generator = moved(run, "generator", cfg.generator_anchor)
    paid = cfg.train_on == "generated" and cfg.reward != "fixed"
    ok = solver and generator == paid
    last = lines[-1]
    cells = [name, told(small), share(mean_known(lines, "valid_share")),
             share(mean_known(lines, "mixed_share")),
             number(mean_known(lines, "generator_grad_norm")),
             number(mean_known(lines, "solver_grad_norm")),
             f"{share(last['valid_accuracy_anchor'])} to {share(last['valid_accuracy'])}",
             "both" if solver and generator else "solver" if solver else "none",
             "ok" if ok else "LOOK"]
    return cells, ok


def mean_known(lines, name):
    return mean([line[name] for line in lines if line[name] is not None])


def share(x):
    return "-" if x is None else f"{100 * x:.0f}"


def number(x):
    return "-" if x is None else f"{x:.2f}"


def told(small):
    """{field: value} -> as flags, files by their name."""
    words = []
    for name, value in small.items():
        if name == "generator_model":
            value = "BETTER"
        elif name in FILE_FIELDS:
            value = os.path.basename(value)
        value = f"{value:.3g}" if isinstance(value, float) else value
        words.append(f"--{name} {shlex.quote(str(value))}")
    return f"`{' '.join(words)}`" if words else ""


def slug(name):
    return re.sub(r"\W+", "-", name.lower()).strip("-")


HEAD = ["recipe", "flags here", "valid, %", "mixed, %", "gradient of the generator",
        "of the solver", "validation, %", "moved", ""]


def run_all(wanted, out, generator, threads):
    """{name: words} -> the lines of the table, number of recipes that are not ok."""
    files, base = out / "files", SMALL | {"threads": threads}
    write_files(files)
    if generator is None:
        generator = out / "better/generator"
        say("the better generator", lambda: run_of(better(threads), out / "better"))
    source = out / "better-writes"
    small = dict(reward="fixed", generator_model=str(generator), dev=str(files / "dev.json"),
                 valid=str(files / "valid.json"))
    run_of(base | small, source)
    write_files(files, source)

    table, bad = [], 0
    for name, words in wanted.items():
        small, run = in_small(words, files, generator), out / slug(name)
        usual = {"dev": str(files / "dev.json"), "valid": str(files / "valid.json")}
        try:
            lines = say(name, lambda: run_of(base | usual | small, run))
            cells, ok = row_of(name, small, run, lines)
        except InputError as error:
            cells, ok = [name, told(small), *["-"] * 6, f"LOOK: {error}"], False
        bad += not ok
        table.append(f"| {' | '.join(cells)} |")
    head = [f"| {' | '.join(HEAD)} |", "|---|---|--:|--:|--:|--:|--:|---|---|"]
    return head + table, bad


def better(threads):
    """Settings of the run whose generator stands for Qwen3-32B."""
    return {"preset": "toy-free", "iterations": 12, "eval_every": 12, "test": None, "show_every": 0,
            "threads": threads}


def say(name, work):
    """What work() returns; a line on stderr that says how long it took."""
    begun = time.time()
    found = work()
    print(f"{name}: {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def write_page(table):
    before, _, after = PAGE.read_text(encoding="utf-8").split(MARK)
    text = "\n".join(table)
    PAGE.write_text(f"{before}{MARK}\n\n{text}\n\n{MARK}{after}", encoding="utf-8")


def main(argv=None):
    parser = Parser("python -m tools.recipes", __doc__)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="for the runs")
    parser.add_argument("--only", metavar="WORD", default="", help="recipes with it in their name")
    parser.add_argument("--generator", metavar="FOLDER", type=Path,
                        help="a better generator than the anchor; else one is trained")
    parser.add_argument("--write", action="store_true", help="the table into docs/recipes.md")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)

    folder_to_write("--out", args.out)
    found = recipes(PAGE.read_text(encoding="utf-8"))
    wanted = {name: words for name, words in found.items() if args.only in name}
    if not wanted:
        raise InputError(f"--only {args.only}: no recipe of {PAGE.name} has it in its name, "
                         f"expected a part of one of: {', '.join(found)}")
    if args.write and args.only:
        raise InputError("--write: expected no --only beside it, since the page has all recipes")
    args.out.mkdir(parents=True, exist_ok=True)
    table, bad = run_all(wanted, args.out, args.generator, args.threads)
    print("\n".join(table))
    print(f"\n{len(wanted) - bad} of {len(wanted)} recipes are ok")
    if args.write:
        write_page(table)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(run_script(main))
