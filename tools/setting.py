"""What a plan starts from: a config, shapes of two models, lengths of texts, rates of a machine.

    Machine   rates; the defaults are an H100's, here() measures those of this machine
    Assumed   what the config does not say; read() takes some of it from the run's own data
    Rollouts  prompts of one kind, their answers, and the lengths of both
    Setting   all of it: p in tools/plan.py

Lengths are log-normal with a mean and a spread, cut at the limit and scaled back to the mean, at
even quantiles so that nothing is left to chance; prompts and answers independent. No answer begins
like another, since long ones part early.
"""
import math
import os
import random
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer

import generator
import solver
from config import Config
from data import InputError
from engine import hub, model_folder, room, shard
from engine.cache import SHARE, rows_that_fit
from engine.flags import MOST_GPUS
from engine.chat import chat_ids
from engine.packing import Lengths
from engine.readers import load_documents, load_questions
from engine.scoring import too_large

# GPUs that share a fast link.
NODE = 8
# Of a GPU: fragmentation, CUDA's and nccl's own memory.
FREE_SHARE = 0.1


# ---------------------------------------------------------------- models

# Their config.json, as quoted in many public repositories, for where the hub cannot be reached:
# 4.02, 8.19, 14.77 and 32.76 billion parameters; the model cards say 4.0, 8.2, 14.8 and 32.8.
#             layers   H      I   heads  tied
PUBLISHED = {
    "Qwen3-4B":  (36, 2560,  9728, 32, True),
    "Qwen3-8B":  (36, 4096, 12288, 32, False),
    "Qwen3-14B": (40, 5120, 17408, 40, False),
    "Qwen3-32B": (64, 5120, 25600, 64, False),
}


def published(name):
    layers, H, I, heads, tied = PUBLISHED[name]
    return AutoConfig.for_model(
        "qwen3", vocab_size=151936, head_dim=128, num_key_value_heads=8, hidden_size=H,
        intermediate_size=I, num_hidden_layers=layers, num_attention_heads=heads,
        tie_word_embeddings=tied)


def model_config(path):
    """Folder or hub id -> transformers' config; the published one where the hub does not answer."""
    short = path.removeprefix("Qwen/").removesuffix("-Base")
    if not os.path.isdir(path):
        hub.look()
    else:
        model_folder.require(path, whole=False)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except room.UNREADABLE as error:
        if short in PUBLISHED and path.startswith("Qwen/"):
            return published(short)
        why = " ".join(str(error).split())[:120]
        raise InputError(f"model {path}: no config.json could be read ({why})")


# ---------------------------------------------------------------- rates, numbers, lengths

@dataclass(frozen=True)
class Machine:
    """H100 SXM; where the shares come from is in docs/planning.md: put in what you measure."""
    gpus: int = 8
    gpu_gb: float = 80
    tflops: float = 989
    mfu: float = 0.38
    gemm_share: float = 0.58
    hbm_gbs: float = 3350
    hbm_share: float = 0.68
    # our sampler
    layer_us: float = 400
    small_us: float = 140
    step_ms: float = 2
    # vLLM
    vllm_step_ms: float = 3
    vllm_row_us: float = 10
    vllm_wake_s: float = 3
    # between devices
    link_gbs: float = 300
    network_gbs: float = 40
    host_gbs: float = 25
    disk_gbs: float = 2

    @property
    def flops(self):
        """A second, in training and prefill."""
        return 1e12 * self.tflops * self.mfu

    @property
    def link(self):
        return 1e9 * (self.link_gbs if self.gpus <= NODE else self.network_gbs)


# (memory in GB, GB/s of it); the same TFLOPs.
GPUS = {"H100": (80, 3350), "H200": (141, 4800)}


def machine_of(gpus, gpu_gb):
    """-> Machine; with as much memory as an H200 has, its bandwidth too."""
    gbs = max(gbs for gb, gbs in GPUS.values() if gb <= max(gpu_gb, 80))
    return Machine(gpus=gpus, gpu_gb=gpu_gb, hbm_gbs=gbs)


