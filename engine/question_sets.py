"""What evaluate.py is asked to do: its command line, and the question files with their settings.

    words --read_arguments--> arguments --question_sets--> [QuestionSet], all readable

Needs no torch, so that --help, a misspelt flag, a missing file and a run folder in place of a model
are answered at once.

The authors call general reasoning and math & physics aligned with their documents and dev set, and
medicine and coding out of domain. Which of their files belongs to which category is our reading of
its name (BENCHMARKS); coding is not among their files. For files of your own: --in_domain FILE ...
and --out_domain FILE ... .
"""
import argparse
import os
from collections import Counter
from dataclasses import dataclass

from config import CHOICES, HUB
from data import InputError, run_script
from engine import flags
from engine.readers import load_questions

MATH = ("math & physics", "in domain")
GENERAL = ("general reasoning", "in domain")
MEDICAL = ("medical", "out of domain")
# short name: (answers per question, category), files of HUB + "benchmarks/"
BENCHMARKS = {
    "math500": (4, MATH), "aime2024": (32, MATH), "aime2025": (32, MATH), "hmmt": (32, MATH),
    "olympiadbench": (1, MATH),
    "mmlu_pro": (1, GENERAL), "gpqa_diamond": (5, GENERAL), "supergpqa": (1, GENERAL),
    "bbeh": (1, GENERAL),
    "medqa": (1, MEDICAL), "medxpertqa": (1, MEDICAL)}


@dataclass
class QuestionSet:
    """A file of questions, and how to answer them."""
    name: str               # as typed
    path: str
    samples: int            # N
    max_tokens: int         # longest answer
    category: str | None    # the authors', for their files
    group: str | None       # "in domain", "out of domain" or neither
    questions: list = None


def question_set(name, group, args):
    """A short name or a path -> its QuestionSet, loaded.

    The authors' numbers hold for their files unless a flag says otherwise.
    """
    samples, (category, default_group) = BENCHMARKS.get(name, (1, (None, None)))
    released = name in BENCHMARKS
    path = f"{HUB}benchmarks/{name}.json" if released else name
    longest = args.max_response_tokens or (8192 if released else 1024)
    return QuestionSet(name, path, args.samples or samples, longest, category,
                       group or default_group, load_questions(path)[:args.limit])


def question_sets(args):
    """The command line -> QuestionSets, all of them readable, before any model is loaded."""
    named = [(name, None) for name in args.questions]
    named += [(name, "in domain") for name in args.in_domain]
    named += [(name, "out of domain") for name in args.out_domain]
    if not named:
        raise InputError("no questions: give --questions (say toy/test.json), --in_domain or "
                         "--out_domain a file or "
                         f"one of {', '.join(BENCHMARKS)}")
    counts = Counter(name for name, _ in named)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: named twice, expected each question file once")
    return [question_set(name, group, args) for name, group in named]


# ---------------------------------------------------------------- the command line

def from_command_line(about):
    """-> (arguments, QuestionSets), or one line on stderr and exit code 2."""
    return run_script(lambda: asked(None, about))


def asked(argv, about=None):
    """Words as in read_arguments -> (arguments, QuestionSets). Raises InputError.

    Every model has to be one before the first is loaded.
    """
    args = read_arguments(argv, about)
    for model in args.models:
        flags.find_model("MODEL", model)
    return args, question_sets(args)


def read_arguments(argv, about=None):
    """A list of words, or None for the command line -> its checked arguments. Raises InputError."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL",
        help="model folder, hub id or short name; compared with the first")
    add("--questions", nargs="+", default=[], metavar="FILE",
        help=f"files, or short names: {', '.join(BENCHMARKS)}")
    add("--in_domain", nargs="+", default=[], metavar="FILE",
        help="the same, reported as in domain")
    add("--out_domain", nargs="+", default=[], metavar="FILE",
        help="the same, reported as out of domain")
    add("--samples", type=int,
        help="N, answers per question (default 1; the authors' number for their files)")
    add("--json", metavar="FILE",
        help="write the report here, and the answers beside it as they come")
    add("--limit", type=int, help="only the first so many questions of each file")
    add("--seed", type=int, default=0)
    add("--temperature", type=float, default=0.7, help="0: greedy (default 0.7)")
    add("--top_p", type=float, default=0.8, help="(default 0.8)")
    add("--top_k", type=int, default=20, help="0: all tokens (default 20)")
    add("--prompts", choices=CHOICES["prompts"], default="plain",
        help="what is asked: plain, or hard as in the paper's presets (default plain)")
    add("--max_response_tokens", type=int,
        help="answers are cut here (default 1024; 8192 for the authors' files)")
    add("--max_prompt_tokens", type=int, default=4096,
        help="longer questions are left out and counted (default 4096)")
    add("--rows_at_once", type=int, default=256,
        help="answers sampled side by side (default 256)")
    add("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    return check(parser.parse_args(argv))


def check(args):
    """Arguments -> the same; InputError for the first that is out of range."""
    for name in ("samples", "limit", "max_response_tokens", "max_prompt_tokens", "rows_at_once"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")
    if args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0:
        raise InputError(f"--temperature {args.temperature} --top_p {args.top_p} --top_k "
                         f"{args.top_k}: expected a temperature of 0 or more, a top_p above 0 and "
                         "up to 1, a top_k of 0 or more")
    if len(set(args.models)) < len(args.models):
        raise InputError("a model is named twice, expected each once")
    if args.json and not os.path.isdir(os.path.dirname(os.path.abspath(args.json))):
        raise InputError(f"--json {args.json}: its folder does not exist")
    return args
