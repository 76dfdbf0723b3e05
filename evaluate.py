"""How often is a model right? Any models on any files: accuracy, pass@k, vote, side by side.

    python evaluate.py toy/anchor RUN/solver --questions toy/test.json --samples 8 --json x.json
    python evaluate.py Qwen3-8B-Base RUN/solver --benchmarks all      (from the hub, or your files)
    python evaluate.py RUN/solver --benchmarks math500 --checker ours math-verify judge --judge URL

With RUN = runs/toy-influence-seed0 the first takes some 15 seconds of one CPU core and ends with
accuracies near 46 and 88 % and their difference. engine/statistics.py has the formulas.

    code      symbol   shape    meaning
    samples   N                 answers to each question
    right     c        (Q, N)   1 right, 0 wrong or nothing in a box, null where the check of a
                                free-form answer timed out
    paired                      a model less the first, question by question: what makes a
                                question hard for both cancels; also in percent of the first

Answers are sampled at temperature 0.7, top_p 0.8, top_k 20, as the authors evaluate, and as often
as they do on their benchmarks. With --json FILE.json every answer goes into FILE.answers.jsonl as
soon as its piece of some 256 is done. After an interruption the same command goes on from there to
the numbers it would have had; other settings, or a model whose files changed, start afresh.

Who says what is right is named in each table (engine/checkers.py). Ours where the authors' text
leaves it open: the prompts; a question too long for --max_prompt_tokens is left out, not wrong.
Missing on purpose: running programs (engine/coding.py); scoring choices by likelihood; several GPUs
for one model (start a process for each model, each with its own --json).
"""
from engine import question_sets

# Before torch is imported: --help, a misspelt flag and a missing file are answered at once.
ASKED = question_sets.from_command_line(__doc__) if __name__ == "__main__" else None

import json
import math
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import torch
from tqdm import tqdm

import config
import solver as solver_role
from data import keep_fitting
from engine import coding, flags, tables
from engine.benchmarks import SIZES
from engine.checkers import Checkers, Judge, deciding
from engine.finished import Finished, digest, model_stamp
from engine.progress import long_bar
from engine.speech import run_script
from engine.statistics import group_means, mean_and_error, paired, scores, summarize
from engine.verify import Verifier
from policy import Policy

# Answers per piece of work: what an interruption can lose, and the batch that the sampler drains.
PIECE = 256


# ---------------------------------------------------------------- what train.py asks for

def accuracy(policy, questions, samples, seed_words, cfg, verifier, what="evaluate"):
    """N = samples answers to each question -> {"accuracy", "standard_error", "tokens": sampled}.

    seed_words as in sampling.sample.
    """
    answers, r = sample_answers(policy, questions, samples, seed_words, cfg, verifier, what)
    mean, error = mean_and_error(r.double().nanmean(dim=1))                         # (Q,)
    tokens = sum(len(rollout.response) for rollout in chain.from_iterable(answers))
    return {"accuracy": mean, "standard_error": error, "tokens": tokens}


def sample_answers(policy, questions, samples, seed_words, cfg, verifier, what):
    """Q questions -> (Q, N) rollouts at the evaluation's sampling settings, and (Q, N) r.

    r is nan where a check timed out.
    """
    answers = solver_role.answer_questions(
        policy, questions, samples, seed_words, cfg, what=what, temperature=cfg.eval_temperature,
        top_p=cfg.eval_top_p, top_k=cfg.eval_top_k)
    return answers, solver_role.shared_rewards(questions, answers, verifier)


# ---------------------------------------------------------------- one model on one set