@dataclass(frozen=True)
class Assumed:
    """What the config does not say. Token numbers are means."""
    response_tokens: float | None = None
    document_prompt: float | None = None
    question_prompt: float = 200
    response_spread: float = 0.6
    prompt_spread: float = 0.3
    alike: float = 0.5
    dev_questions: int = 800
    test_questions: int = 0
    valid_questions: int = 0
    valid_share: float = 0.8
    mixed_share: float = 0.6


# of both, for --help
ABOUT = {
    "gpus": "how many GPUs",
    "gpu_gb": "memory of each, GB",
    "tflops": "peak of one, bf16, dense",
    "mfu": "share of it reached in training and prefill",
    "gemm_share": "share of it reached in the products of a decoding step",
    "hbm_gbs": "GB/s of device memory",
    "hbm_share": "share of it reached in decoding",
    "layer_us": "our sampler: least microseconds of a layer in a step, started from Python",
    "small_us": "our sampler: microseconds of a layer's small kernels, on the device",
    "step_ms": "our sampler: ms between two steps, tokens to the host and numbers back",
    "vllm_step_ms": "vLLM: ms between two steps",
    "vllm_row_us": "vLLM: microseconds of a row and step, for its seed",
    "vllm_wake_s": "vLLM: seconds of a stage to wake up and to fall asleep",
    "link_gbs": "GB/s and rank inside a node",
    "network_gbs": "GB/s and rank between nodes",
    "host_gbs": "GB/s and rank between device and host memory",
    "disk_gbs": "GB/s of all ranks together",
    "response_tokens": "mean tokens of a response; none: a quarter of max_response_tokens",
    "document_prompt": "mean tokens of a document's prompt; none: half of max_chunk_tokens and 200",
    "question_prompt": "mean tokens of a question's prompt",
    "response_spread": "standard deviation of response lengths / mean",
    "prompt_spread": "standard deviation of prompt lengths / mean",
    "alike": "share of the variance of lengths that answers to a prompt share",
    "dev_questions": "how many",
    "test_questions": "how many",
    "valid_questions": "how many; the authors' file has 2,000",
    "valid_share": "share of the drafts that are valid",
    "mixed_share": "share of questions and documents with a gradient",
}


@dataclass(frozen=True)
class Rollouts:
    """Prompts of one kind, answers to each, prompts with a gradient; (mean, standard deviation) of
    the lengths of prompts and of responses. groups: their Lengths, where they are known."""
    prompts: int
    answers: int
    kept: int
    prompt: tuple
    response: tuple
    alike: float = 0.0
    groups: tuple = ()

    def scaled(self, share):
        """Responses of that share of their length."""
        mean, deviation = self.response
        return replace(self, response=(share * mean, share * deviation))


def rollouts_of(cfg, assumed):
    """-> {"dev", "draft", "answer", "test", "valid": Rollouts}"""
    response = assumed.response_tokens or cfg.max_response_tokens / 4
    document = assumed.document_prompt or cfg.max_chunk_tokens / 2 + 200
    drafted, paid = cfg.train_on == "generated", cfg.reward != "fixed"
    valid = assumed.valid_share if drafted else 1
    asked = 0 if cfg.train_on == "dev" else round(cfg.drafts_per_step * valid)
    questions = cfg.rlvr_per_step + asked

    def some(prompts, answers, prompt, trained=True):
        kept = math.ceil(prompts * assumed.mixed_share) if trained else 0
        return Rollouts(prompts, answers, kept, (prompt, assumed.prompt_spread * prompt),
                        (response, assumed.response_spread * response), assumed.alike)

    m, n, question = cfg.answers_per_question, cfg.questions_per_doc, assumed.question_prompt
    return {"dev": some(assumed.dev_questions, m, question),
            "draft": some(cfg.docs_per_step * drafted, n, document, paid),
            "answer": some(questions, m, question),
            "test": some(assumed.test_questions, cfg.eval_samples, question, False),
            "valid": some(assumed.valid_questions, cfg.eval_samples, question, False)}


# ---------------------------------------------------------------- all of it

@lru_cache
def arranged(s, end_to_end):
    """Shape -> the same object for the same answer, so that what is remembered of it is found."""
    return s if s.end_to_end == end_to_end else replace(s, end_to_end=end_to_end)


