"""Wrong command lines: as far as a script goes before it loads a model, in this process.

train.py by engine.flags, evaluate.py by engine.question_sets, warmup.py by engine.demonstrations,
and the parsers of report.py, the tools and the studies. Two kinds: those that must be refused, and
random ones, which may be right.
"""
import json
import math
import os
import sys

from config import SETTINGS
from data import InputError
from engine import demonstrations, flags, question_sets
from engine.outputs import folder_to_write

from . import ROOT, mutators
from .outcome import Loss, attempt

ABSURD = ["-1", "0", "nan", "inf", "-inf", "1e30", "99999999999999999999", "2.5", "", " ", "x",
          "true", "None", "1e-320", "\u0663", "0x10", "1_0", "--", "a\nb", "\x1b[31m"]
PATHS = ["/dev/null", "/dev/full", "/proc/x", "/dev/null/x", "", ".", "no/such/folder/x",
         "x" * 5000, "\u2028"]


def demonstrations_of(folder):
    """-> {name: path} of files for warmup.py; all but `good` hold something wrong."""
    good = {"content": "A note.", "question_text": "2 + 2?", "choices": ["3", "4"],
            "ground_truth": "4"}
    kinds = {"good": [good], "no content": [{**good, "content": ""}],
             "no text": [{**good, "question_text": " "}], "number": [{**good, "content": 3}],
             "no choices": [{**good, "choices": []}], "empty": [], "other": [3],
             "no key": [{**good, "ground_truth": "5"}]}
    made = {}
    for name, items in kinds.items():
        made[name] = os.path.join(folder, f"{name.replace(' ', '-')}.json")
        with open(made[name], "w") as f:
            json.dump(items, f)
    return made


def must_be_refused(folder):
    """-> [(script, words)] that nobody can mean."""
    demos = demonstrations_of(folder)
    a_file = demos["good"]
    run = os.path.join(folder, "run")
    os.makedirs(run)
    with open(f"{run}/config.json", "w") as f:
        json.dump({"docs_per_step": 3}, f)

    for words in (["--threads", "100000"], ["--threads", "3000000000"], ["--threads", "-1"],
                  ["--iterations", "9" * 30], ["--docs_per_step", "1" + "0" * 12],
                  ["--temperature", "1e-308"], ["--temperature", "nan"], ["--run", a_file],
                  ["--run", f"{a_file}/x"], ["--run", "/proc/x"], ["--model", run],
                  ["--plan", "--gpus", "1e9"], ["--gpus", "0"], ["--gpus", "999999999"],
                  ["--resume", folder], ["--resume", a_file], ["--resume", "/nowhere"],
                  ["--documents", "/nowhere"], ["--seed", "-1"], ["--preset", "x"], ["x"],
                  ["--train_on", "file"], ["--reward", "x"], ["--learning_rate", "1"]):
        yield "train", words

    base = ["toy/anchor", "--questions", "toy/test.json"]
    for words in (["--temperature", "nan"], ["--temperature", "1e-308"], ["--temperature", "inf"],
                  ["--threads", "-1"], ["--threads", "100000"], ["--samples", "1000000000"],
                  ["--samples", "0"], ["--limit", "0"], ["--limit", "-3"], ["--top_p", "nan"],
                  ["--top_p", "0"], ["--rows_at_once", "-1"], ["--max_response_tokens", "9" * 20],
                  ["--json", folder], ["--json", f"{a_file}/x"], ["--json", "toy/test.json"],
                  ["--json", "/proc/x.json"], ["--json", "/dev/full"], ["--seed", "-1"],
                  ["--checker", "x"], ["--benchmarks", "x"], ["--samples", "x"], ["--nothing"],
                  ["--judge", "http://x"], ["--checker", "judge"]):
        yield "evaluate", base + words
    for words in ([run, "--questions", "toy/test.json"], ["toy/anchor"],
                  ["toy/anchor", "toy/anchor", "--questions", "toy/test.json"],
                  ["toy/anchor", "--questions", folder], ["toy/anchor", "--questions", "/nowhere"],
                  ["no such model!", "--questions", "toy/test.json"], []):
        yield "evaluate", words

    base = ["--model", "toy/anchor", "--demos", a_file, "--out", f"{folder}/out"]
    for words in (["--batch", "-1"], ["--batch", "0"], ["--limit", "0"], ["--limit", "-1"],
                  ["--lr", "nan"], ["--lr", "inf"], ["--lr", "0"], ["--lr", "-1"], ["--lr", "1e9"],
                  ["--epochs", "inf"], ["--epochs", "nan"], ["--epochs", "0"], ["--epochs", "1e30"],
                  ["--threads", "-1"], ["--threads", "100000"], ["--out", a_file],
                  ["--out", f"{a_file}/x"], ["--out", "/proc/x"], ["--out", "toy/anchor"],
                  ["--model", run], ["--model", "/nowhere"], ["--demos", "/nowhere"],
                  ["--prompts", "x"], *(["--demos", demos[x]] for x in demos if x != "good")):
        yield "warmup", base + words

    for script, base in (("quality", [run]), ("reality", [run]), ("noise", [run]), ("zoo", [run])):
        for words in (["--threads", "-1"], ["--threads", "100000"], ["--json", folder],
                      ["--json", "/proc/x.json"], ["--seed", "nan"], ["--nothing"]):
            yield script, base + words
    for script in ("quality", "reality", "noise"):
        for name in ("x.xyz", "x", "/proc/x.png", f"{a_file}/x.png", folder):
            yield script, [run, "--figure", name]
    for words in (["--samples", "0"], ["--samples", "99999999999"], ["--limit", "0"],
                  ["--questions_per_doc", "-1"], ["--endpoint_options", "[]"]):
        yield "quality", [run, *words]
    for words in (["--questions", "1"], ["--questions", "9" * 20], ["--sizes", "nan"],
                  ["--sizes", ""], ["--batches", "-1"], ["--batches", "9" * 20], ["--dev", "0"],
                  ["--states", "x"]):
        yield "reality", [run, *words]
    for words in (["--answers", "0"], ["--answers", "9" * 20], ["--dev", "-1"], ["--splits", "0"]):
        yield "noise", [run, *words]
    yield "zoo", [run, "--questions", "9" * 20]
    for words in (["--figures", a_file], ["--figures", "/proc/x"], ["--nothing"], []):
        yield "report", [run, *words] if words else []
    for words in (["--threads", "-1"], ["--threads", "3000000000"], ["--questions", "-1"],
                  ["--stages", "x"], ["--answers", "0"], ["--repeats", "0"], ["--rows", "0"],
                  ["--model", run], ["--json", folder], ["--size", "x"]):
        yield "bench", words
    for words in (["--prompts", "0"], ["--responses", "-1"], ["--vocabularies", "x"],
                  ["--threads", "-1"], ["--limit", "nan"], ["--json", folder]):
        yield "memory", words
    for words in (["--limit", "0"], ["--drafts", "9" * 20], ["--temperature", "nan"],
                  ["--threads", "-1"], ["--json", folder], ["--prompts", "x"], ["--model_", "x"]):
        yield "prompts", ["toy/anchor", "--documents", "toy/documents.json", *words]
    for words in (["--arms", "x"], ["--seeds", "0"], ["--seeds", "9" * 20], ["--jobs", "-1"],
                  ["--iterations", "0"], ["--world", "x"], ["--nothing"], ["y"],
                  ["--out", a_file], ["--out", "/proc/x"]):
        yield "race", words
    for words in (["--gpus", "1e9"], ["--gpus", "0"], ["--gpus", "nan"], ["--gpu_gb", "nan"],
                  ["--gpu_gb", "-1"], ["--nothing", "1"], ["--iterations", "9" * 30]):
        yield "plan", words


