"""How often is a model right? Any models on any question files: accuracy, pass@k, majority vote, side by side.

    python evaluate.py toy/anchor runs/toy-influence-seed0/solver --questions toy/test.json --samples 8 --json result.json
    python evaluate.py Qwen3-8B-Base runs/NAME/solver --questions math500 gpqa_diamond medqa          (the authors' files, from the hub)

The first takes some 15 seconds of one CPU core and ends with accuracies near 46 and 88 % and their difference.

    accuracy       = mean over questions of c / N
    pass@k         = mean over questions of 1 - C(N - c, k) / C(N, k)        k = 1, 2, 4, ... <= N; pass@1 is the accuracy
    standard error = std over questions of that number / sqrt(Q)

    code      symbol   shape    meaning
    samples   N                 answers to each question
    right     c        (Q, N)   1 right, 0 wrong or nothing in a box, null where the check of a free-form answer timed out; c counts the 1s
    majority                    share of questions whose most frequent answer is right; of equally frequent ones, one is drawn
    paired                      a model less the first, question by question: what makes a question hard for both cancels

Answers are sampled at temperature 0.7, top_p 0.8, top_k 20, as the authors evaluate, and as often as they do on their benchmarks. Error
bars are over questions, since answers to one question are not independent; intervals are 95 %, 1.96 standard errors. An unknown answer
(null) is counted and left out: its question then has fewer answers, and no pass@k for a k beyond them.

With --json FILE.json every answer goes into FILE.answers.jsonl as soon as its piece of some 256 answers is done. After an interruption
the same command goes on from there and ends with the numbers it would have had; other settings, or a model whose files have changed,
start afresh.

The authors call general reasoning and math & physics aligned with their documents and dev set, and medicine and coding out of domain.
Which file belongs to which category is our reading of its name (BENCHMARKS); coding is not among their files. For files of your own:
--in_domain FILE ... and --out_domain FILE ... . A mean over sets gives each set the same weight.

Ours where the authors' text leaves it open: the prompts; a question too long for --max_prompt_tokens is left out, not wrong; in the vote,
right answers to a free-form question count as one answer and wrong ones by their text. Missing on purpose: scoring options by likelihood;
several GPUs for one model (start a process for each model, each with its own --json).
"""
import argparse
import hashlib
import json
import math
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import config
import solver as solver_role
from data import InputError, keep_fitting, load_questions, run_script
from policy import Policy
from verify import Verifier

PIECE = 256             # answers per piece of work: what an interruption can lose, and the batch that the sampler drains
MATH, GENERAL, MEDICAL = ("math & physics", "in domain"), ("general reasoning", "in domain"), ("medical", "out of domain")
BENCHMARKS = {          # short name: (answers per question, category), files of config.HUB + "benchmarks/"
    "math500": (4, MATH), "aime2024": (32, MATH), "aime2025": (32, MATH), "hmmt": (32, MATH), "olympiadbench": (1, MATH),
    "mmlu_pro": (1, GENERAL), "gpqa_diamond": (5, GENERAL), "supergpqa": (1, GENERAL), "bbeh": (1, GENERAL),
    "medqa": (1, MEDICAL), "medxpertqa": (1, MEDICAL)}


# ---------------------------------------------------------------- what train.py asks for

def accuracy(policy, questions, samples, key, cfg, verifier, what="evaluate"):
    """-> {"accuracy", "standard_error", "unboxed", "cut", "timeouts", "tokens"} of N = samples answers each. key as in policy.sample."""
    answers, r = sample_answers(policy, questions, samples, key, cfg, verifier, what)
    mean, error = mean_and_error(r.double().nanmean(dim=1))                                                 # (Q,)
    rollouts = [rollout for group in answers for rollout in group]
    return {"accuracy": mean, "standard_error": error,
            "unboxed": solver_role.unboxed_share(questions, answers),
            "cut": sum(not rollout.finished for rollout in rollouts) / len(rollouts),
            "timeouts": int(r.isnan().sum()), "tokens": sum(len(rollout.response) for rollout in rollouts)}


