"""All the numbers of a run: one field per setting, with its symbol and the paper's value beside ours, and the command line made of them.

    python train.py                                     preset toy: the defaults below
    python train.py --model PATH --documents FILE_OR_FOLDER --dev FILE --docs_per_step 4     preset small, one field changed
    torchrun --nproc_per_node 8 train.py --model Qwen3-8B-Base                               preset paper-8b
    python train.py --resume runs/NAME                  goes on with that run's own config

A row of the table reads  name: type = f(default, meaning, symbol, the paper's value).  Without the last, the paper's value is not known
to us or the setting exists only here. The presets further down are dicts laid over the defaults; a flag wins over its preset. A run's
config never changes under its feet (the dataclass is frozen), and goes into the run's folder with every field filled in.

Missing on purpose: a KL weight, an entropy bonus, epochs, warm-up, a learning-rate schedule. The method has none of them.
Source of the paper's values: the authors' blog and released code. The defaults and the preset small are our choice.
"""
import argparse
import difflib
import json
import math
import os
import re
import sys
import typing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from data import InputError

ROOT = Path(__file__).resolve().parent          # the embedded world lies beside this file, wherever the command is typed
HUB = "hf://datasets/Siyuc/infuser_train/"      # the authors' released data
INVALID_SCORES = {"influence": 0.0, "spice": -0.1, "rzero": 0.0, "azr": -1.0, "learnability": 0.0, "random": 0.0, "fixed": 0.0}     # rewards.py
CHOICES = {
    "preset": ("toy", "toy-hard", "toy-free", "small", "paper-4b", "paper-8b"),
    "reward": tuple(INVALID_SCORES),
    "similarity": ("preconditioned_cosine", "cosine", "dot", "preconditioned_dot"),
    "advantage": ("dugrpo", "group_std", "batch_std", "none"),
    "train_on": ("generated", "dev", "file"),
    "question_type": ("multiple_choice", "free_form"),
    "solver_keep": ("all", "top", "random"),
    "sampler": ("plain", "vllm"),
    "shard": ("auto", "true", "false"),
    "scoring": ("auto", "alone", "together"),
    "track": ("none", "tensorboard", "wandb"),
    "dtype": ("auto", "fp32", "bf16"),
    "device": ("auto", "cpu", "cuda"),
}
REWARDS, SIMILARITIES, ADVANTAGES = CHOICES["reward"], CHOICES["similarity"], CHOICES["advantage"]


def f(default, meaning, symbol="", paper=None):
    return field(default=default, metadata={"meaning": meaning, "symbol": symbol, "paper": paper})


