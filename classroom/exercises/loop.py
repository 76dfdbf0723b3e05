"""The six steps of an iteration, in their order: the method itself."""
import contextlib
import functools
import io
import json
import operator
import re
import sys
import tempfile
from pathlib import Path

from classroom import sources
from classroom.compare import Wrong, expect, mistake
from config import ROOT
from engine import flags

NAME = "loop"
SYMBOL = "the six steps"
FILE = "train.py"
BLANKS = ["train"]
RUN = True

HINTS = (
    "The comments of the six steps stay; under each stands what it needs. Names that later lines "
    "use: dev, drafts, slots, solved, answered, score, earned, A_gen, kept, generator_step, "
    "solver_step, Q, measured. What study's methods take and give stands in extensions.py, "
    "MainRecipe; of the other functions in the file that train.py imports them from.",
    "1: solve(solver, study.dev_questions(t), t, \"dev\", cfg, verifier). 2: write_questions with "
    "study.documents(t) and the seed words (cfg.seed, t, \"generator\", \"write\"), slots, "
    "drafted = valid_questions(drafts), study.questions(drafted, t). 3: solve once, questions and "
    "study.problems(t) together, in the stage \"answer\"; solved = answered[:Q]. 4, if "
    "cfg.by_influence: dev_gradient, study.g_dev, influence_scores, study.s_hat(s_hat, slots), "
    "and measured = dict(s_hat=..., own_share=..., g_dev_norm=norm(g_dev)).",
    "4 ends with earned = earnings(measured, solved, cfg, t) and score = rewards.total(earned). "
    "5: for each term, paid of earned.items() s = grid(paid, slots, drafts, term, cfg); A_gen is "
    "the sum of term.weight * dugrpo(s, term.advantage); update the generator on "
    "rollouts_of(drafts). 6: kept = study.kept(slots, score, solved, t); the answers and their A "
    "are study.batch(kept, answered, dev); update the solver on them, with documents_of(slots, "
    "answers) last. Nobody moves before step 5.",
)

ANSWERED = 'answered = solve(solver, everything, t, "answer", cfg, verifier)'
MISTAKES = (
    mistake(
        "the solver learns before influence is measured: the score is then that of a question the "
        "solver has already trained on, at other weights than those that answered",
        ("train", "        # 4. What is each question worth?",
         "        first = update(solver, answered.answers, answered.A_update, cfg,\n"
         "                       documents_of(slots, answered.answers))\n"
         "        # 4. What is each question worth?"),
        ("train", "solver_step = update(solver, learnt, A_sol, cfg, origin)",
         "solver_step = first")),
    mistake(
        "the solver trains on the dev answers too: they serve g_dev alone, and a dev set that is "
        "trained on measures nothing",
        ("train", "solver_step = update(solver, learnt, A_sol, cfg, origin)",
         "solver_step = update(solver, learnt + dev.answers, torch.cat([A_sol, dev.A]), cfg, "
         "origin + [None] * len(dev.answers))")),
    mistake(
        "the generator is paid for how hard its questions are, not for their influence",
        ("train", "earned = earnings(measured, solved, cfg, t)",
         "earned = {term: 1 - solved.r.mean(dim=1) for term in cfg.terms}")),
    mistake(
        "the generator's sign is turned: it unlearns what was useful",
        ("train", "generator_step = update(generator, written, A_gen, cfg)",
         "generator_step = update(generator, written, -A_gen, cfg)")),
    mistake(
        "the dev stage's random numbers are used again for the generated questions; a stage has "
        "words of its own",
        ("train", ANSWERED, ANSWERED.replace('"answer"', '"dev"'))),
    mistake(
        "the order of the mini-batches is that of the documents: the questions are not spread "
        "over them (documents_of)",
        ("train", "update(solver, learnt, A_sol, cfg, origin)",
         "update(solver, learnt, A_sol, cfg)")),
)
SIZES = ("--iterations 2 --docs_per_step 3 --questions_per_doc 4 --answers_per_question 4 "
         "--minibatch_rows 8 --eval_every 9 --show_every 0 --threads 1 --seed 3").split()
# the same with what the main recipe leaves out: another reward beside, a gate, problems, a choice
OTHERS = ["--reward", "influence + 0.5 spice", "--gate_share", "0.5", "--rlvr_per_step", "2",
          "--solver_keep", "random", "--keep_share", "0.5"]
NUMBERS = ("valid_share", "dev_accuracy", "solved_share", "score_mean", "s_hat_std",
           "generator_grad_norm", "solver_grad_norm", "tokens_trained", "own_share_mean")


def blank(text):
    """train.py with the six steps emptied: their comments and clocks stay."""
    first, behind = sources.lines_of(text, "train")
    lines = text.splitlines(keepends=True)
    begin = next(i for i in range(first, behind) if lines[i].lstrip().startswith("# 1. "))
    end = next(i for i in range(begin, behind) if lines[i].lstrip().startswith("# What came of it"))
    kept = [line for line in lines[begin:end] if stays(line)]
    hints = sources.comments_of(sys.modules[__name__], " " * 8)
    return "".join(lines[:begin] + hints + kept + lines[end:])


def stays(line):
    """Comments of the steps, and where their clocks begin."""
    code = line.strip()
    of_a_step = re.match(r" {8}#", line) is not None
    return not code or of_a_step or code.startswith("clock.begin(")


def by_hand(m):
    """One iteration comes to its end, and what it writes has the right shape."""
    metrics, drafts = run(m)
    expect([line["iteration"] for line in metrics], [1, 2], "iterations in metrics.jsonl")
    expect(len(drafts), 2 * 3 * 4, "lines of questions.jsonl after two iterations of 3 x 4 drafts")


def oracle(m):
    """Against the project's own loop, number by number."""
    import train
    for others, said in ((False, ""), (True, f" with {' '.join(OTHERS)}")):
        for ours, theirs in zip(run(train, others)[0], run(m, others)[0]):
            for name in NUMBERS:
                expect(theirs.get(name), ours[name],
                       f"{name} of iteration {ours['iteration']}{said}", tolerance=1e-4)


@functools.cache
def run(m, others=False):
    """Two tiny iterations of the embedded world -> lines of metrics.jsonl and questions.jsonl."""
    with tempfile.TemporaryDirectory() as place:
        words = list(SIZES)
        for name, n in (("documents", 20), ("dev", 12), ("test", 6)):
            some = json.loads((ROOT / f"toy/{name}.json").read_text(encoding="utf-8"))[:n]
            path = Path(place) / f"{name}.json"
            path.write_text(json.dumps(some), encoding="utf-8")
            words += [f"--{name}", str(path)]
        if others:
            some = json.loads((ROOT / "toy/dev.json").read_text(encoding="utf-8"))[12:18]
            path = Path(place) / "rlvr.json"
            path.write_text(json.dumps(some), encoding="utf-8")
            words += [*OTHERS, "--rlvr", str(path)]
        cfg = flags.parse(["--preset", "toy", *words, "--run", f"{place}/run"])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            m.train(cfg)
        if not (Path(place) / "run/metrics.jsonl").exists():
            raise Wrong("train came to its end without one iteration")
        return [read_lines(f"{place}/run/{name}.jsonl") for name in ("metrics", "questions")]


def read_lines(path):
    return list(map(json.loads, Path(path).read_text(encoding="utf-8").splitlines()))


def probe(m):
    metrics, drafts = run(m)
    numbers = [operator.itemgetter(*NUMBERS)(line) for line in metrics]
    return numbers, [draft["A_gen"] for draft in drafts]