def sample_answers(policy, questions, samples, key, cfg, verifier, what):
    """Q questions -> (Q, N) rollouts at the evaluation's sampling settings, and (Q, N) r, nan where a check timed out."""
    answers = solver_role.answer_questions(policy, questions, samples, key, cfg, what=what,
                                           temperature=cfg.eval_temperature, top_p=cfg.eval_top_p, top_k=cfg.eval_top_k)
    return answers, solver_role.shared_rewards(questions, answers, verifier)


def mean_and_error(values):
    """(Q,) numbers, nan where unknown -> (mean, its standard error) of the known ones; None where there are too few.

    >>> mean_and_error([1.0, 0.0, 1.0, 0.0, float("nan")])
    (0.5, 0.28867513459481287)
    """
    known = torch.as_tensor(values, dtype=torch.float64)
    known = known[~known.isnan()]
    mean, error = float(known.mean()), float(known.std() / len(known) ** 0.5) if len(known) > 1 else None
    return (mean if len(known) else None), error


# ---------------------------------------------------------------- from the answers to one question to numbers

def pass_at_k(n, c, k):
    """Chance that k answers drawn from n, of which c are right, hold a right one: unbiased, and exact up to the last division.

    Source: Chen et al. 2021, arXiv 2107.03374. ValueError unless 0 <= c <= n and 1 <= k <= n.

    >>> [round(pass_at_k(32, 3, k), 6) for k in (1, 2, 4, 8, 16, 32)]
    [0.09375, 0.181452, 0.339516, 0.591935, 0.887097, 1.0]
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} right answers among {n}: expected 0 <= c <= n and 1 <= k <= n")
    return (math.comb(n, k) - math.comb(n - c, k)) / math.comb(n, k)


def majority(given, right):
    """N answers (None: nothing in a box), and whether each is right -> chance that the most frequent one is; nan if no verdict is known.

    >>> majority(["A", "B", "B", None], [0, 1, 1, 0]), majority(["A", "B"], [0, 1]), majority([None, None], [0, 0])
    (1.0, 0.5, 0.0)
    """
    known = [(answer, r) for answer, r in zip(given, right) if r is not None]
    if not known:
        return math.nan
    votes = Counter(True if r else answer for answer, r in known if answer is not None)     # "1/2" and "0.5": one answer if both are right
    most = [answer for answer, count in votes.items() if count == max(votes.values())]
    return (True in most) / max(1, len(most))


def share(right):
    """Known answers' share of right ones; nan if none is known."""
    known = [r for r in right if r is not None]
    return sum(known) / len(known) if known else math.nan


def powers_of_two(n):
    return [2 ** i for i in range(n.bit_length())]                                           # 1, 2, 4, ... <= n


def summarize(records):
    """Q records, one per question -> every number of the table. Shares, not percent; lengths in tokens; None where nothing is known."""
    per_question = {"accuracy": [share(x["right"]) for x in records],
                    "majority": [majority(x["given"], x["right"]) for x in records]}                        # (Q,) each
    for k in powers_of_two(max(len(x["right"]) for x in records)):
        known = [[r for r in x["right"] if r is not None] for x in records]
        per_question[f"pass@{k}"] = [pass_at_k(len(right), sum(right), k) if k <= len(right) else math.nan for right in known]
    result = {"questions": len(records), "answers": sum(len(x["right"]) for x in records)}
    for name, values in per_question.items():
        result[name], result[f"{name}_error"] = mean_and_error(values)
    def over_answers(name, counts):
        return sum(counts(value) for x in records for value in x[name])
    return result | {"no_answer": over_answers("given", lambda answer: answer is None) / result["answers"],
                     "unknown": over_answers("right", lambda r: r is None),
                     "cut": over_answers("finished", lambda finished: not finished) / result["answers"],
                     "mean_tokens": over_answers("tokens", int) / result["answers"]}


def paired(records, first):
    """A model's records and the first's -> their difference in accuracy over the questions that both have; None where there are too few."""
    other = {x["question_id"]: share(x["right"]) for x in first}
    both = [share(x["right"]) - other[x["question_id"]] for x in records if x["question_id"] in other]
    mean, error = mean_and_error(both)
    return {"difference": mean, "error": error, "interval": interval(mean, error), "questions": sum(not math.isnan(d) for d in both)}


def interval(mean, error):
    return None if error is None else [mean - 1.96 * error, mean + 1.96 * error]


