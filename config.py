"""All the numbers of a run: a field per setting, with its symbol and the paper's value beside ours.

    python train.py                                     preset toy: the defaults below
    python train.py --model PATH --documents FILE_OR_FOLDER --dev FILE --docs_per_step 4
                                                        preset small, one field changed
    torchrun --nproc_per_node 8 train.py --model Qwen3-8B-Base
                                                        preset paper-8b
    python train.py --resume runs/NAME                  goes on with that run's own config

A row of the table reads  name: type = f(default, meaning, symbol, the paper's value).  Without the
last, the paper's value is not known to us or the setting exists only here. The presets
(engine/presets.py) are dicts laid over the defaults; a flag wins over its preset (engine/flags.py).
A run's config never changes under its feet (the dataclass is frozen), and goes into the run's
folder with every field filled in.

Missing on purpose: a KL weight, an entropy bonus, epochs, warm-up, a learning-rate schedule. The
method has none of them. Source of the paper's values: the authors' blog and released code. The
defaults and the preset small are our choice.
"""
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from dugrpo import ADVANTAGES
from rewards import REWARDS, terms_of

# The embedded world lies beside this file, wherever the command is typed.
ROOT = Path(__file__).resolve().parent

SIMILARITIES = ("preconditioned_cosine", "cosine", "dot", "preconditioned_dot")
CHOICES = {
    "prompts": ("plain", "hard"),
    "preset": ("toy", "toy-hard", "toy-free", "small", "reading", "paper-4b", "paper-8b"),
    "reward": tuple(REWARDS),
    "similarity": SIMILARITIES,
    "advantage": tuple(ADVANTAGES),
    "train_on": ("generated", "dev", "file"),
    "question_type": ("multiple_choice", "free_form"),
    "solver_keep": ("all", "top", "random"),
    "sampler": ("auto", "plain", "vllm"),
    "shard": ("auto", "true", "false"),
    "scoring": ("auto", "alone", "together"),
    "end_to_end": ("auto", "true", "false"),
    "track": ("none", "tensorboard", "wandb"),
    "dtype": ("auto", "fp32", "bf16"),
    "device": ("auto", "cpu", "cuda"),
}