@dataclass
class Setting:
    """Everything a plan depends on. shapes: {role: Shape}; rollouts: {kind: Rollouts}.

    copies: are keys and values copied for each query head, as they were before engine/attention.py?
    """
    cfg: Config
    shapes: dict
    rollouts: dict
    machine: Machine
    cuda: bool = True
    padded: bool = False
    copies: bool = False

    def __post_init__(self):
        asked = self.cfg.end_to_end
        rows = asked == "true" or (asked == "auto" and self.cuda and self.b == 2)
        self.shapes = {role: arranged(s, rows) for role, s in self.shapes.items()}

    @property
    def ranks(self):
        return self.machine.gpus

    @property
    def k(self):
        """Ranks that hold a role in slices."""
        cut = shard.wanted(self.cfg, self.shapes["solver"].P, self.cuda)
        return self.ranks if cut else 1

    @property
    def b(self):
        """Bytes of a number in the compute dtype."""
        narrow = self.cfg.dtype == "bf16" or (self.cfg.dtype == "auto" and self.cuda)
        return 2 if narrow else 4

    @property
    def device(self):
        """Its type: blocks and pieces have a size for each."""
        return "cuda" if self.cuda else "cpu"

    @property
    def sampler(self):
        """How rows are sampled: padded, end to end by ours, or by vllm."""
        if not self.cuda or self.padded or self.b == 4:
            return "padded"
        return "vllm" if self.cfg.sampler == "vllm" else "ours"

    def rows(self, role):
        """Padded rows sampled side by side: where the config leaves it open, as many as surely fit.
        """
        s = self.shapes[role]
        size = 2 * s.layers * s.K * self.b
        if self.cfg.rows_at_once:
            return self.cfg.rows_at_once
        if not self.cuda:
            return rows_that_fit(self.cfg, size)
        free = self.usable - 12 * s.P / self.k - self.b * s.P
        return rows_that_fit(self.cfg, size, SHARE * free)

    @property
    def usable(self):
        """Bytes of a rank's memory that are planned with."""
        return 1e9 * self.machine.gpu_gb * (1 - FREE_SHARE)

    @property
    def together(self):
        """Do all ranks score one question at a time?"""
        memory = self.machine.gpu_gb * 1e9 if self.cuda else math.inf
        return self.k > 1 and too_large(self.cfg, self.shapes["solver"].P, self.b, memory)

    def groups(self, kind, kept=False):
        """Lengths of the prompts of a kind and of their answers; kept: of those with a gradient."""
        r = self.rollouts[kind]
        if kept:
            r = replace(self.rollouts.get(f"{kind} kept", r), prompts=r.kept)
        return r.groups or groups_of(r, self.cfg.max_prompt_tokens, self.cfg.max_response_tokens)

    def changed(self, **fields):
        return replace(self, cfg=replace(self.cfg, **fields))


def refuse(machine, assumed):
    """InputError for the first number that no plan can be made with."""
    if not 1 <= machine.gpus <= MOST_GPUS:
        raise InputError(f"gpus = {machine.gpus}: expected 1 to {MOST_GPUS}")
    for name, value in (asdict(machine) | asdict(assumed)).items():
        # what may be nothing: times between steps, spreads, numbers of questions
        zero = name.endswith(("_us", "_ms", "_s", "_spread", "_questions", "alike"))
        share = name in ("mfu", "alike", "valid_share", "mixed_share", "gemm_share", "hbm_share")
        if value is None or (0 if zero else 1e-9) <= value <= (1 if share else 1e12):
            continue
        least = "0 or more" if zero else "above 0"
        raise InputError(f"{name} = {value}: expected a number {least}{' up to 1' * share}")


def setting_of(cfg, machine, assumed):
    """Reads the config.json of both models, no weights."""
    refuse(machine, assumed)
    def shape(path):
        return room.shape_of(model_config(path), path.rstrip("/").split("/")[-1])

    first = shape(cfg.model)
    same = cfg.generator_anchor == cfg.model
    shapes = {"solver": first, "generator": first if same else shape(cfg.generator_anchor)}
    return Setting(cfg, shapes, rollouts_of(cfg, assumed), machine, cfg.device != "cpu")


# ---------------------------------------------------------------- lengths

def quantiles(count, rng):
    """-> (count,) even quantiles of a standard normal, in random order."""
    z = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    rng.shuffle(z)
    return np.array(z)