def at_random(seed, i):
    """-> (script, words): any field or flag with a value that may or may not be one."""
    rng = mutators.seeded(seed, "flags", i)
    script = rng.choice(["train", "train", "evaluate", "warmup"])
    values = ABSURD + PATHS
    if script == "train":
        words = []
        for name in rng.sample(list(SETTINGS), rng.choice([1, 1, 2, 3])):
            words += [f"--{name}", rng.choice(values)]
        return script, words
    names = {"evaluate": ["samples", "limit", "temperature", "top_p", "top_k", "json", "seed",
                          "questions", "in_domain", "threads", "max_prompt_tokens", "checker"],
             "warmup": ["epochs", "batch", "lr", "limit", "threads", "demos", "model", "out"]}
    base = {"evaluate": ["toy/anchor", "--questions", "toy/test.json"],
            "warmup": ["--model", "toy/anchor", "--demos", "toy/dev.json", "--out", "runs/x"]}
    return script, [*base[script], f"--{rng.choice(names[script])}", rng.choice(values)]


# ---------------------------------------------------------------- as far as a model

def train(words):
    cfg = flags.parse(words)
    flags.files_exist(cfg)
    folder_to_write("--run", cfg.run)
    numbers = [x for x in vars(cfg).values() if isinstance(x, float)]
    if not all(map(math.isfinite, numbers)):
        raise Loss(f"a number that is none: {numbers}")


def begin(module, reader):
    """A script's reader of arguments, imported once it is needed."""
    def read(words):
        __import__(module)
        return getattr(sys.modules[module], reader)(words)
    return read


SCRIPTS = {
    "train": train, "evaluate": question_sets.asked, "warmup": demonstrations.asked,
    "report": begin("report", "main"),
    "quality": begin("tools.quality", "read_arguments"),
    "prompts": begin("tools.prompts", "read_arguments"),
    "bench": begin("tools.bench", "read_args"),
    "memory": begin("tools.memory", "read_args"),
    "plan": begin("tools.plan", "main"),
    "race": begin("studies.race", "read_flags"),
    "reality": begin("studies.reality", "read_arguments"),
    "noise": begin("studies.noise", "read_arguments"),
    "zoo": begin("studies.zoo", "read_arguments")}


def run(tally, seed, long, folder):
    os.chdir(ROOT)
    # its import is nobody's hang
    for module in ("tools.quality", "tools.bench", "studies.noise", "studies.zoo", "studies.race"):
        __import__(module)
    for script, words in must_be_refused(folder):
        def refused():
            SCRIPTS[script](words)
            raise Loss("was taken as if somebody could mean it")

        attempt(tally, f"{script} {words}", refused, InputError)
    for i in range(600 if long else 100):
        script, words = at_random(seed, i)
        attempt(tally, f"{i}: {script} {words}", lambda: SCRIPTS[script](words), InputError)
