"""What evaluate.py is asked to do: its command line, and the question files with their settings.

    words --read_arguments--> arguments --question_sets--> [QuestionSet], all readable

Needs no torch, so that --help, a misspelt flag, a missing file and a run folder in place of a model
are answered at once.

A benchmark (engine/benchmarks.py) comes from a file of yours, --benchmarks NAME=FILE or
--benchmark_files DIR with the authors' file names, else from the authors' files on the hub. Of a
coding benchmark there are only the results of another tool.
"""
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace

from config import CHOICES
from engine.presets import HUB
from data import InputError
from engine.arguments import Parser
from engine import benchmarks, checkers, coding, flags
from engine.benchmarks import BENCHMARKS
from engine.outputs import file_to_write
from engine.readers import load_questions
from engine.speech import run_script


@dataclass
class QuestionSet:
    """A file of questions, and how to answer them."""
    name: str               # as typed; of a benchmark its short name
    path: str
    samples: int            # N
    max_tokens: int         # longest answer
    category: str | None    # the authors', for their benchmarks
    group: str | None       # "in domain", "out of domain" or neither
    questions: list = None
    benchmark: str | None = None    # its short name, if it is one
    option_seed: int | None = None  # by which its options were shuffled, if they were
    bad: int = 0                    # items of the file that were left out
    notes: list = field(default_factory=list)
    results: dict = None            # {model: records}, of a coding benchmark alone


def question_set(name, group, args):
    """A path -> its QuestionSet, loaded."""
    found = QuestionSet(name, name, args.samples or 1, args.max_response_tokens or 1024, None,
                        group)
    return loaded(found, args)


def benchmark_set(name, file, group, args, results):
    """A short name and its file, if given -> its QuestionSet; the authors' numbers hold for it.

    Of code, with what results there are.
    """
    x = BENCHMARKS[name]
    found = QuestionSet(
        name, "", args.samples or x.samples, args.max_response_tokens or x.max_tokens, x.category,
        group or x.group, benchmark=name)
    if x.kind == "code":
        return with_results(found, results)
    in_folder = args.benchmark_files and os.path.join(args.benchmark_files, x.file)
    found.path = file or in_folder or f"{HUB}benchmarks/{x.file}"
    try:
        found = loaded(found, args)
    except InputError as error:
        if file or in_folder and os.path.exists(in_folder):
            raise
        raise InputError(f"{name}: give its file, by --benchmarks {name}=FILE or by "
                         f"--benchmark_files DIR with {x.file} in it; it comes from {x.source}, or "
                         f"from the authors, where it was looked for: {error}") from None

    if x.size not in (None, len(found.questions)):
        found.notes.append(f"{len(found.questions)} questions, the benchmark has {x.size}")
    return found


def loaded(found, args):
    """A QuestionSet without questions -> the same with them, and with what is to be said."""
    x = BENCHMARKS.get(found.benchmark)
    bad, notes = [], []
    only = of_domain(x.domain) if x and x.domain else None
    questions = load_questions(found.path, notes.append, bad, only)
    if not questions:
        raise InputError(f"{found.path}: no question of {x.title}, expected some whose 'domain' "
                         f"or 'subject' speaks of {x.domain}")
    if x and x.shuffled:
        questions = [shuffled(question, args.seed) for question in questions]
        found.option_seed = args.seed
    return replace(found, questions=questions[:args.limit], bad=len(bad), notes=notes)


def of_domain(domain):
    """-> wanted(item): does its domain, OlympiadBench_Math or Physics, begin so?

    A file without such a field holds one part alone.
    """
    def wanted(item):
        told = [item.get(name) for name in ("domain", "subject")]
        told = [text.lower() for text in told if isinstance(text, str)]
        return not told or any(text.split("_")[-1].startswith(domain) for text in told)

    return wanted


def shuffled(question, seed):
    """The same with its options in an order that the seed and the question decide.

    A letter that a model likes then says nothing about its knowledge.
    """
    choices = list(question.choices)
    random.Random(f"options, seed {seed}, {question.question_text}").shuffle(choices)
    return replace(question, choices=choices)


def with_results(found, results):
    """A coding benchmark -> the same with {model: records}, where --coding_results gave some."""
    x = BENCHMARKS[found.name]
    mine = {model: records for (name, model), records in results.items() if name == found.name}
    for model, records in mine.items():
        samples = {len(record["right"]) for record in records}
        if (len(records), samples) != (x.size, {x.samples}):
            found.notes.append(f"{model}: {len(records)} problems with "
                               f"{' or '.join(map(str, sorted(samples)))} programs each, the "
                               f"authors have {x.size} with {x.samples}")
            found.samples = max(samples)
    return replace(found, results=mine)