def evaluate(policy, stamp, test, cfg, seed, finished, verifier):
    """A model on one QuestionSet -> (questions that fit, their records, number left out).

    record: {"question_id", "right", "given", "tokens", "finished", "texts"}, lists of N. A piece
    always holds the same questions and its draws depend on nothing but its place, so neither
    --limit nor an interruption changes an answer.
    """
    def length(question):
        return len(policy.prompt_ids(solver_role.prompt_text(question, cfg.prompts)))

    questions, skipped = keep_fitting(test.questions, length, cfg.max_prompt_tokens,
                                      f"questions of {test.name}")
    source = Path(test.path).name
    sampling = (cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k, cfg.max_prompt_tokens,
                cfg.max_response_tokens, *other_prompts(cfg))
    keys = []
    for place, question in enumerate(questions):
        keys.append(digest(stamp, source, test.samples, seed, sampling, place, question))

    size = max(1, PIECE // test.samples)
    for start in long_bar(range(0, len(questions), size), desc=test.name, unit="piece"):
        piece = questions[start:start + size]
        piece_keys = keys[start:start + size]
        if all(map(finished.get, piece_keys)):
            continue
        seed_words = (seed, "evaluate", source, start)
        answers, r = sample_answers(
            policy, piece, test.samples, seed_words, cfg, verifier, "answers")
        new = {}
        for key, question, group, rewards in zip(piece_keys, piece, answers, r.tolist()):
            if not finished.get(key):
                new[key] = record(question, group, rewards)
        finished.add(new)
    return questions, [finished.get(key) for key in keys], skipped


def other_prompts(cfg):
    """What tells answers to other prompts than the plain ones from those."""
    return [] if cfg.prompts == "plain" else [cfg.prompts]


def record(question, group, r):
    """One question, its N rollouts and their rewards -> the line of FILE.answers.jsonl."""
    return {
        "question_id": question.question_id,
        "right": [None if math.isnan(x) else int(x) for x in r],
        "given": [solver_role.given_answer(question, rollout.text) for rollout in group],
        "tokens": [len(rollout.response) for rollout in group],
        "finished": [rollout.finished for rollout in group],
        "texts": [rollout.text for rollout in group]}


# ---------------------------------------------------------------- models side by side

def compare(models, tests, args, finished, verifier, say=print):
    """Models x QuestionSets -> the report that --json writes; say gets each table.

    Models are loaded one after the other.
    """
    tests, commands = without_results(models, tests, say)
    records, results = {}, {}
    # a model is tried at the lengths of all sets
    longest = evaluation_config(args, max([test.max_tokens for test in tests], default=1))
    with Checkers(args.checker, solver_role.last_boxed, finished, judge(args)) as checkers:
        for model in models:
            path = flags.find_model("MODEL", model)
            say_otherwise(path, args.prompts, say)
            stamp = model_stamp(path)
            # the last model is let go before the next is loaded
            policy = None
            for test in tests:
                if test.results is not None:
                    found = test.results[model]
                    result = scores(found)
                else:
                    cfg = evaluation_config(args, test.max_tokens)
                    policy = policy or Policy("solver", path, 0.0, longest)
                    questions, answered, too_long = evaluate(
                        policy, stamp, test, cfg, args.seed, finished, verifier)
                    found, checked, differences = checkers.check(questions, answered)
                    result = summarize(found) | {"too_long": too_long, "checked": checked,
                                                 "differences": differences}
                right = tables.percent(result["accuracy"], result["accuracy_error"])
                tqdm.write(f"{model} on {test.name}: {right} right", file=sys.stderr)

                records[test.name, model] = found
                results[test.name, model] = result
                if model != models[0]:
                    result["against_first"] = paired(found, records[test.name, models[0]])

    sets = {}
    for test in tests:
        sets[test.name] = about(test, args) | {
            "models": {model: results[test.name, model] for model in models}}
    groups = group_means(sets, models, SIZES)
    print_tables(sets, groups, models, say)

    unsaid = ("json", "threads", "rows_at_once")
    settings = {name: value for name, value in vars(args).items() if name not in unsaid}
    return {"settings": settings, "sets": sets, "groups": groups, "coding_commands": commands}


def say_otherwise(path, prompts, say):
    """A line where the run that a model comes from asked by other prompts than it is asked now."""
    # RUN/solver or RUN/at-5/solver
    for folder in Path(path).parents[:2]:
        try:
            trained = json.loads((folder / "config.json").read_text("utf-8")).get("prompts")
        except (OSError, ValueError, AttributeError):
            continue
        if trained not in (None, prompts):
            say(f"{path}: its run asked by --prompts {trained}, here {prompts} ones are used")
            return


def without_results(models, tests, say):
    """QuestionSets -> (those that can be evaluated, {coding benchmark: what to type for it}).

    Of code, those with a result file for every model; of the others it is said how to get one.
    """
    ready, commands = [], {}
    for test in tests:
        missing = [x for x in models if test.results is not None and x not in test.results]
        if not missing:
            ready.append(test)
            continue
        folders = [flags.find_model("MODEL", model) for model in missing]
        commands[test.name] = [coding.commands(test.name, x, test.samples) for x in folders]
        say(coding.how_to(test.name, folders, test.samples))
    return ready, commands


def judge(args):
    return Judge(args.judge, args.judge_name, args.judge_options) if args.judge else None


def about(test, args):
    """A QuestionSet -> what the report says of it beside its numbers."""
    checker = Counter(deciding(args.checker, question) for question in test.questions or ())
    return {
        "benchmark": test.benchmark, "category": test.category, "group": test.group,
        "file": test.path, "samples": test.samples, "max_response_tokens": test.max_tokens,
        "seed": None if test.results else args.seed, "option_seed": test.option_seed,
        "checker": dict(checker) or {"the tool that ran the programs": len(next(iter(
            test.results.values())))},
        "bad_items": test.bad, "notes": test.notes}


def print_tables(sets, groups, models, say):
    for name, one in sets.items():
        say(tables.set_table(name, one))
    if groups:
        say(tables.group_table(groups, models))
    beside = tables.published_table(sets, groups, models)
    if beside:
        say(beside)
    if sets:
        say("\n+- is half of a 95 % interval, 1.96 standard errors over the questions")


def evaluation_config(args, max_response_tokens):
    return config.Config(
        max_prompt_tokens=args.max_prompt_tokens, max_response_tokens=max_response_tokens,
        rows_at_once=args.rows_at_once, prompts=args.prompts, eval_temperature=args.temperature,
        eval_top_p=args.top_p, eval_top_k=args.top_k)


# ---------------------------------------------------------------- the command

def main(argv=None):
    """argv: words of the command line; None: the one that was read before torch was imported."""
    args, tests = ASKED if argv is None else question_sets.asked(argv)
    if args.threads:
        torch.set_num_threads(args.threads)

    finished = Finished(question_sets.answers_file(args))
    if finished.records:
        print(f"{finished.path}: {len(finished.records)} finished pieces of work; those of the "
              "same models and settings are not done again")
    with Verifier() as verifier:
        report = compare(args.models, tests, args, finished, verifier)

    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\n{args.json} has every number, {finished.path} every answer")


if __name__ == "__main__":
    run_script(main, stopped="stopped; with --json the same command goes on from here")