# ---------------------------------------------------------------- what to answer

@dataclass
class QuestionSet:
    name: str               # as typed
    path: str
    samples: int            # N
    max_tokens: int         # longest answer
    category: str | None    # the authors', for their files
    group: str | None       # "in domain", "out of domain" or neither
    questions: list = None


def question_set(name, group, args):
    """A short name or a path -> its QuestionSet, loaded. The authors' numbers hold for their files unless a flag says otherwise."""
    samples, (category, default_group) = BENCHMARKS.get(name, (1, (None, None)))
    released = name in BENCHMARKS
    path = f"{config.HUB}benchmarks/{name}.json" if released else name
    longest = args.max_response_tokens or (8192 if released else 1024)
    return QuestionSet(name, path, args.samples or samples, longest, category, group or default_group, load_questions(path)[:args.limit])


def question_sets(args):
    """The command line -> QuestionSets, all of them readable, before any model is loaded."""
    named = [(name, None) for name in args.questions] + [(name, "in domain") for name in args.in_domain] \
        + [(name, "out of domain") for name in args.out_domain]
    if not named:
        raise InputError(f"no questions: give --questions, --in_domain or --out_domain a file or one of {', '.join(BENCHMARKS)}")
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: named twice, expected each question file once")
    return [question_set(name, group, args) for name, group in named]


# ---------------------------------------------------------------- work that can be interrupted

class Finished:
    """Pieces of finished work, appended to a JSONL as {"key", ...}; with path None they live in memory only.

    The line that a killed process left half-written is passed over, and done again.
    """

    def __init__(self, path):
        self.path, self.records = path, {}
        if path and os.path.exists(path):
            for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    record = json.loads(line)
                    self.records[record.pop("key")] = record
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue

    def get(self, key):
        return self.records.get(key)

    def add(self, records):
        """{key: record} -> on disk, whole lines at once."""
        self.records.update(records)
        if self.path:
            with open(self.path, "ab+") as f:
                f.seek(max(0, f.tell() - 1))
                torn = f.read(1) not in (b"", b"\n")
                lines = [json.dumps({"key": key, **record}, ensure_ascii=False) for key, record in records.items()]
                f.write(("\n" * torn + "\n".join(lines) + "\n").encode("utf-8"))
                f.flush()
                os.fsync(f.fileno())


def digest(*words):
    """Anything with a repr that tells it apart -> the key of a piece of work."""
    return hashlib.blake2b(repr(words).encode("utf-8", "replace"), digest_size=16).hexdigest()


def model_stamp(path):
    """What tells a model from one that later lies in the same folder: names, sizes and times of its files. A hub id stands for itself."""
    files = [f for f in Path(path).iterdir() if f.is_file()] if os.path.isdir(path) else []
    return path, sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)