def whole_lengths(z, mean, deviation, limit):
    """Standard normal numbers -> as many whole lengths from 1 to limit, log-normal, of that mean
    and (but for the cut) deviation."""
    x = np.exp(math.sqrt(math.log(1 + (deviation / mean) ** 2)) * z)
    for _ in range(20):
        # cutting lowers the mean: scale it back
        x = np.clip(x * (mean / x.mean()), 1, limit)
    # rounded so that the sum stays
    ends = np.round(np.cumsum(x)).astype(int)
    return np.clip(np.diff(ends, prepend=0), 1, None).tolist()


@lru_cache(maxsize=256)
def groups_of(r, most_prompt, most_response):
    """Rollouts, limits of prompts and responses -> their Lengths."""
    if not r.prompts:
        return ()
    rng, m = random.Random(0), r.answers
    prompts = whole_lengths(quantiles(r.prompts, rng), *r.prompt, most_prompt)
    shared = np.repeat(quantiles(r.prompts, rng), m)
    z = r.alike ** 0.5 * shared + (1 - r.alike) ** 0.5 * quantiles(r.prompts * m, rng)
    responses = whole_lengths(z, *r.response, most_response)
    groups = [tuple(responses[i * m:(i + 1) * m]) for i in range(r.prompts)]
    return tuple(Lengths(p, group, (0,) * m) for p, group in zip(prompts, groups))


# ---------------------------------------------------------------- this machine, a run's own data

def here(threads=0):
    """-> Machine: one process on this one. Its rates are measured, which takes about a second.

    The shares are those that passes and decoding steps of a model of 135 million parameters reached
    on one core.
    """
    if threads:
        torch.set_num_threads(threads)
    # where the system does not say what is free, a laptop's
    memory = (room.free_ram() or 16e9) - room.BASE
    return Machine(gpus=1, gpu_gb=memory / 1e9, tflops=matmul_rate() / 1e12, mfu=0.45,
                   hbm_gbs=copy_rate() / 1e9, hbm_share=0.55, layer_us=300, disk_gbs=0.5)


def rate(work, function, seconds=0.5):
    """Work of one call -> work per second, the best call of those that fit into so many seconds."""
    best, start = math.inf, time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - before)
    return work / best


def matmul_rate(n=768):
    """FLOPs per second of a product of two fp32 matrices."""
    a, b = torch.ones(n, n), torch.ones(n, n)
    return rate(2 * n ** 3, lambda: a @ b)


def copy_rate(n=2 ** 24):
    """Bytes per second, read and written, of a copy that no cache holds."""
    a, b = torch.ones(n), torch.ones(n)
    return rate(8 * n, lambda: b.copy_(a), 0.3)


def read(cfg, assumed):
    """-> (Assumed with the numbers of the run's own data, a line that says what they are).

    What is not here, such as the tokenizer of a model on a hub or an hf:// file, stays assumed.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            cfg.model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return assumed, "read: nothing, the model's tokenizer is not on this machine"

    def count(text):
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    def lengths(texts):
        found = np.array([len(chat_ids(tokenizer, text)) for text in texts])
        return found[found <= cfg.max_prompt_tokens]

    texts = {}
    for name in ("dev", "test", "valid"):
        if is_here(getattr(cfg, name)):
            questions = load_questions(getattr(cfg, name))
            texts[name] = [solver.prompt_text(x, cfg.prompts) for x in questions]
    if cfg.reads_documents and is_here(cfg.documents):
        documents = load_documents(cfg.documents, cfg.max_chunk_tokens, count)
        texts["documents"] = [
            generator.prompt_text(x, cfg.question_type, cfg.prompts) for x in documents]

    known, said = {}, []
    for name, some in texts.items():
        found = lengths(some)
        if len(found):
            what = name if name == "documents" else f"{name} questions"
            said.append(f"{len(found)} {what}, prompts of {found.mean():.0f} tokens")
        if name != "documents":
            known[f"{name}_questions"] = len(found)
        mean = {"dev": "question_prompt", "documents": "document_prompt"}.get(name)
        if mean and len(found):
            known[mean] = float(found.mean())
    return replace(assumed, **known), f"read: {'; '.join(said) or 'nothing, no file is here'}"


def is_here(path):
    return bool(path) and os.path.exists(path)