def question_sets(args):
    """The command line -> QuestionSets, all of them readable, before any model is loaded."""
    named = [(None, name, file, None) for name, file in benchmarks.named(args.benchmarks)]
    for group, words in ((None, args.questions), ("in domain", args.in_domain),
                         ("out of domain", args.out_domain)):
        for word in words:
            short = None if os.path.exists(word) else benchmarks.short_name(word)
            named.append((group, short, None, word))
    if not named:
        raise InputError("no questions: give --questions (say toy/test.json), --in_domain or "
                         "--out_domain a file, or --benchmarks some of "
                         f"{', '.join(BENCHMARKS)}")
    names = [short or word for _, short, _, word in named]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: named twice, expected each question file once")

    results = coding.results_of(args.coding_results, args.models)
    unused = {name for name, _ in results} - set(names)
    if unused:
        raise InputError(f"--coding_results: a file of {unused.pop()}, which is not among "
                         "--benchmarks")
    tests = []
    for group, short, file, word in named:
        tests.append(benchmark_set(short, file, group, args, results) if short else
                     question_set(word, group, args))
    for test in tests:
        for question in test.questions or ():
            if checkers.deciding(args.checker, question) is None:
                kind = "multiple choice" if question.choices else "free-form"
                raise InputError(f"--checker {' '.join(args.checker)}: {test.name} has {kind} "
                                 "questions, which none of them can check; add ours")
    return tests


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
    tests = question_sets(args)
    if args.judge:
        args.judge_name = checkers.Judge(args.judge, args.judge_name).name
    return args, tests


def read_arguments(argv, about=None):
    """A list of words, or None for the command line -> its checked arguments. Raises InputError."""
    parser = Parser("evaluate.py", about)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL",
        help="model folder, hub id or short name; compared with the first")
    add("--questions", nargs="+", default=[], metavar="FILE",
        help="question files: JSON, JSONL, CSV, TSV, Parquet, hf://... (docs/own-data.md)")
    add("--benchmarks", nargs="+", default=[], metavar="NAME",
        help="NAME or NAME=FILE of the authors' benchmarks, or all: " + ", ".join(BENCHMARKS))
    add("--benchmark_files", metavar="DIR",
        help="folder with the authors' benchmark files (default: the hub)")
    add("--coding_results", nargs="+", default=[], metavar="FILE",
        help="FILE, or MODEL=FILE of several models: result files of evalplus, "
             "lm-evaluation-harness or LiveCodeBench")
    add("--in_domain", nargs="+", default=[], metavar="FILE",
        help="question files, reported as in domain")
    add("--out_domain", nargs="+", default=[], metavar="FILE",
        help="question files, reported as out of domain")
    add("--samples", type=int,
        help="N, answers per question (default 1; the authors' number for their benchmarks)")
    add("--checker", nargs="+", default=["ours"], metavar="NAME",
        help=f"{', '.join(checkers.NAMES)}, or some joined by +: the first that can check a "
             "question decides, the others are counted beside (default ours)")
    add("--judge", metavar="URL",
        help="the judge's OpenAI-compatible server, such as http://localhost:8000/v1 "
             "(its key, if it wants one, in OPENAI_API_KEY)")
    add("--judge_name", metavar="NAME", help="the judge's name there (default: its first model)")
    add("--judge_options", default="{}", metavar="JSON",
        help="more fields of its requests; null leaves one of ours out")
    add("--json", metavar="FILE",
        help="write the report here, and the answers beside it as they come")
    add("--limit", type=int, help="only the first so many questions of each file")
    add("--seed", type=int, default=0,
        help="of the sampling, and of the order of GPQA's options (default 0)")
    add("--temperature", type=float, default=0.7, help="0: greedy (default 0.7)")
    add("--top_p", type=float, default=0.8,
        help="share of probability sampled from, above 0 to 1 (default 0.8)")
    add("--top_k", type=int, default=20, help="0: all tokens (default 20)")
    add("--prompts", choices=CHOICES["prompts"], default="plain",
        help="what is asked: plain, or hard as in the paper's presets (default plain)")
    add("--max_response_tokens", type=int,
        help="answers are cut here (default 1024; 8192 for the authors' benchmarks)")
    add("--max_prompt_tokens", type=int, default=4096,
        help="longer questions are left out and counted (default 4096)")
    add("--rows_at_once", type=int, default=256,
        help="most answers sampled side by side; 0: as many as fit (default 256)")
    add("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    return check(parser.parse_args(argv))


def check(args):
    """Arguments -> the same; InputError for the first that is out of range."""
    if args.temperature != 0 and not flags.COLDEST <= args.temperature <= 1000:
        raise InputError(f"--temperature {args.temperature}: expected 0, or a number of "
                         f"{flags.COLDEST} to 1000")
    if not 0 < args.top_p <= 1:
        raise InputError(f"--top_p {args.top_p}: expected a number above 0 and up to 1")
    for model in args.models:
        if args.models.count(model) > 1:
            raise InputError(f"{model}: named twice, expected each model once")
    checkers.refuse_unknown(args.checker)
    with_judge = any("judge" in checkers.parts_of(name) for name in args.checker)
    if with_judge != bool(args.judge):
        raise InputError("--checker judge and --judge URL: expected both or neither")
    args.judge_options = json_object("--judge_options", args.judge_options)
    if args.json:
        read = [*args.questions, *args.in_domain, *args.out_domain]
        read += [file for _, file in benchmarks.named(args.benchmarks) if file]
        read += [coding.owner(word, args.models)[1] for word in args.coding_results]
        if args.benchmark_files:
            read += [os.path.join(args.benchmark_files, x.file) for x in BENCHMARKS.values()]
        file_to_write("--json", args.json, read)
        file_to_write("--json", answers_file(args), read)
    return args


def answers_file(args):
    """FILE.json -> FILE.answers.jsonl, where every answer goes; None without --json."""
    return f"{os.path.splitext(args.json)[0]}.answers.jsonl" if args.json else None


def json_object(name, text):
    """The text of a JSON object -> a dict. Raises InputError."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{name} {text!r}: expected a JSON object")
    return value
