"""How often is a model right? Any models on any files: accuracy, pass@k, vote, side by side.

    python evaluate.py toy/anchor RUN/solver --questions toy/test.json --samples 8 --json x.json
    python evaluate.py Qwen3-8B-Base RUN/solver --questions math500 gpqa_diamond    (from the hub)

With RUN = runs/toy-influence-seed0 the first takes some 15 seconds of one CPU core and ends with
accuracies near 46 and 88 % and their difference. engine/statistics.py has the formulas.

    code      symbol   shape    meaning
    samples   N                 answers to each question
    right     c        (Q, N)   1 right, 0 wrong or nothing in a box, null where the check of a
                                free-form answer timed out
    paired                      a model less the first, question by question: what makes a
                                question hard for both cancels

Answers are sampled at temperature 0.7, top_p 0.8, top_k 20, as the authors evaluate, and as often
as they do on their benchmarks. With --json FILE.json every answer goes into FILE.answers.jsonl as
soon as its piece of some 256 is done. After an interruption the same command goes on from there to
the numbers it would have had; other settings, or a model whose files changed, start afresh.

Ours where the authors' text leaves it open: the prompts; a question too long for
--max_prompt_tokens is left out, not wrong. Missing on purpose: scoring choices by likelihood;
several GPUs for one model (start a process for each model, each with its own --json).
"""
from engine import question_sets

# Before torch is imported: --help, a misspelt flag and a missing file are answered at once.
ASKED = question_sets.from_command_line(__doc__) if __name__ == "__main__" else None

import json
import math
import sys
from itertools import chain
from pathlib import Path

import torch
from tqdm import tqdm

import config
import solver as solver_role
from data import keep_fitting, run_script
from engine import flags
from engine.finished import Finished, digest, model_stamp
from engine.progress import bar
from engine.statistics import combine, interval, mean_and_error, paired, powers_of_two, summarize
from engine.verify import Verifier
from policy import Policy

# Answers per piece of work: what an interruption can lose, and the batch that the sampler drains.
PIECE = 256


# ---------------------------------------------------------------- what train.py asks for

def accuracy(policy, questions, samples, seed_words, cfg, verifier, what="evaluate"):
    """N = samples answers to each question -> accuracy, its standard error, and what went by.

    {"accuracy", "standard_error", "unboxed", "cut", "timeouts", "tokens"}; shares, counts, tokens.
    seed_words as in sampling.sample.
    """
    answers, r = sample_answers(policy, questions, samples, seed_words, cfg, verifier, what)
    mean, error = mean_and_error(r.double().nanmean(dim=1))                         # (Q,)
    rollouts = list(chain.from_iterable(answers))
    return {
        "accuracy": mean,
        "standard_error": error,
        "unboxed": solver_role.nothing_given_share(questions, answers),
        "cut": sum(not rollout.finished for rollout in rollouts) / len(rollouts),
        "timeouts": int(r.isnan().sum()),
        "tokens": sum(len(rollout.response) for rollout in rollouts)}


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
    """A model on one QuestionSet -> (records in the set's order, questions left out as too long).

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
    for start in bar(range(0, len(questions), size), desc=test.name, unit="piece"):
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
    return [finished.get(key) for key in keys], skipped


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
    records, results = {}, {}
    for model in models:
        path = flags.find_model("MODEL", model)
        stamp = model_stamp(path)
        # the last model is let go before the next is loaded
        policy = None
        for test in tests:
            cfg = evaluation_config(args, test.max_tokens)
            # tried at the lengths of all sets
            longest = evaluation_config(args, max(test.max_tokens for test in tests))
            policy = policy or Policy("solver", path, 0.0, longest)
            found, too_long = evaluate(policy, stamp, test, cfg, args.seed, finished, verifier)
            result = summarize(found) | {"too_long": too_long}
            right = percent(result["accuracy"], result["accuracy_error"])
            tqdm.write(f"{model} on {test.name}: {right} right", file=sys.stderr)

            records[test.name, model] = found
            results[test.name, model] = result
            if model != models[0]:
                result["against_first"] = paired(found, records[test.name, models[0]])

    sets = {}
    for test in tests:
        sets[test.name] = {
            "category": test.category, "group": test.group, "samples": test.samples,
            "models": {model: results[test.name, model] for model in models}}
    groups = group_means(sets, models)
    for name, one in sets.items():
        say(set_table(name, one))
    if groups:
        say(group_table(groups, models))
    say("\n+- is half of a 95 % interval, 1.96 standard errors over the questions")

    unsaid = ("json", "threads", "rows_at_once")
    settings = {name: value for name, value in vars(args).items() if name not in unsaid}
    return {"settings": settings, "sets": sets, "groups": groups}


def evaluation_config(args, max_response_tokens):
    return config.Config(
        max_prompt_tokens=args.max_prompt_tokens, max_response_tokens=max_response_tokens,
        rows_at_once=args.rows_at_once, prompts=args.prompts, eval_temperature=args.temperature,
        eval_top_p=args.top_p, eval_top_k=args.top_k)


def group_means(sets, models):
    """Sets with a category or a group -> {its name: means over its sets}, each of the same weight.

    Means: {"sets", model: {"accuracy", "accuracy_error", "against_first"}}.
    """
    members = {}
    for name, one in sets.items():
        for group in filter(None, (one["category"], one["group"])):
            members.setdefault(group, []).append(name)

    means = {}
    for group, names in members.items():
        means[group] = {"sets": names}
        for model in models:
            found = [sets[name]["models"][model] for name in names]
            mean, error = combine([(x["accuracy"], x["accuracy_error"]) for x in found])
            means[group][model] = {"accuracy": mean, "accuracy_error": error}
            if model != models[0]:
                against = [x["against_first"] for x in found]
                mean, error = combine([(x["difference"], x["error"]) for x in against])
                means[group][model]["against_first"] = {
                    "difference": mean, "error": error, "interval": interval(mean, error)}
    return means


# ---------------------------------------------------------------- the tables

def percent(mean, error=None):
    """A share and its standard error -> text in percent; +- is half of a 95 % interval.

    >>> percent(0.442, 0.025), percent(0.442), percent(None)
    ('44.2 +- 4.9 %', '44.2 %', '-')
    """
    if mean is None:
        return "-"
    plus_minus = "" if error is None else f" +- {196 * error:.1f}"
    return f"{100 * mean:.1f}{plus_minus} %"


def points(x):
    """A paired difference -> "+12.3 points [+9.1, +15.5]"."""
    if x["difference"] is None:
        return "-"
    between = ""
    if x["interval"] is not None:
        between = " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in x["interval"]))
    return f"{100 * x['difference']:+.1f} points{between}"


def columns(rows):
    """Lists of texts -> lines, aligned: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append("  ".join([first.ljust(widths[0])] + cells))
    return "\n".join(lines)