@dataclass(frozen=True)
class Config:
    # models and data
    model: str | None = f(None, "anchor of both roles: a local folder, a hub id, or a short name such as Qwen3-8B-Base; none: the preset's",
                          "theta_0", "Qwen3-4B-Base, Qwen3-8B-Base")
    generator_model: str | None = f(None, "another anchor for the generator; none: the same as model", "phi_0", "the same")
    preset: str = f("toy", "the values a run starts from; unless given, follows from model")
    documents: str | None = f(None, "what the generator reads: JSON, JSONL, hf://..., or a folder of .txt and .md; none: the preset's",
                              "", "12,260 chunks")
    dev: str | None = f(None, "the questions that say what is useful; none: the preset's", "", "800 SuperGPQA science questions")
    test: str | None = f(None, "held-out questions, only ever evaluated on; none: the preset's, or no test accuracy")
    max_chunk_tokens: int = f(256, "longest piece that a folder's files are cut into")
    run: str | None = f(None, "folder to write; none: runs/PRESET-REWARD-seedSEED")
    resume: str | None = f(None, "go on with the run in this folder")

    # one iteration
    iterations: int = f(45, "how often the two models are updated", "T", 100)
    seed: int = f(0, "every random choice follows from it", "", "42, 123, 456")
    docs_per_step: int = f(12, "documents read in an iteration", "D", 128)
    questions_per_doc: int = f(8, "drafts written from each document", "n", 8)
    answers_per_question: int = f(8, "answers sampled for each question, generated or dev", "m", 8)
    min_choices: int = f(4, "fewest options of a valid question (the prompt in generator.py says 4 to 8)", "", 4)
    max_choices: int = f(8, "most options of a valid question (the prompt in generator.py says 4 to 8)", "", 8)

    # what the generator is paid for
    reward: str = f("influence", "what a valid question earns (rewards.py); fixed: nothing, the generator never moves", "s_hat", "influence")
    similarity: str = f("preconditioned_cosine", "how a question is compared with g_dev: by its raw gradient, or preconditioned: "
                        "by the direction AdamW would take", "cos(g_dev, Gamma)", "preconditioned_cosine")
    advantage: str = f("dugrpo", "how scores become advantages", "A_gen", "dugrpo")
    invalid_score: float | None = f(None, "score of a draft that is no valid question; none: the reward's own, 0 for influence", "", 0)

    # what the authors studied beside it, each explained in extensions.py; all off by default
    train_on: str = f("generated", "what the solver learns from; dev: as many dev questions as there would be drafts, no generator (a baseline); "
                      "file: as many of --questions")
    questions: str | None = f(None, "for train_on file: questions written beforehand, a question file or the questions.jsonl of a run")
    question_type: str = f("multiple_choice", "what the generator is asked to write", "", "multiple_choice")
    seed_questions: int = f(0, "dev questions shown to the generator in place of a document; 0: documents")
    rlvr: str | None = f(None, "verifiable problems that join the solver's batch (hybrid RLVR), a question file")
    rlvr_per_step: int = f(0, "how many of them in an iteration")
    unboxed_penalty: float = f(0.0, "taken from an answer that ends by itself without a box, in g_dev, g_q and the solver's update; 0: off", "",
                               "off (0.5 with RLVR)")
    dev_ema: float = f(0.0, "share of the old g_dev kept from iteration to iteration; 0: off", "", "off (0.9 when on)")
    dev_refresh: int = f(0, "iterations between replacements of the hardest and easiest tenth of the dev questions; 0: off", "R")
    dev_pool: str | None = f(None, "for dev_refresh: where the new dev questions come from, a question file")
    gate_std: float = f(0.0, "least standard deviation of a question's rewards for it to earn its influence; 0: off")
    solver_keep: str = f("all", "questions the solver learns from: all, those with the top scores, or random ones")
    keep_per_doc: int = f(0, "for solver_keep: how many of each document; 0: see keep_share")
    keep_share: float = f(0.5, "for solver_keep without keep_per_doc: which share of all")

    # the updates; one AdamW per role, constant learning rate
    solver_lr: float = f(3e-5, "learning rate of the solver", "eta_theta", 2e-6)
    generator_lr: float = f(1.5e-4, "learning rate of the generator", "eta_phi", "6e-6 (4B), 4e-6 (8B)")
    beta1: float = f(0.9, "AdamW's first-moment decay", "beta1", 0.9)
    beta2: float = f(0.999, "AdamW's second-moment decay, also in Gamma", "beta2", 0.999)
    adam_eps: float = f(1e-8, "AdamW's epsilon, also in Gamma", "eps", 1e-8)
    weight_decay: float = f(0.01, "AdamW's decoupled weight decay", "", 0.01)
    grad_clip: float = f(1.0, "largest gradient norm of an update; g_dev and g_q are never clipped", "", 1.0)
    minibatch_rows: int = f(96, "nominal rows of an optimizer step; a short last one is divided by it too", "B", 256)
    clip: float = f(0.2, "the ratio rho is clipped to 1 - c .. 1 + c", "c", 0.2)
    dual_clip: float = f(3.0, "where A < 0 the loss is at most this times -A", "", 3.0)
    tis_cap: float = f(2.0, "cap of the truncated importance weight", "w", 2.0)

    # sampling in training, both roles
    temperature: float = f(0.7, "sampling temperature; log-probs in the loss are taken at it too", "", 0.7)
    top_p: float = f(1.0, "nucleus kept; the loss assumes 1", "", 1)
    top_k: int = f(0, "most likely tokens kept; 0: all", "", 0)
    max_prompt_tokens: int = f(512, "longer prompts are skipped and counted", "", 4096)
    max_response_tokens: int = f(128, "responses are cut here", "", 8192)

    # evaluation
    dev_every: int = f(1, "iterations between answers to the dev questions, where the reward does not need them every time")
    eval_every: int = f(5, "iterations between evaluations")
    eval_samples: int = f(1, "answers per test question", "N", "1 to 32, by benchmark")
    eval_temperature: float = f(0.7, "sampling temperature of evaluations", "", 0.7)
    eval_top_p: float = f(0.8, "nucleus kept in evaluations", "", 0.8)
    eval_top_k: int = f(20, "most likely tokens kept in evaluations; 0: all", "", 20)

    # saving, showing, and what only costs or saves time and memory
    checkpoint_every: int = f(1, "iterations between checkpoints; the newest is kept")
    save_every: int = f(0, "iterations between models kept in RUN/at-ITERATION, the anchor (0) among them, for quality.py; 0: none")
    show_every: int = f(5, "iterations between example questions; 0: never")
    track: str = f("none", "write the metrics to tensorboard or wandb (offline) too, in RUN/tensorboard or RUN/wandb (trackers.py)")
    sampler: str = f("plain", "what samples; plain: our own loop; vllm: vLLM, if it is installed (vllm_sampler.py)")
    vllm_memory: float = f(0.4, "share of a GPU's memory that each role's vLLM engine takes")
    rows_at_once: int = f(256, "rows sampled side by side")
    tokens_at_once: int = f(1024, "tokens of a forward and backward pass")
    logp_chunk: int = f(1024, "positions whose full log-softmax is in memory at once")
    grad_checkpoint: bool = f(False, "recompute activations in the backward pass")
    shard: str = f("auto", "with several ranks: true: weights, gradients and AdamW in shards (FSDP2); false: whole copies; auto: shards on CUDA, and "
                   "from a billion weights on", "", "FSDP")
    scoring: str = f("auto", "with shards: alone: each rank scores questions of its own, with weights, v and g_dev gathered; together: all ranks "
                     "one question, everything in shards; auto: alone, if that takes at most half of a GPU")
    offload_idle: bool = f(True, "on CUDA, the role that is not at work waits in host memory with its AdamW")
    threads: int = f(0, "CPU threads; 0: torch's default")
    dtype: str = f("auto", "of the forward pass; auto: fp32 on a CPU, bf16 on CUDA, master weights fp32 either way", "", "bf16")
    device: str = f("auto", "auto: cuda if there is one; torchrun gives each rank its own")
    plan: bool = f(False, "print what the run would need and how long it would take, from the model's config alone, and end (plan.py)")
    gpus: int = f(8, "of that plan", "", 8)
    gpu_gb: float = f(80.0, "memory of each, of that plan", "", 80)

    given: tuple = field(default=(), compare=False)     # names of the fields set on the command line; no setting itself

    # What follows from the fields above.
    @property
    def generator_anchor(self):
        return self.generator_model or self.model

    @property
    def drafts_per_step(self):
        return self.docs_per_step * self.questions_per_doc                      # D n

    @property
    def answers_per_step(self):
        return self.drafts_per_step * self.answers_per_question                 # D n m, if every draft is valid

    def save(self, path):
        """Writes every field as JSON, whole or not at all."""
        unfinished = Path(f"{path}.part")
        unfinished.write_text(json.dumps({name: getattr(self, name) for name in SETTINGS}, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, path)

    @staticmethod
    def load(path):
        """JSON written by save -> Config; InputError if it cannot be read or a field is unknown, missing or out of range."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})")
        except ValueError as error:                     # broken JSON, or not UTF-8
            raise InputError(f"{path}: expected the JSON that a run wrote, but {error}")
        if not isinstance(values, dict):
            raise InputError(f"{path}: expected a JSON object with one entry per field, got {type(values).__name__}")
        try:
            for name in values:
                known(name)
            missing = [name for name in SETTINGS if name not in values]
            if missing:                                 # a default here could silently change a run that is resumed
                raise InputError(f"no value for {', '.join(missing)}")
            return check(Config(**{name: as_field(name, value) for name, value in values.items()}))
        except InputError as error:
            raise InputError(f"{path}: {error}")

    def __str__(self):
        return describe(self)


FILES = ("documents", "dev", "test", "questions", "rlvr", "dev_pool")
SETTINGS = {x.name: x for x in fields(Config) if x.metadata}

# The presets: what differs from the defaults above, whose numbers are the toy world's.
def world(folder):
    return {name: str(ROOT / folder / file) for name, file in [("model", "anchor"), ("documents", "documents.json"), ("dev", "dev.json"), ("test", "test.json")]}


TOY, TOY_HARD = world("toy"), world("toy/hard")         # the second is the harder world of toy.py
TOY_FREE = TOY | {"model": str(ROOT / "toy/free/anchor")}       # and its anchor that knows what extensions.py needs
SMALL = dict(                       # a model of 100M to 1B parameters on one machine, with data of your own; not tuned
    max_chunk_tokens=512, iterations=20, docs_per_step=4, questions_per_doc=4, answers_per_question=4, minibatch_rows=16,
    solver_lr=1e-5, generator_lr=1e-5, max_prompt_tokens=1024, max_response_tokens=384,
    rows_at_once=32, tokens_at_once=4096, show_every=1)
PAPER_4B = dict(
    model="Qwen/Qwen3-4B-Base", documents=HUB + "documents.json", dev=HUB + "curriculum_pool/supergpqa_science_800.json",
    max_chunk_tokens=3072, iterations=100, seed=42, docs_per_step=128, minibatch_rows=256,
    solver_lr=2e-6, generator_lr=6e-6, max_prompt_tokens=4096, max_response_tokens=8192,
    eval_every=10, checkpoint_every=5, rows_at_once=32, tokens_at_once=32768, grad_checkpoint=True)      # this line is ours, and untried on a GPU
PAPER_8B = PAPER_4B | dict(model="Qwen/Qwen3-8B-Base", generator_lr=4e-6, rows_at_once=16)      # 16: what 80 GB hold beside it (plan.py)
PRESETS = {"toy": TOY, "toy-hard": TOY_HARD, "toy-free": TOY_FREE, "small": SMALL, "paper-4b": PAPER_4B, "paper-8b": PAPER_8B}

SHORT_NAMES = {                     # name: hub id, preset
    "Qwen3-4B-Base": ("Qwen/Qwen3-4B-Base", "paper-4b"),
    "Qwen3-8B-Base": ("Qwen/Qwen3-8B-Base", "paper-8b"),
    "Qwen3-14B-Base": ("Qwen/Qwen3-14B-Base", "paper-8b"),      # the recipe of 8B, for planning: its learning rates were not tried at these sizes
    "Qwen3-32B": ("Qwen/Qwen3-32B", "paper-8b"),                # no base model of this size was published
    "OLMo-3-7B-Instruct-SFT": ("allenai/Olmo-3-7B-Instruct-SFT", "paper-8b"),
}

# What a resumed run may change: how long it goes on, what it shows, and what only costs time and memory.
CHANGEABLE = ("iterations", "eval_every", "eval_samples", "checkpoint_every", "save_every", "show_every", "track", "rows_at_once",
              "tokens_at_once", "logp_chunk", "grad_checkpoint", "shard", "scoring", "offload_idle", "threads", "device")


def parse(argv=None):
    """Command line (sys.argv unless given) -> checked Config; InputError, one line, for anything that is not right."""
    return from_flags(read_flags(argv))


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(message)                       # one line; argparse would print the usage of every field first


def read_flags(argv=None):
    """Command line -> {field: text} of the fields it names; prints all fields and exits on --help."""
    parser = Parser(usage="%(prog)s [--field value ...]", allow_abbrev=False,
                    description="Every field, with its symbol, the default of the toy preset and the paper's value.",
                    formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32))
    for name, setting in SETTINGS.items():
        may_stand_alone = dict(nargs="?", const="true") if setting.type is bool else {}
        parser.add_argument(f"--{name}", metavar=kind_of(name).__name__, default=argparse.SUPPRESS,
                            help=help_text(name).replace("%", "%%"), **may_stand_alone)
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    words = [re.sub(r"^--[^=]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), word) for word in words]      # --docs-per-step too
    flags, rest = parser.parse_known_args(words)
    for word in rest[:1]:
        if not word.startswith("--"):
            raise InputError(f"unexpected {word!r}; fields are set with --field value")
        known(word[2:].split("=")[0])
    return vars(flags)


def help_text(name):
    setting, choices = SETTINGS[name], CHOICES.get(name)
    about = setting.metadata
    symbol = f" [{about['symbol']}]" if about["symbol"] else ""
    one_of = f"; one of {', '.join(choices)}" if choices else ""
    paper = "" if about["paper"] is None else f"; paper {about['paper']}"
    return f"{about['meaning']}{symbol}{one_of} (default {shown(setting.default)}{paper})"


def from_flags(flags):
    """{field: text or value} -> Config: flags over preset over defaults; names and paths resolved, checked, `given` filled in."""
    given = {name: as_field(name, value) for name, value in flags.items()}
    if "resume" in given:
        return resumed(given)
    for name in ("model", "generator_model"):
        if given.get(name):
            given[name] = find_model(name, given[name])
    for name in FILES:                                  # absolute, so that a run can be resumed from another folder
        if given.get(name) and not given[name].startswith("hf://"):
            given[name] = os.path.abspath(os.path.expanduser(given[name]))
    preset = given.get("preset") or preset_of(given.get("model"))
    if preset not in PRESETS:
        raise InputError(f"preset = {preset!r}: expected one of {', '.join(PRESETS)}")
    values = PRESETS[preset] | {"preset": preset} | given
    if values.get("train_on") in ("dev", "file"):
        values = {"reward": "fixed"} | values           # no drafts, so nothing to pay for
    cfg = Config(**values, given=tuple(given))
    if cfg.invalid_score is None:
        cfg = replace(cfg, invalid_score=INVALID_SCORES.get(cfg.reward, 0.0))
    what = {"dev": "dev-only", "file": "file"}.get(cfg.train_on, cfg.reward)
    return check(replace(cfg, run=cfg.run or f"runs/{cfg.preset}-{what}-seed{cfg.seed}"))


def find_model(name, text):
    """Short name, local folder or hub id -> hub id or absolute folder. A short name wins over a folder; ./NAME is the folder."""
    if text in SHORT_NAMES:
        return SHORT_NAMES[text][0]
    folder = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(folder):
        return folder
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", text) and not os.path.isdir(os.path.dirname(folder)):
        return text                                     # ORG/NAME; where ORG is a folder here, it is more likely a mistyped path
    near = nearest(text, SHORT_NAMES) or list(SHORT_NAMES)
    raise InputError(f"{name} = {text!r}: expected a local folder, a hub id ORG/NAME, or a short name such as {', '.join(near)}")


def preset_of(model):
    """Resolved model -> the preset a run starts from when none is given."""
    worlds = {None: "toy", TOY["model"]: "toy", TOY_HARD["model"]: "toy-hard", TOY_FREE["model"]: "toy-free"}
    if model in worlds:
        return worlds[model]
    return dict(SHORT_NAMES.values()).get(model, "small")


def resumed(given):
    """Flags that hold `resume` -> the Config of that run, with the few fields that may change changed."""
    folder = given["resume"]
    fixed = [name for name in given if name not in CHANGEABLE + ("resume",)]
    if fixed:
        raise InputError(f"{', '.join(fixed)} cannot be set beside --resume; only {', '.join(CHANGEABLE)} can")
    if not os.path.isfile(f"{folder}/config.json"):
        raise InputError(f"resume = {folder!r}: expected the folder of a run, but it has no config.json")
    cfg = Config.load(f"{folder}/config.json")
    return check(replace(cfg, **given, run=folder, given=tuple(given)))


def known(name):
    """Raises InputError with the nearest names unless name is a field."""
    if name not in SETTINGS:
        near = nearest(name, SETTINGS)
        hint = f"did you mean {' or '.join(near)}?" if near else "--help lists them all"
        raise InputError(f"there is no field {name!r}; {hint}")


def nearest(name, names):
    inside = [x for x in names if len(name) > 1 and name.lower() in x.lower()]      # "lr": solver_lr, generator_lr
    return (inside or difflib.get_close_matches(name, names, n=3))[:4]


def kind_of(name):
    """bool, int, float or str: the type of a field, without its None."""
    return (typing.get_args(SETTINGS[name].type) or (SETTINGS[name].type,))[0]


def as_field(name, value):
    """Text from the command line, or a value from JSON -> the value in the field's type; InputError if it is not one."""
    kind, may_be_none = kind_of(name), bool(typing.get_args(SETTINGS[name].type))
    if may_be_none and value in (None, "none", "None"):
        return None
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and isinstance(value, str) and value:
        return value
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = kind(value)
            if math.isfinite(number) and (isinstance(value, str) or number == value):               # 2.5 is no int
                return number
        except (TypeError, ValueError, OverflowError):
            pass
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    raise InputError(f"{name} = {value!r}: expected {expected}")


def check(cfg):
    """Config -> the same Config; InputError naming the first field that is out of range, its value, and what was expected."""
    def need(name, holds, expected):
        if not holds:
            raise InputError(f"{name} = {getattr(cfg, name)!r}: expected {expected}")

    reads = ("--documents FILE_OR_FOLDER",) if cfg.train_on == "generated" and not cfg.seed_questions else ()
    lacking = [flag for flag in ("--model PATH", *reads, "--dev FILE") if getattr(cfg, flag.split()[0][2:]) is None]
    if lacking:
        raise InputError(f"missing {' and '.join(lacking)}: the preset {cfg.preset!r} brings none of its own")
    for name, choices in CHOICES.items():
        need(name, getattr(cfg, name) in choices, f"one of {', '.join(choices)}")
    for name in ("iterations", "docs_per_step", "questions_per_doc", "minibatch_rows", "max_prompt_tokens", "max_response_tokens",
                 "max_chunk_tokens", "dev_every", "eval_every", "eval_samples", "checkpoint_every", "rows_at_once", "tokens_at_once", "logp_chunk"):
        need(name, getattr(cfg, name) >= 1, "at least 1")
    for name in ("seed", "top_k", "eval_top_k", "save_every", "show_every", "threads", "solver_lr", "generator_lr", "weight_decay",
                 "seed_questions", "rlvr_per_step", "unboxed_penalty", "dev_refresh", "gate_std", "keep_per_doc"):
        need(name, getattr(cfg, name) >= 0, "0 or more")
    for name in ("temperature", "eval_temperature", "adam_eps", "grad_clip", "tis_cap"):
        need(name, getattr(cfg, name) > 0, "a number above 0")
    for name in ("beta1", "dev_ema"):
        need(name, 0 <= getattr(cfg, name) < 1, "a number from 0 to below 1")
    need("beta2", 0 < cfg.beta2 < 1, "a number between 0 and 1")            # influence.scaled_Gamma divides by it
    for name in ("top_p", "eval_top_p", "vllm_memory", "keep_share"):
        need(name, 0 < getattr(cfg, name) <= 1, "a number above 0 and up to 1")
    need("reward", cfg.train_on == "generated" or cfg.reward == "fixed", f"fixed beside train_on = {cfg.train_on!r}, where there is no generator to pay")
    need("solver_keep", cfg.solver_keep == "all" or cfg.train_on == "generated", "all beside train_on = 'dev' or 'file', where nothing is drafted")
    need("solver_keep", cfg.solver_keep != "top" or cfg.reward != "fixed", "all or random beside reward = 'fixed', which gives no scores")
    need("seed_questions", not cfg.seed_questions or cfg.train_on == "generated", f"0 beside train_on = {cfg.train_on!r}, where nothing is drafted")
    need("gate_std", not cfg.gate_std or cfg.reward == "influence", "0 unless reward = 'influence'")
    partners = {"questions": ("train_on", cfg.train_on == "file"), "rlvr": ("rlvr_per_step", cfg.rlvr_per_step > 0),
                "dev_pool": ("dev_refresh", cfg.dev_refresh > 0)}
    for name, (partner, wanted) in partners.items():
        need(name, bool(getattr(cfg, name)) == wanted, f"{'a file' if wanted else 'none'} beside {partner} = {getattr(cfg, partner)!r}")
    need("clip", 0 < cfg.clip < 1, "a number between 0 and 1")
    need("dual_clip", cfg.dual_clip > 1, "a number above 1")
    need("min_choices", 2 <= cfg.min_choices <= cfg.max_choices, f"at least 2 and at most max_choices = {cfg.max_choices}")
    need("max_choices", cfg.max_choices <= 26, "at most 26, one letter each")
    need("max_chunk_tokens", cfg.max_chunk_tokens < cfg.max_prompt_tokens, f"less than max_prompt_tokens = {cfg.max_prompt_tokens}")
    need("answers_per_question", cfg.answers_per_question >= 2, "at least 2: one answer alone has no advantage")
    need("questions_per_doc", cfg.questions_per_doc >= 2 or cfg.reward == "fixed", "at least 2: one draft alone has no advantage")
    for name in ("answers_per_question", "questions_per_doc"):
        need("minibatch_rows", cfg.minibatch_rows % getattr(cfg, name) == 0, f"a multiple of {name} = {getattr(cfg, name)}: whole groups")
    need("gpus", cfg.gpus >= 1, "at least 1")
    need("gpu_gb", cfg.gpu_gb > 0, "a number above 0")
    return cfg


def describe(cfg):
    """Config -> a table to print: what runs, then the fields that differ from the preset, with the preset's and the paper's values."""
    preset = {name: setting.default for name, setting in SETTINGS.items()} | PRESETS[cfg.preset] | {"preset": cfg.preset}
    preset["invalid_score"] = INVALID_SCORES[cfg.reward]
    lines = [f"preset {cfg.preset}, model {cfg.model}, run {cfg.run}",
             f"{cfg.iterations} iterations of {cfg.docs_per_step} documents x {cfg.questions_per_doc} questions x "
             f"{cfg.answers_per_question} answers, at most {cfg.answers_per_step} answers to train on in each"]
    for name, setting in SETTINGS.items():
        value, paper = getattr(cfg, name), setting.metadata["paper"]
        if value != preset[name] and name not in ("model", "run"):
            lines.append(f"  {name:21}{shown(value):14}  preset {shown(preset[name])}" + (f", paper {paper}" if paper is not None else ""))
    return "\n".join(lines)


def shown(value):
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