def evaluate(policy, stamp, test, cfg, seed, finished, verifier):
    """A model on one QuestionSet -> (list of records in the set's order, number of questions left out as too long).

    record: {"question_id", "right", "given", "tokens", "finished", "texts"}, lists of N. A piece always holds the same questions and
    its draws depend on nothing but its place, so neither --limit nor an interruption changes an answer.
    """
    length = lambda question: len(policy.prompt_ids(solver_role.prompt_text(question)))
    questions, skipped = keep_fitting(test.questions, length, cfg.max_prompt_tokens, f"questions of {test.name}")
    source = Path(test.path).name
    sampling = (cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k, cfg.max_prompt_tokens, cfg.max_response_tokens)
    keys = [digest(stamp, source, test.samples, seed, sampling, place, question) for place, question in enumerate(questions)]
    size = max(1, PIECE // test.samples)
    for start in tqdm(range(0, len(questions), size), desc=test.name, unit="piece", leave=False):
        piece, piece_keys = questions[start:start + size], keys[start:start + size]
        if not all(map(finished.get, piece_keys)):
            answers, r = sample_answers(policy, piece, test.samples, (seed, "evaluate", source, start), cfg, verifier, "answers")
            rows = zip(piece_keys, piece, answers, r.tolist())
            finished.add({key: record(question, group, row) for key, question, group, row in rows if not finished.get(key)})
    return [finished.get(key) for key in keys], skipped


def record(question, group, r):
    """One question, its N rollouts and their rewards -> the line of FILE.answers.jsonl."""
    return {"question_id": question.question_id, "right": [None if math.isnan(x) else int(x) for x in r],
            "given": [given_answer(question, rollout.text) for rollout in group], "tokens": [len(rollout.response) for rollout in group],
            "finished": [rollout.finished for rollout in group], "texts": [rollout.text for rollout in group]}


def given_answer(question, text):
    """The letter, or the text in the box of a free-form answer; None if there is neither."""
    return solver_role.extract_answer(text, len(question.choices)) if question.choices else solver_role.last_boxed(text)


# ---------------------------------------------------------------- models side by side

def compare(models, tests, args, finished, verifier, say=print):
    """Models x QuestionSets -> the report that --json writes; say gets each table. Models are loaded one after the other."""
    records, results = {}, {}
    for model in models:
        path = config.find_model("MODEL", model)
        policy, stamp = None, model_stamp(path)             # the last model is let go before the next is loaded
        for test in tests:
            cfg = evaluation_config(args, test.max_tokens)
            policy = policy or Policy("solver", path, 0.0, cfg)
            records[test.name, model], too_long = evaluate(policy, stamp, test, cfg, args.seed, finished, verifier)
            result = results[test.name, model] = summarize(records[test.name, model]) | {"too_long": too_long}
            tqdm.write(f"{model} on {test.name}: {percent(result['accuracy'], result['accuracy_error'])} right", file=sys.stderr)
            if model != models[0]:
                result["against_first"] = paired(records[test.name, model], records[test.name, models[0]])
    sets = {test.name: {"category": test.category, "group": test.group, "samples": test.samples,
                        "models": {model: results[test.name, model] for model in models}} for test in tests}
    groups = group_means(sets, models)
    for name, one in sets.items():
        say(set_table(name, one))
    if groups:
        say(group_table(groups, models))
    settings = {name: value for name, value in vars(args).items() if name not in ("json", "threads", "rows_at_once")}
    return {"settings": settings, "sets": sets, "groups": groups}


def evaluation_config(args, max_response_tokens):
    return config.Config(max_prompt_tokens=args.max_prompt_tokens, max_response_tokens=max_response_tokens, rows_at_once=args.rows_at_once,
                         eval_temperature=args.temperature, eval_top_p=args.top_p, eval_top_k=args.top_k)


def group_means(sets, models):
    """Sets with a category or a group -> {its name: {"sets", model: {"accuracy", "accuracy_error", "against_first"}}}."""
    members = {}
    for name, one in sets.items():
        for group in filter(None, (one["category"], one["group"])):
            members.setdefault(group, []).append(name)
    means = {}
    for group, names in members.items():
        means[group] = {"sets": names}
        for model in models:
            of_model = [sets[name]["models"][model] for name in names]
            mean, error = combine([(x["accuracy"], x["accuracy_error"]) for x in of_model])
            means[group][model] = {"accuracy": mean, "accuracy_error": error}
            if model != models[0]:
                mean, error = combine([(x["against_first"]["difference"], x["against_first"]["error"]) for x in of_model])
                means[group][model]["against_first"] = {"difference": mean, "error": error, "interval": interval(mean, error)}
    return means


def combine(pairs):
    """[(mean, standard error)] of independent sets -> (their mean, its standard error); None where one of them is.

    >>> combine([(0.5, 0.03), (0.7, 0.04)])
    (0.6, 0.025)
    """
    means, errors = zip(*pairs)
    return (None if None in means else sum(means) / len(means)), (None if None in errors else math.hypot(*errors) / len(errors))


# ---------------------------------------------------------------- the table

def percent(mean, error=None):
    return "-" if mean is None else f"{100 * mean:.1f}" + (f" +- {100 * error:.1f}" if error is not None else "") + " %"


def points(x):
    """A paired difference -> "+12.3 points [+9.1, +15.5]"."""
    if x["difference"] is None:
        return "-"
    between = "" if x["interval"] is None else " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in x["interval"]))
    return f"{100 * x['difference']:+.1f} points{between}"


def columns(rows):
    """Rows of texts -> lines, aligned: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join([row[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]) for row in rows)


def set_table(name, one):
    """A set's part of the report -> its table."""
    results = one["models"]
    first = next(iter(results))
    ks = [f"pass@{k}" for k in powers_of_two(one["samples"])[1:]]
    rows = [["  model", "accuracy", *ks, "majority", "no answer", "cut", "tokens", "unknown"]]
    for model, x in results.items():
        rows.append([f"  {model}", percent(x["accuracy"], x["accuracy_error"]), *(percent(x[k]) for k in ks), percent(x["majority"]),
                     percent(x["no_answer"]), percent(x["cut"]), f"{x['mean_tokens']:.0f}", str(x["unknown"])])
    lines = [f"\n{name}: {results[first]['questions']} questions x {one['samples']} answers", columns(rows)]
    lines += [f"  {model}: {points(x['against_first'])} against {first}, over the same {x['against_first']['questions']} questions"
              for model, x in results.items() if "against_first" in x]
    lines += [f"  {model}: {x['too_long']} questions left out as too long" for model, x in results.items() if x["too_long"]]
    lines += [f"  {model}: {x['unknown']} checks without a verdict, those answers left out" for model, x in results.items() if x["unknown"]]
    return "\n".join(lines)


def group_table(groups, models):
    rows = [["mean of sets", "sets", *models] + [f"{model} against {models[0]}" for model in models[1:]]]
    for group, x in groups.items():
        rows.append([group, str(len(x["sets"])), *(percent(x[model]["accuracy"], x[model]["accuracy_error"]) for model in models),
                     *(points(x[model]["against_first"]) for model in models[1:])])
    return "\n" + columns(rows)


# ---------------------------------------------------------------- the command

def read_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model folder, hub id or short name; compared with the first")
    parser.add_argument("--questions", nargs="+", default=[], metavar="FILE", help=f"files, or short names: {', '.join(BENCHMARKS)}")
    parser.add_argument("--in_domain", nargs="+", default=[], metavar="FILE", help="the same, reported as in domain")
    parser.add_argument("--out_domain", nargs="+", default=[], metavar="FILE", help="the same, reported as out of domain")
    parser.add_argument("--samples", type=int, help="N, answers per question (default 1; the authors' number for their files)")
    parser.add_argument("--json", metavar="FILE", help="write the report here, and the answers beside it as they come")
    parser.add_argument("--limit", type=int, help="only the first so many questions of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7, help="0: greedy (default 0.7)")
    parser.add_argument("--top_p", type=float, default=0.8, help="(default 0.8)")
    parser.add_argument("--top_k", type=int, default=20, help="0: all tokens (default 20)")
    parser.add_argument("--max_response_tokens", type=int, help="answers are cut here (default 1024; 8192 for the authors' files)")
    parser.add_argument("--max_prompt_tokens", type=int, default=4096, help="longer questions are left out and counted (default 4096)")
    parser.add_argument("--rows_at_once", type=int, default=256, help="answers sampled side by side (default 256)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    return check(parser.parse_args(argv))


def check(args):
    for name in ("samples", "limit", "max_response_tokens", "max_prompt_tokens", "rows_at_once"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: expected at least 1")
    if args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0:
        raise InputError(f"--temperature {args.temperature} --top_p {args.top_p} --top_k {args.top_k}: "
                         "expected a temperature of 0 or more, a top_p above 0 and up to 1, a top_k of 0 or more")
    if len(set(args.models)) < len(args.models):
        raise InputError("a model is named twice, expected each once")
    if args.json and not os.path.isdir(os.path.dirname(os.path.abspath(args.json))):
        raise InputError(f"--json {args.json}: its folder does not exist")
    return args


def main(argv=None):
    args = read_arguments(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    tests = question_sets(args)
    finished = Finished(f"{os.path.splitext(args.json)[0]}.answers.jsonl" if args.json else None)
    if finished.records:
        print(f"{finished.path}: {len(finished.records)} answered questions; those of the same models and settings are not answered again")
    with Verifier() as verifier:
        report = compare(args.models, tests, args, finished, verifier)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\n{args.json} has every number, {finished.path} every answer")


if __name__ == "__main__":
    run_script(main, stopped="stopped; with --json the same command goes on from here")