def set_table(name, one):
    """A set's part of the report -> its table."""
    results = one["models"]
    first = next(iter(results))
    ks = [f"pass@{k}" for k in powers_of_two(one["samples"])[1:]]

    rows = [["  model", "accuracy", *ks, "majority", "no answer", "cut", "tokens", "unknown"]]
    for model, x in results.items():
        rows.append([
            f"  {model}", percent(x["accuracy"], x["accuracy_error"]), *(percent(x[k]) for k in ks),
            percent(x["majority"]), percent(x["no_answer"]), percent(x["cut"]),
            f"{x['mean_tokens']:.0f}", str(x["unknown"])])

    differences, too_long, unknown = [], [], []
    for model, x in results.items():
        if "against_first" in x:
            against = x["against_first"]
            differences.append(f"  {model}: {points(against)} against {first}, over the same "
                               f"{against['questions']} questions")
        if x["too_long"]:
            too_long.append(f"  {model}: {x['too_long']} questions left out as too long")
        if x["unknown"]:
            unknown.append(f"  {model}: {x['unknown']} checks without a verdict, "
                           "those answers left out")

    title = f"\n{name}: {results[first]['questions']} questions x {one['samples']} answers"
    return "\n".join([title, columns(rows), *differences, *too_long, *unknown])


def group_table(groups, models):
    """The means over sets -> their table."""
    against = [f"{model} against {models[0]}" for model in models[1:]]
    rows = [["mean of sets", "sets", *models] + against]
    for group, x in groups.items():
        means = [percent(x[model]["accuracy"], x[model]["accuracy_error"]) for model in models]
        differences = [points(x[model]["against_first"]) for model in models[1:]]
        rows.append([group, str(len(x["sets"])), *means, *differences])
    return "\n" + columns(rows)


# ---------------------------------------------------------------- the command

def main(argv=None):
    """argv: words of the command line; None: the one that was read before torch was imported."""
    args, tests = ASKED if argv is None else question_sets.asked(argv)
    if args.threads:
        torch.set_num_threads(args.threads)

    finished = Finished(question_sets.answers_file(args))
    if finished.records:
        print(f"{finished.path}: {len(finished.records)} answered questions; those of the same "
              "models and settings are not answered again")
    with Verifier() as verifier:
        report = compare(args.models, tests, args, finished, verifier)

    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\n{args.json} has every number, {finished.path} every answer")


if __name__ == "__main__":
    run_script(main, stopped="stopped; with --json the same command goes on from here")