def f(default, meaning, symbol="", paper=None):
    about = {"meaning": meaning, "symbol": symbol, "paper": paper}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Config:
    # ---------------------------------------------------------------- run
    model: str | None = f(
        None, "anchor of both roles: a local folder, a hub id, or a short name such as "
        "Qwen3-8B-Base; none: the preset's", "theta_0", "Qwen3-4B-Base, Qwen3-8B-Base")
    generator_model: str | None = f(
        None, "another anchor for the generator; none: the same as model", "phi_0", "the same")
    preset: str = f(
        "toy", "values a run starts from; none given: toy without --model, that of its run for a "
        "RUN/solver, a paper's for a short name, else small")
    # --output_dir on the command line, or --run
    run: str | None = f(
        None, "folder to write; none: runs/PRESET-REWARD-seedSEED, with -2, -3, ... where it is "
        "taken")
    resume: str | None = f(
        None, "go on with the run in this folder; beside it only a few fields, --iterations (in "
        "all) among them")
    accept_changed_data: bool = f(
        False, "beside resume: go on though documents, questions, prompts or the anchor are not "
        "those the run began with; the log says so")
    iterations: int = f(45, "how often the two models are updated", "T", 100)
    seed: int = f(0, "every random choice follows from it", "", "42, 123, 456")
    dev_every: int = f(
        1, "iterations between answers to the dev questions; where the reward or --train_on dev "
        "needs them, every one")
    eval_every: int = f(
        5, "iterations between evaluations on the test questions; also after the last")
    valid_every: int = f(
        5, "iterations between answers to the validation questions; also after the last", "", 5)
    checkpoint_every: int = f(1, "iterations between checkpoints; the newest is kept")
    save_every: int = f(
        0, "iterations between models kept in RUN/at-ITERATION, the anchor (0) among them, for "
        "tools.quality, and to have the best by validation; 0: none", "", 5)
    show_every: int = f(5, "iterations between example questions; 0: never")
    truth: str | None = f(
        None, "module that judges drafts where the truth is known, such as toy.truth; for the log "
        "only")
    track: str = f(
        "none", "write the metrics to tensorboard or wandb (offline) too, in RUN/tensorboard or "
        "RUN/wandb (engine/trackers.py)")

    # ---------------------------------------------------------------- data
    documents: str | None = f(
        None, "what the generator reads: a file, hf://..., or a folder of notes "
        "(docs/own-data.md); none: the preset's", "", "12,260 chunks")
    dev: str | None = f(
        None, "the questions that say what is useful; none: the preset's", "",
        "800 SuperGPQA science questions")
    test: str | None = f(
        None, "held-out questions, only ever evaluated on; none: the preset's, or no test accuracy")
    valid: str | None = f(
        None, "validation questions: watched while training, with its sampling; nothing trains on "
        "them or chooses by them; none: the preset's, or no validation", "", "a mix of 2,000")
    max_chunk_tokens: int = f(
        256, "longest piece, in tokens, that text files are cut into; items of JSON, CSV and the "
        "like stay whole")
    show_data: bool = f(
        False, "print what the files hold, with three examples of each, and end; needs no model, "
        "so pieces are cut in words; without --model or --preset what is not named is toy's")

    # ---------------------------------------------------------------- one iteration
    docs_per_step: int = f(12, "documents read in an iteration", "D", 128)
    questions_per_doc: int = f(8, "drafts written from each document", "n", 8)
    answers_per_question: int = f(
        8, "answers sampled for each question, generated or dev", "m", 8)
    min_choices: int = f(
        4, "fewest choices of a valid question (the prompt in generator.py says 4 to 8)", "", 4)
    max_choices: int = f(
        8, "most choices of a valid question (the prompt in generator.py says 4 to 8)", "", 8)
    prompts: str = f(
        "plain", "what both roles are asked; plain: in a few lines (generator.py, solver.py); "
        "hard: at length, with a system message (prompts/hard)", "", "hard")
    reward: str = f(
        "influence", "what a valid question earns (rewards.py), or a weighted sum such as "
        "'influence + 0.5 spice:group_std', each term with its own advantages; fixed: nothing, the "
        "generator never moves", "s_hat", "influence")
    similarity: str = f(
        "preconditioned_cosine", "how a question is compared with g_dev: by its raw gradient, or "
        "preconditioned: by the direction AdamW would take", "cos(g_dev, Gamma)",
        "preconditioned_cosine")
    advantage: str = f("dugrpo", "how scores become advantages (dugrpo.py)", "A_gen", "dugrpo")
    invalid_score: float | None = f(
        None, "score of a draft that is no valid question; none: the reward's own, 0 for influence "
        "(in a sum, each its own)", "", 0)

    # ---------------------------------------------------------------- updates
    # one AdamW per role, constant learning rate
    solver_lr: float = f(3e-5, "learning rate of the solver", "eta_theta", 2e-6)
    generator_lr: float = f(
        1.5e-4, "learning rate of the generator", "eta_phi", "6e-6 (4B), 4e-6 (8B)")
    beta1: float = f(0.9, "AdamW's first-moment decay", "beta1", 0.9)
    beta2: float = f(0.999, "AdamW's second-moment decay, also in Gamma", "beta2", 0.999)
    adam_eps: float = f(1e-8, "AdamW's epsilon, also in Gamma", "eps", 1e-8)
    weight_decay: float = f(0.01, "AdamW's decoupled weight decay", "", 0.01)
    grad_clip: float = f(
        1.0, "largest gradient norm of an update; g_dev and g_q are never clipped", "", 1.0)
    minibatch_rows: int = f(
        96, "nominal rows of an optimizer step, a multiple of both sizes of a group; a short last "
        "one is divided by it too", "B", 256)
    clip: float = f(0.2, "the ratio rho is clipped to 1 - c .. 1 + c", "c", 0.2)
    dual_clip: float = f(3.0, "where A < 0 the loss is at most this times -A", "", 3.0)
    tis_cap: float = f(2.0, "cap of the truncated importance weight", "w", 2.0)

    # ---------------------------------------------------------------- sampling
    # in training, both roles; then in evaluations
    temperature: float = f(
        0.7, "sampling temperature; log-probs in the loss are taken at it too", "", 0.7)
    top_p: float = f(1.0, "share of probability sampled from; the loss assumes 1", "", 1)
    top_k: int = f(0, "most likely tokens kept; 0: all", "", 0)
    max_prompt_tokens: int = f(512, "longer prompts are skipped and counted", "", 4096)
    max_response_tokens: int = f(128, "responses are cut here", "", 8192)
    eval_samples: int = f(
        1, "answers per test or validation question", "N", "1 to 32, by benchmark")
    eval_temperature: float = f(0.7, "sampling temperature of evaluations", "", 0.7)
    eval_top_p: float = f(0.8, "share of probability sampled from in evaluations", "", 0.8)
    eval_top_k: int = f(20, "most likely tokens kept in evaluations; 0: all", "", 20)

    # ---------------------------------------------------------------- machine
    # what only costs or saves time and memory; and the plan of it
    device: str = f("auto", "auto: cuda if there is one; torchrun gives each rank its own")
    dtype: str = f(
        "auto", "of the forward pass; auto: fp32 on a CPU, bf16 on CUDA, master weights fp32 "
        "either way", "", "bf16")
    threads: int = f(0, "CPU threads; 0: torch's default")
    sampler: str = f(
        "auto", "what samples; plain: our own loop; vllm: vLLM (engine/vllm_sampler.py); auto: "
        "vllm in a run on CUDA whose roles begin with one model, if it can be imported, else plain")
    vllm_memory: float = f(
        0.0, "share of a GPU's memory that vLLM's engine takes while it samples; 0: what is free")
    rows_at_once: int = f(
        0, "most rows sampled side by side; 0: at most 256, and no more than fit: on CUDA into "
        "what is free, on a CPU into a cache of 2 GB")
    tokens_at_once: int = f(1024, "tokens of a forward and backward pass")
    logp_chunk: int = f(1024, "positions whose full log-softmax is in memory at once")
    end_to_end: str = f(
        "auto", "answers that share nothing with others go through a pass one behind the other, "
        "without padding (engine/varlen.py); auto: on CUDA in bf16")
    grad_checkpoint: bool = f(False, "recompute activations in the backward pass")
    shard: str = f(
        "auto", "with several ranks: true: weights, gradients and AdamW in shards (FSDP2); false: "
        "whole copies; auto: shards on CUDA, and from a billion weights on", "", "FSDP")
    scoring: str = f(
        "auto", "with shards: alone: each rank scores questions of its own, with weights, v and "
        "g_dev gathered; together: all ranks one question, everything in shards; auto: alone, if "
        "that takes at most half of a GPU")
    offload_idle: bool = f(
        True, "on CUDA, the role that is not at work waits in host memory with its AdamW")
    plan: bool = f(
        False, "print what the run would need and how long it would take, from the model's config "
        "alone, and end (tools.plan); for --gpus of --gpu_gb, or this machine where torch sees no "
        "GPU and neither is given")
    gpus: int = f(8, "for --plan: how many GPUs", "", 8)
    gpu_gb: float = f(80.0, "for --plan: memory of each GPU, in GB", "", 80)

    # ---------------------------------------------------------------- extensions
    # what the authors studied beside the method, explained in extensions.py; all off by default
    train_on: str = f(
        "generated", "what the solver learns from; dev: its answers to the dev questions, the "
        "generator is never asked (a baseline); file: as many of --questions as there would be "
        "drafts")
    questions: str | None = f(
        None, "for train_on file: questions written beforehand, a question file or the "
        "questions.jsonl of a run")
    question_type: str = f(
        "multiple_choice", "what the generator is asked to write", "", "multiple_choice")
    open_book: bool = f(
        False, "a generated question is asked with its document above it; dev and test questions "
        "bring theirs, as 'passage' in their files", "", "off")
    seed_questions: int = f(
        0, "dev questions of a bundle in place of a document; the generator is shown all but one; "
        "0: documents", "", "off (4 when on)")
    rlvr: str | None = f(
        None, "verifiable problems that join the solver's batch (hybrid RLVR), a question file; "
        "needs --rlvr_per_step")
    rlvr_per_step: int = f(0, "with --rlvr: problems of its file in an iteration")
    rlvr_documents: str | None = f(
        None, "the other way: problems that the generator reads, with their answers, as documents "
        "beside the others, a question file", "", "off (1,039 problems when on)")
    rlvr_chunks: int = f(
        0, "with --rlvr_documents: how many such documents, going round the problems; 0: each "
        "once", "", "off (10,000 when on)")
    rlvr_per_chunk: int = f(1, "with --rlvr_documents: problems in each of them", "", "1")
    unboxed_penalty: float = f(
        0.0, "taken from an answer that ends with the tokenizer's EOS and has no box, in the "
        "solver's update alone; 0: off", "", "off (0.5 with RLVR)")
    dev_ema: float = f(
        0.0, "share of the old g_dev kept from iteration to iteration; 0: off", "",
        "off (0.9 when on)")
    dev_refresh: int = f(
        0, "iterations between replacements of the hardest and easiest tenth of the dev questions; "
        "0: off", "R", "off (10 when on, of 150 dev questions)")
    dev_pool: str | None = f(
        None, "for dev_refresh: where the new dev questions come from, a question file")
    gate_share: float = f(
        0.0, "share of the documents, those with the widest scores, whose questions keep their "
        "influence; the others' earn 0; 0: off", "gamma", "off (0.2 when on)")
    gate_tau: float | None = f(
        None, "instead of gate_share: the standard deviation that a document's scores must exceed",
        "tau", "off")
    gate_tau_max: float | None = f(
        None, "for gate_share: the highest tau that it may come to", "tau_max", "off")
    solver_keep: str = f(
        "all", "questions the solver learns from: all, those with the top scores, or random ones")
    keep_per_doc: int = f(0, "for solver_keep: how many of each document; 0: see keep_share")
    keep_share: float = f(0.5, "for solver_keep without keep_per_doc: which share of all")

    # names of the fields set on the command line; no setting itself
    given: tuple = field(default=(), compare=False)
    # of a run that has begun: what binds its checkpoints to it (engine/run_folder.py)
    run_id: str = field(default="", compare=False)
    inputs: dict | None = field(default=None, compare=False)

    # What follows from the fields above.
    @property
    def generator_anchor(self):
        return self.generator_model or self.model

    @property
    def drafts_per_step(self):
        return self.docs_per_step * self.questions_per_doc                  # D n

    @property
    def answers_per_step(self):
        # if every draft is valid
        return self.drafts_per_step * self.answers_per_question             # D n m

    @property
    def terms(self):
        return terms_of(self.reward, self.advantage, self.invalid_score)

    @property
    def reads_documents(self):
        return self.train_on == "generated" and not self.seed_questions

    @property
    def by_influence(self):
        return any(term.name == "influence" for term in self.terms)

    def save(self, path):
        """Writes every field as JSON, whole or not at all; engine/flags.py: load reads it."""
        values = {name: getattr(self, name) for name in SETTINGS}
        if self.run_id:
            values |= {"run_id": self.run_id, "inputs": self.inputs}
        unfinished = Path(f"{path}.part")
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)


SETTINGS = {x.name: x for x in fields(Config) if x.metadata}
FILES = (
    "documents", "dev", "test", "valid", "questions", "rlvr", "rlvr_documents", "dev_pool")

# The sections of the table, for --help, and the field each begins with.
SECTIONS = {
    "run": "model",
    "data": "documents",
    "one iteration": "docs_per_step",
    "updates": "solver_lr",
    "sampling": "temperature",
    "machine": "device",
    "extensions": "train_on",
}

# What a resumed run may change: how long it goes on, what it shows, and what only costs time and
# memory. Another sampler draws other numbers from the same distribution.
CHANGEABLE = (
    "iterations", "accept_changed_data", "eval_every", "valid_every", "eval_samples",
    "checkpoint_every", "save_every", "show_every", "track", "rows_at_once", "tokens_at_once",
    "logp_chunk", "end_to_end", "grad_checkpoint", "shard", "scoring", "offload_idle", "threads",
    "device", "sampler", "vllm_memory")
