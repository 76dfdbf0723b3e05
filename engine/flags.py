"""Command line, presets and config.json -> a checked Config, or an InputError of one line.

    command line --read_flags--> {field: text} --from_flags--> Config --check--> the same Config

A flag wins over its preset, a preset over the defaults (config.py). from_command_line() is what a
script calls before it imports torch, so that --help, a misspelt flag and a missing file are
answered at once. --output_dir is a second name of --run, which torchrun takes for its own.
"""
import argparse
import difflib
import json
import math
import os
import re
import shutil
import sys
import typing
from dataclasses import replace
from pathlib import Path

from config import CHANGEABLE, CHOICES, FILES, SECTIONS, SETTINGS, Config
from engine.arguments import MOST_SEED, MOST_THREADS, OneLine, underscored
from engine.outputs import folder_to_write
from engine.presets import PRESETS, SHORT_NAMES, TOY, TOY_FREE, TOY_HARD
from engine.speech import complain, take_all_letters
from data import InputError
from dugrpo import ADVANTAGES
from rewards import REWARDS

# What --help prints first, and what stands behind each.
FIRST = {"model": "PATH", "documents": "FILE_OR_FOLDER", "dev": "FILE", "test": "FILE",
         "output_dir": "FOLDER"}
SAME_FOLDER = "the same as --output_dir, by its name in config.json; torchrun takes it for its own"


# ---------------------------------------------------------------- the command line

def from_command_line():
    """The command line -> Config, or one line on stderr and exit code 2; needs no torch.

    Local files that the run would read have to be there. One of several ranks -> the InputError
    itself: what is wrong on one of them only ends all, once they have met (ranks.meet).
    """
    take_all_letters()
    try:
        cfg = parse()
        # a plan may be made where the data is not
        if not cfg.plan:
            files_exist(cfg)
            folder_to_write("--output_dir", cfg.run)
        if cfg.show_data:
            # only here: a run reads its files with the model at hand
            from engine.summary import show
            show(cfg)
            sys.exit(0)
        return cfg
    except InputError as error:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            return error
        if os.environ.get("LOCAL_RANK", "0") == "0":
            complain(str(error))
        sys.exit(2)


def parse(argv=None):
    """Command line (sys.argv unless given) -> checked Config. Raises InputError."""
    return from_flags(read_flags(argv))


def files_exist(cfg):
    """Raises InputError for the first local file or folder that is not there though it is read."""
    for name in FILES:
        path = getattr(cfg, name)
        unread = name == "documents" and not cfg.reads_documents
        if path and not unread and not path.startswith("hf://") and not os.path.exists(path):
            raise InputError(f"{path}: no such file or folder")


def read_flags(argv=None):
    """Command line -> {field: text} of the fields it names; prints all and exits on --help."""
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    flags, rest = make_parser().parse_known_args(list(map(underscored, words)))
    for word in rest[:1]:
        if not word.startswith("--"):
            raise InputError(f"unexpected {word!r}; fields are set with --field value")
        known(word[2:].split("=")[0])

    flags = vars(flags)
    folder = flags.pop("output_dir", None)
    if folder is not None and flags.setdefault("run", folder) != folder:
        raise InputError(f"--run {flags['run']} and --output_dir {folder} both name the folder to "
                         "write; give one of them")
    return flags


def make_parser():
    parser = OneLine(
        usage="%(prog)s [--field value ...]", allow_abbrev=False, formatter_class=formatter,
        description="Every field, with its symbol, its default and the paper's value. With --model "
                    "PATH the preset small has other defaults, with a short name a paper's; "
                    "without --model it is toy, whose files stand in for all that are not named "
                    "(engine/presets.py).")
    group = parser.add_argument_group("what matters first")
    for name, what in FIRST.items():
        add(group, name, what)
    for title, names in sections().items():
        group = parser.add_argument_group(title)
        for name in names:
            if name not in FIRST:
                add(group, name, kind_of(name).__name__)
    return parser


def formatter(prog):
    width = min(100, shutil.get_terminal_size().columns)
    return argparse.HelpFormatter(prog, max_help_position=30, width=width)


def add(group, name, what):
    """One flag of the parser, which takes no value yet: text, for from_flags."""
    field = "run" if name == "output_dir" else name
    stands_alone = dict(nargs="?", const="true") if SETTINGS[field].type is bool else {}
    about = SAME_FOLDER if name == "run" else help_text(field)
    group.add_argument(f"--{name}", metavar=what, default=argparse.SUPPRESS,
                       help=about.replace("%", "%%"), **stands_alone)


def sections():
    """-> {section: the names of its fields, in order}."""
    first = {name: title for title, name in SECTIONS.items()}
    found = {}
    for name in SETTINGS:
        title = first.get(name)
        if title:
            names = found[title] = []
        names.append(name)
    return found


def help_text(name):
    """A field's name -> what it means [symbol]; what it may be (its default; the paper's value)."""
    setting = SETTINGS[name]
    about = setting.metadata
    text = about["meaning"]
    if about["symbol"]:
        text += f" [{about['symbol']}]"
    if name in CHOICES:
        text += f"; one of {', '.join(CHOICES[name])}"
    paper = "" if about["paper"] is None else f"; paper {about['paper']}"
    return f"{text} (default {shown(setting.default)}{paper})"


# ---------------------------------------------------------------- flags become a Config

def from_flags(flags):
    """{field: text or value} -> Config: flags over preset over defaults.

    Names and paths are resolved, everything is checked, `given` is filled in. Raises InputError.
    """
    given = {name: as_field(name, value) for name, value in flags.items()}
    if "resume" in given:
        return resumed(given)
    given |= resolved(given)
    preset = given.get("preset") or preset_of(given.get("model"))
    if preset not in PRESETS:
        raise InputError(f"preset = {preset!r}: expected one of {', '.join(PRESETS)}")
    values = PRESETS[preset] | {"preset": preset} | given
    # no drafts, so nothing to pay for
    if values.get("train_on") in ("dev", "file"):
        values = {"reward": "fixed"} | values

    cfg = Config(**values, given=tuple(given))
    if cfg.invalid_score is None:
        cfg = replace(cfg, invalid_score=invalid_score(cfg.reward))
    # a sum without its spaces
    paid = re.sub(r"[^\w.+-]+", "-", cfg.reward.replace(" ", ""))
    what = {"dev": "dev-only", "file": "file"}.get(cfg.train_on, paid)
    return check(replace(cfg, run=cfg.run or f"runs/{cfg.preset}-{what}-seed{cfg.seed}"))


def resolved(given):
    """{field: value} -> the models and files among them, found and absolute.

    So that a run can be resumed from another folder.
    """
    found = {}
    for name in ("model", "generator_model"):
        if given.get(name):
            found[name] = find_model(name, given[name])
    for name in FILES:
        if given.get(name) and not given[name].startswith("hf://"):
            found[name] = absolute(given[name])
    return found


def absolute(path):
    return os.path.abspath(os.path.expanduser(path))


def invalid_score(reward):
    """What an invalid draft scores; None for a sum, whose terms say so each for itself."""
    return REWARDS[reward][1] if reward in REWARDS else None


def preset_of(model):
    """Resolved model -> the preset a run starts from when none is given."""
    worlds = {None: "toy", TOY["model"]: "toy", TOY_HARD["model"]: "toy-hard",
              TOY_FREE["model"]: "toy-free"}
    if model in worlds:
        return worlds[model]
    return preset_of_run(model) or dict(SHORT_NAMES.values()).get(model, "small")


def preset_of_run(model):
    """RUN/solver or RUN/generator -> the preset of that run, or None: its data fits the model."""
    try:
        text = (Path(model).parent / "config.json").read_text(encoding="utf-8")
        preset = json.loads(text)["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return preset if preset in PRESETS else None


def find_model(name, text):
    """Short name, local folder or hub id -> hub id or absolute folder.

    A short name wins over a folder; ./NAME is the folder. name is what a message calls the model.
    InputError for a name nobody has, and for the folder of a run instead of a model in it.
    """
    if text in SHORT_NAMES:
        return SHORT_NAMES[text][0]
    folder = absolute(text)
    if os.path.isdir(folder):
        refuse_run(name, text, folder)
        return folder
    # ORG/NAME; where ORG is a folder here, it is more likely a mistyped path
    parent = os.path.dirname(folder)
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", text) and not os.path.isdir(parent):
        return text
    near = nearest(text, SHORT_NAMES) or list(SHORT_NAMES)
    raise InputError(f"{name} = {text!r}: expected a local folder, a hub id ORG/NAME, or a short "
                     f"name such as {', '.join(near)}")


def refuse_run(name, text, folder):
    """InputError where the folder is that of a run: its config.json is a run's, not a model's."""
    try:
        values = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(values, dict) or "docs_per_step" not in values:
        return
    role = "generator" if name.startswith("generator") else "solver"
    if os.path.isdir(os.path.join(folder, role)):
        meant = os.path.join(text, role)
        raise InputError(f"{name} = {text!r}: is a run; did you mean {meant}?")
    raise InputError(f"{name} = {text!r}: is a run that has not written its {role}/ yet")


# ---------------------------------------------------------------- saved configs

def resumed(given):
    """Flags that hold `resume` -> the Config of that run, with the few that may change changed."""
    folder = given["resume"]
    fixed = [name for name in given if name not in CHANGEABLE + ("resume",)]
    if fixed:
        may = ", ".join(CHANGEABLE)
        raise InputError(f"{', '.join(fixed)} cannot be set beside --resume; only {may} can")
    path = f"{folder}/config.json"
    if not os.path.isfile(path):
        raise InputError(f"resume = {folder!r}: expected the folder of a run, "
                         "but it has no config.json")
    if not os.path.getsize(path):
        raise InputError(f"resume = {folder!r}: its config.json is empty, so this run was stopped "
                         f"before it began and nothing is lost; start it again with "
                         f"--output_dir {folder}")
    # what was accepted at an earlier resume is not accepted for ever
    cfg = replace(load(path), accept_changed_data=False)
    return check(replace(cfg, **given, run=folder, given=tuple(given)))


def load(path):
    """JSON written by Config.save -> Config.

    InputError if it cannot be read or a field is unknown, missing or out of range.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})")
    except (ValueError, RecursionError) as error:
        # broken JSON, not UTF-8, or brackets nested a thousand deep
        raise InputError(f"{path}: expected the JSON that a run wrote, but {error}")
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object with one entry per field, "
                         f"got {type(values).__name__}")
    try:
        return from_values(values)
    except InputError as error:
        raise InputError(f"{path}: {error}")


def from_values(values):
    """{every field: its value from JSON} -> Config, with what binds its checkpoints to it."""
    values = dict(values)
    run_id, inputs = values.pop("run_id", ""), values.pop("inputs", None)
    if not isinstance(run_id, str) or not isinstance(inputs, dict if run_id else type(None)):
        raise InputError("run_id or inputs are not those that a run wrote")
    for name in values:
        known(name)
    # a default here could silently change a run that is resumed
    missing = [name for name in SETTINGS if name not in values]
    if missing:
        raise InputError(f"no value for {', '.join(missing)}")
    fields = {name: as_field(name, value) for name, value in values.items()}
    return check(Config(**fields, run_id=run_id, inputs=inputs))


# ---------------------------------------------------------------- names and types

def known(name):
    """Raises InputError with the nearest names unless name is a field."""
    if name in SETTINGS:
        return
    near = nearest(name, [*SETTINGS, "output_dir"]) or described_by(name)
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists them all"
    raise InputError(f"there is no field {name!r}; {hint}")


def nearest(name, names):
    """Those of names that hold name or are spelled like it, at most four.

    >>> nearest("lr", SETTINGS), nearest("docs_per_stp", SETTINGS)
    (['solver_lr', 'generator_lr'], ['docs_per_step', 'rlvr_per_step'])
    """
    inside = [x for x in names if len(name) > 1 and name.lower() in x.lower()]
    return (inside or difflib.get_close_matches(name, names, n=3))[:4]


def described_by(name):
    """The fields whose meaning has every word of name, or one spelled like it; at most four.

    >>> described_by("learning_rat")
    ['solver_lr', 'generator_lr']
    """
    words = re.findall("[a-z]+", name.lower())
    return [field for field in SETTINGS if words and means(field, words)][:4]


def means(field, words):
    meaning = re.findall("[a-z]+", SETTINGS[field].metadata["meaning"].lower())
    return all(difflib.get_close_matches(word, meaning, n=1, cutoff=0.8) for word in words)


def kind_of(name):
    """bool, int, float or str: the type of a field, without its None."""
    return (typing.get_args(SETTINGS[name].type) or (SETTINGS[name].type,))[0]


def as_field(name, value):
    """Text from the command line, or a value from JSON -> the value in the field's type.

    InputError if it is not one.
    """
    kind = kind_of(name)
    may_be_none = bool(typing.get_args(SETTINGS[name].type))
    if may_be_none and value in (None, "none", "None"):
        return None
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and isinstance(value, str) and value:
        return value
    if kind in (int, float) and not isinstance(value, bool):
        number = as_number(kind, value)
        if number is not None:
            return number
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    raise InputError(f"{name} = {value!r}: expected {expected}")


def as_number(kind, value):
    """A finite number of that kind, or None; 2.5 is no int."""
    try:
        number = kind(value)
        if math.isfinite(number) and (isinstance(value, str) or number == value):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    return None


# ---------------------------------------------------------------- what may stand beside what

AT_LEAST_1 = (
    "iterations", "docs_per_step", "questions_per_doc", "minibatch_rows", "max_prompt_tokens",
    "max_response_tokens", "max_chunk_tokens", "dev_every", "eval_every", "valid_every",
    "eval_samples", "rlvr_per_chunk", "checkpoint_every", "tokens_at_once", "logp_chunk")
AT_LEAST_0 = (
    "seed", "top_k", "eval_top_k", "save_every", "show_every", "threads", "solver_lr",
    "generator_lr", "weight_decay", "seed_questions", "rlvr_per_step", "rlvr_chunks",
    "unboxed_penalty", "dev_refresh", "gate_share", "keep_per_doc", "rows_at_once")
ABOVE_0 = ("adam_eps", "grad_clip", "tis_cap")
BELOW_1 = ("beta1", "dev_ema", "vllm_memory")
MAYBE_0 = ("gate_tau", "gate_tau_max")
SHARES = ("top_p", "eval_top_p", "keep_share")
TEMPERATURES = ("temperature", "eval_temperature")
# Logits divided by less are infinite, and every number of the run is NaN.
COLDEST = 0.001
# Beyond them torch, or the list of what is to be done, takes the process with it.
MOST = {"threads": MOST_THREADS, "seed": MOST_SEED, "rlvr_chunks": 10**6, "rlvr_per_chunk": 1000}
MOST_OF_ANYTHING = 10**9
MOST_ANSWERS = 10**8
# What a plan is made for.
MOST_GPUS = 4096


def check(cfg):
    """Config -> the same Config.

    InputError names the first field that is out of range, its value, and what was expected.
    """
    check_sources(cfg)
    check_ranges(cfg)
    check_training(cfg)
    check_sizes(cfg)
    return cfg


def need(cfg, name, holds, expected):
    if not holds:
        raise InputError(f"{name} = {getattr(cfg, name)!r}: expected {expected}")


def check_sources(cfg):
    """A model and the data it takes are there, names are ones we know."""
    wanted = ["model", "documents", "dev"] if cfg.reads_documents else ["model", "dev"]
    lacking = [f"--{name} {FIRST[name]}" for name in wanted if getattr(cfg, name) is None]
    if lacking:
        none = f"the preset {cfg.preset!r} brings none of its own"
        raise InputError(f"missing {' and '.join(lacking)}: {none}")
    for name, choices in CHOICES.items():
        if name != "reward":
            need(cfg, name, getattr(cfg, name) in choices, f"one of {', '.join(choices)}")
    check_reward(cfg)
    if cfg.truth is not None:
        dotted = all(part.isidentifier() for part in cfg.truth.split("."))
        need(cfg, "truth", dotted, "the name of a module, such as toy.truth")


def check_reward(cfg):
    """A name, or a sum of terms whose names and advantages we know."""
    try:
        terms = cfg.terms
    except ValueError as error:
        raise InputError(f"reward = {cfg.reward!r}: {error}") from None
    for term in terms:
        need(cfg, "reward", term.advantage in ADVANTAGES,
             f"after a colon one of {', '.join(ADVANTAGES)}, not {term.advantage!r}")


def check_ranges(cfg):
    for name in AT_LEAST_1:
        need(cfg, name, getattr(cfg, name) >= 1, "at least 1")
    for name in AT_LEAST_0:
        need(cfg, name, getattr(cfg, name) >= 0, "0 or more")
    for name in ABOVE_0:
        need(cfg, name, getattr(cfg, name) > 0, "a number above 0")
    for name in TEMPERATURES:
        need(cfg, name, COLDEST <= getattr(cfg, name) <= 1000,
             f"a number of {COLDEST} to 1000; only evaluate.py takes 0, greedy")
    for name in (*AT_LEAST_1, *AT_LEAST_0):
        most = MOST.get(name, MOST_OF_ANYTHING)
        need(cfg, name, getattr(cfg, name) <= most, f"at most {most:,}")
    need(cfg, "docs_per_step", cfg.answers_per_step <= MOST_ANSWERS,
         f"fewer: with questions_per_doc and answers_per_question it is {cfg.answers_per_step:,} "
         f"answers an iteration, of at most {MOST_ANSWERS:,}")
    for name in BELOW_1:
        need(cfg, name, 0 <= getattr(cfg, name) < 1, "a number from 0 to below 1")
    # influence.scaled_Gamma divides by it
    need(cfg, "beta2", 0 < cfg.beta2 < 1, "a number between 0 and 1")
    for name in MAYBE_0:
        value = getattr(cfg, name)
        need(cfg, name, value is None or value >= 0, "0 or more, or none")
    for name in SHARES:
        need(cfg, name, 0 < getattr(cfg, name) <= 1, "a number above 0 and up to 1")


def check_training(cfg):
    """What is drafted, paid for and kept fits together; files stand beside the field they feed."""
    drafts = cfg.train_on == "generated"
    beside = f"beside train_on = {cfg.train_on!r}"
    need(cfg, "reward", drafts or cfg.reward == "fixed",
         f"fixed {beside}, where there is no generator to pay")
    need(cfg, "solver_keep", drafts or cfg.solver_keep == "all",
         "all beside train_on = 'dev' or 'file', where nothing is drafted")
    need(cfg, "solver_keep", cfg.solver_keep != "top" or cfg.reward != "fixed",
         "all or random beside reward = 'fixed', which gives no scores")
    need(cfg, "seed_questions", drafts or not cfg.seed_questions,
         f"0 {beside}, where nothing is drafted")
    need(cfg, "open_book", not cfg.open_book or cfg.reads_documents,
         "false, or documents to open: train_on generated and seed_questions 0")
    need(cfg, "seed_questions", cfg.seed_questions != 1,
         "0, or at least 2: one of a bundle is never shown")
    check_gate(cfg)
    need(cfg, "rlvr_documents", not cfg.rlvr_documents or cfg.reads_documents,
         "none unless train_on is generated and seed_questions 0")
    need(cfg, "rlvr_documents", not (cfg.rlvr_documents and cfg.open_book),
         "none beside open_book, where the solver would read the answers")
    for name, plain in (("rlvr_chunks", 0), ("rlvr_per_chunk", 1)):
        need(cfg, name, cfg.rlvr_documents or getattr(cfg, name) == plain,
             f"{plain} without rlvr_documents")

    partners = {"questions": ("train_on", cfg.train_on == "file", "file"),
                "rlvr": ("rlvr_per_step", cfg.rlvr_per_step > 0, "above 0"),
                "dev_pool": ("dev_refresh", cfg.dev_refresh > 0, "above 0")}
    for name, (partner, wanted, value) in partners.items():
        beside = f"{partner} = {getattr(cfg, partner)!r}"
        expected = f"a file beside {beside}" if wanted else (
            f"none beside {beside}; it goes with --{partner} {value}")
        need(cfg, name, bool(getattr(cfg, name)) == wanted, expected)


def check_gate(cfg):
    gated = cfg.by_influence
    need(cfg, "gate_share", not cfg.gate_share or gated, "0 unless influence is a reward")
    need(cfg, "gate_share", cfg.gate_share <= 1, "at most 1")
    need(cfg, "gate_tau", cfg.gate_tau is None or gated, "none unless influence is a reward")
    need(cfg, "gate_tau", cfg.gate_tau is None or not cfg.gate_share, "none beside gate_share")
    need(cfg, "gate_tau_max", cfg.gate_tau_max is None or cfg.gate_share,
         "none unless there is a gate_share")


def check_sizes(cfg):
    need(cfg, "clip", 0 < cfg.clip < 1, "a number between 0 and 1")
    need(cfg, "dual_clip", cfg.dual_clip > 1, "a number above 1")
    need(cfg, "min_choices", 2 <= cfg.min_choices <= cfg.max_choices,
         f"at least 2 and at most max_choices = {cfg.max_choices}")
    need(cfg, "max_choices", cfg.max_choices <= 26, "at most 26, one letter each")
    need(cfg, "max_chunk_tokens", cfg.max_chunk_tokens < cfg.max_prompt_tokens,
         f"less than max_prompt_tokens = {cfg.max_prompt_tokens}")
    need(cfg, "answers_per_question", cfg.answers_per_question >= 2,
         "at least 2: one answer alone has no advantage")
    need(cfg, "questions_per_doc", cfg.questions_per_doc >= 2 or cfg.reward == "fixed",
         "at least 2: one draft alone has no advantage")
    for name in ("answers_per_question", "questions_per_doc"):
        size = getattr(cfg, name)
        need(cfg, "minibatch_rows", cfg.minibatch_rows % size == 0,
             f"a multiple of {name} = {size}: whole groups")
    need(cfg, "gpus", 1 <= cfg.gpus <= MOST_GPUS, f"1 to {MOST_GPUS}")
    need(cfg, "gpu_gb", cfg.gpu_gb > 0, "a number above 0")


# ---------------------------------------------------------------- what is printed

def describe(cfg):
    """Config -> a table to print: what runs, then the fields that differ from the preset.

    With the preset's and the paper's values.
    """
    preset = {name: setting.default for name, setting in SETTINGS.items()}
    preset |= PRESETS[cfg.preset]
    preset |= {"preset": cfg.preset, "invalid_score": invalid_score(cfg.reward)}
    lines = [f"preset {cfg.preset}, model {cfg.model}, run {cfg.run}",
             f"{cfg.iterations} iterations of {cfg.docs_per_step} documents x "
             f"{cfg.questions_per_doc} questions x {cfg.answers_per_question} answers, "
             f"at most {cfg.answers_per_step} answers to train on in each"]
    for name, setting in SETTINGS.items():
        value = getattr(cfg, name)
        settled = preset[name] == "auto" and value == "plain"
        if value != preset[name] and name not in ("model", "run") and not settled:
            paper = setting.metadata["paper"]
            theirs = "" if paper is None else f", paper {paper}"
            lines.append(f"  {name:21}{shown(value):14}  preset {shown(preset[name])}{theirs}")
    return "\n".join(lines)


def shown(value):
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
