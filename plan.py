"""What a run needs, before anyone pays for it: bytes, tokens, FLOPs, traffic and minutes of each stage, from the model's config alone.

    python train.py --model Qwen3-8B-Base --plan --gpus 8 --gpu_gb 80       the plan of a run
    python plan.py --model Qwen3-8B-Base --response_tokens 1500 --mfu 0.3   other assumptions (--help lists them); any field of train.py
    python plan.py --tables > docs/plan.md                                  Qwen3-4B, 8B, 14B, 32B on 1 to 64 GPUs
    python plan.py --check toy/anchor                                       plan and measurement side by side: two iterations on a CPU

The design planned for: k ranks hold weights, gradients and AdamW in slices (shard.py); one role at a time is on the device, the other one's
slices wait in host memory; a sampling stage gathers a plain copy in the compute dtype; to score, each rank gathers weights, v and g_dev, or
where they would take more than half of a GPU all ranks score one question at a time in slices (influence.py: together).

P parameters, P_l of one layer, P_rest outside the layers, W in the matrices of all layers; l layers, H hidden, I intermediate, A = heads x
head size, K = kv heads x head size, V vocabulary, N = V H the largest tensor; b bytes of the compute dtype (bf16 2, fp32 4); rows of length
L, X tokens with padding, X2 = sum of L^2 over rows.

    bytes held      weights 4 P / k      AdamW 8 P / k      gradients or g_dev 4 P / k      idle role, in host memory 12 P / k
                    copy to sample from  b P             (none in fp32 on one rank)
                    copy to train with   b (2 P_l + P_rest), on one rank b P in bf16 and none in fp32
                    copies to score with 3 b P, if k > 1; and b P for the gradient of a question that needs several passes;
                                         in slices only 4 P / k for that
    of a pass       activations, a layer b X (6 H + 4 A + 4 I) + b X2 (the mask as numbers);  bf16: + 4 H X, the norms' fp32 copies
                                         with q and k norms 2 b X (A + K), in bf16 6 X (A + K)
                    of all layers        l times that; recomputed: once, and b l H X
                    beside the layers    b H (2 X + targets), and 2 b I X while a layer runs backward
                    logits               12 V (bf16: 14) for each of at most logp_chunk targets; a third of it once the loss is known
                    largest tensor       N as a gradient, 2 or 3 times at the end if embedding and head are tied; scoring: and a piece, or
                                         pieces alone where blocks of questions are scored
    of sampling     KV cache             2 l K b for each cell, a cell being one row's place in one column of the cache, spare ones included
                    activations          K b for each cell of one layer, and 2 A b where kv heads are repeated; a prefill b X (2 H + 3 I)
                    logits               24 V per row, 36 V with top_k or top_p
    FLOPs           forward              2 W X + 4 l A X2 + 2 H V targets
                    and backward         6 W X + 14 l A X2 + 6 H V targets: attention's backward computes its scores again
                    recomputed           + 2 (W - l H I) X + 4 l A X2, and 2 H V targets where the head is chunked
                    sampling             prefill as forward; 2 W per row and step, 4 l A per cell and step, 2 H V per token drawn
    bytes moved     gather to sample b P    a pass (2 b + 4) P    gather to score 3 b P    each (k - 1) / k times; roles swap 24 P / k
                    in slices, a question's passes as all passes
    seconds         training, prefill    the larger of FLOPs / (peak x mfu) and bytes moved / link, since FSDP overlaps them
                    decoding             the larger of steps x l x layer_us and (b (W + N) a step + cache traffic) / (bandwidth x share)
                    cache traffic        the cache once, and twice more every 32 columns; 2 A / K more where kv heads repeat

Which rows share a pass, which prompts join when, how full the batch is: `sample`, `micro_batches` and `blocks` are played through on lengths alone,
and policy.answers_per_row says how often a prompt is read. Lengths are assumed: log-normal with a mean and a spread, cut at the limit and
scaled back to the mean, at even quantiles so that nothing is left to chance; prompts and answers independent. Ranks wait for the slowest.
What answers begin with alike goes through the model once (policy.pack); nothing, it is assumed, since long answers part early. --check plans with
the lengths that were measured, and beside it from their means alone.

Not in it: fragmentation and CUDA's own memory (a tenth of the device is left free for them), vLLM, loading, checks of answers, failures.
Nothing here has run on a GPU. The rates are assumptions, printed with every plan; bytes, tokens and FLOPs are compared with measurements.
"""
import argparse
import contextlib
import math
import os
import random
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from itertools import accumulate, pairwise
from statistics import NormalDist
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

import config
import ranks
import shard
from data import InputError, run_script
from influence import PIECE, too_large
from influence_block import sizes
from log import Clock, Log
from policy import Policy, answers_per_row, common_starts, spare, tree_order

FREE_SHARE = 0.1                # of the device: fragmentation, CUDA's and nccl's own memory
NODE = 8                        # GPUs that share a fast link

# Published architecture (config.json of the models on the hub, as quoted in many public repositories). Used when the hub cannot be reached.
# Parameters that follow: 4.02, 8.19, 14.77 and 32.76 billion; the model cards say 4.0, 8.2, 14.8 and 32.8.
PUBLISHED = {name: dict(model_type="qwen3", vocab_size=151936, head_dim=128, num_key_value_heads=8, hidden_size=H, intermediate_size=I,
                        num_hidden_layers=layers, num_attention_heads=heads, tie_word_embeddings=tied)
             for name, layers, H, I, heads, tied in [("Qwen3-4B", 36, 2560, 9728, 32, True), ("Qwen3-8B", 36, 4096, 12288, 32, False),
                                                     ("Qwen3-14B", 40, 5120, 17408, 40, False), ("Qwen3-32B", 64, 5120, 25600, 64, False)]}


# ---------------------------------------------------------------- what is planned for

@dataclass(frozen=True)
class Machine:
    """H100 SXM numbers; the shares are guesses of what this code reaches, to be replaced by what you measure."""
    gpus: int = 8
    gpu_gb: float = 80
    tflops: float = 989         # peak, bf16, dense
    mfu: float = 0.35           # share of it reached in training and prefill
    hbm_gbs: float = 3350       # GB/s of device memory
    hbm_share: float = 0.6      # share of it reached in decoding
    layer_us: float = 400       # least time of one layer in a decoding step: some 25 kernels launched from Python
    link_gbs: float = 300       # GB/s and rank inside a node
    network_gbs: float = 40     # GB/s and rank between nodes
    host_gbs: float = 25        # GB/s and rank between device and host memory
    disk_gbs: float = 2         # GB/s of all ranks together

    @property
    def flops(self):
        return 1e12 * self.tflops * self.mfu

    @property
    def link(self):
        return 1e9 * (self.link_gbs if self.gpus <= NODE else self.network_gbs)


@dataclass(frozen=True)
class Assumed:
    """What the config does not say. Token numbers are means."""
    response_tokens: float | None = None        # answers and drafts; none: a quarter of max_response_tokens
    document_prompt: float | None = None        # tokens; none: half of max_chunk_tokens and 200
    question_prompt: float = 200
    response_spread: float = 0.6                # standard deviation / mean
    prompt_spread: float = 0.3
    alike: float = 0.5                          # share of the variance of response lengths that the answers to one prompt have in common
    dev_questions: int = 800
    test_questions: int = 0
    valid_share: float = 0.8                    # of the drafts
    mixed_share: float = 0.6                    # of questions and documents: the rest has no gradient


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of one kind: how many prompts, answers to each, prompts with a gradient; (mean, standard deviation) of lengths in tokens.

    alike: share of the variance of response lengths that the answers to one prompt have in common.
    trees: of some prompts, in order: tokens of prompt and answers without what one answer has in common with another. Empty: nothing is.
    groups: every prompt and its answers, in the form of groups_of; where they are known, nothing is made up from the numbers above.
    """
    prompts: int
    answers: int
    kept: int
    prompt: tuple
    response: tuple
    alike: float = 0.0
    longest: tuple = (math.inf, math.inf)       # prompt, response; never beyond the config's limits
    trees: tuple = ()
    groups: tuple = ()


@dataclass(frozen=True)
class Shape:
    """What the formulas need of a model; letters as in the header."""
    name: str
    P: int              # parameters, tied ones once
    W: int              # weights in the matrices of the layers, as Policy.layer_weights
    P_l: int            # parameters of one layer
    layers: int
    H: int
    I: int
    A: int
    K: int
    V: int
    tied: bool
    qk_norm: bool
    heads: int

    @property
    def N(self):
        return self.V * self.H

    @property
    def P_rest(self):
        return self.P - self.layers * self.P_l


def model_config(path):
    """Folder, hub id or short name -> transformers' config; the published numbers where the hub does not answer. InputError if neither."""
    short = path.removeprefix("Qwen/").removesuffix("-Base")
    try:
        return AutoConfig.from_pretrained(path if "/" in path or os.path.isdir(path) else f"Qwen/{path}")
    except (OSError, ValueError) as error:
        if short in PUBLISHED and not os.path.isdir(path):
            return published(short)
        raise InputError(f"model {path}: no config.json could be read ({' '.join(str(error).split())[:120]})")


def published(name):
    return AutoConfig.for_model(**PUBLISHED[name])


def shape_of(model_config, name):
    """transformers' config -> Shape. The model is laid out without memory, so that its parameters are counted and not estimated."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    c, sizes = model_config.get_text_config(), {n: p for n, p in model.named_parameters()}
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    first = ".layers.0."
    return Shape(name, sum(p.numel() for p in sizes.values()),
                 sum(p.numel() for n, p in sizes.items() if p.dim() == 2 and "embed" not in n and "lm_head" not in n),
                 sum(p.numel() for n, p in sizes.items() if first in n), c.num_hidden_layers, c.hidden_size, c.intermediate_size,
                 c.num_attention_heads * head_dim, c.num_key_value_heads * head_dim, c.vocab_size, bool(c.tie_word_embeddings),
                 any("q_norm" in n for n in sizes), c.num_attention_heads)


def rollouts_of(cfg, assumed):
    """Config and assumptions -> {"dev", "draft", "answer", "test": Rollouts}."""
    response = assumed.response_tokens or cfg.max_response_tokens / 4
    document = assumed.document_prompt or cfg.max_chunk_tokens / 2 + 200
    drafted, paid = cfg.train_on == "generated", cfg.reward != "fixed"
    questions = cfg.rlvr_per_step + (round(cfg.drafts_per_step * assumed.valid_share) if drafted else cfg.drafts_per_step)
    kept = lambda n: math.ceil(n * assumed.mixed_share)
    lengths = lambda prompt: ((prompt, assumed.prompt_spread * prompt), (response, assumed.response_spread * response), assumed.alike)
    question, m = lengths(assumed.question_prompt), cfg.answers_per_question
    return {"dev": Rollouts(assumed.dev_questions, m, kept(assumed.dev_questions), *question),
            "draft": Rollouts(cfg.docs_per_step * drafted, cfg.questions_per_doc, kept(cfg.docs_per_step) * paid, *lengths(document)),
            "answer": Rollouts(questions, m, kept(questions), *question),
            "test": Rollouts(assumed.test_questions, cfg.eval_samples, 0, *question)}


# ---------------------------------------------------------------- lengths, and the two schedules played through on them

def quantiles(count, rng):
    """-> (count,) even quantiles of a standard normal, in random order."""
    z = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    rng.shuffle(z)
    return np.array(z)


def whole_lengths(z, mean, deviation, limit):
    """Standard normal numbers -> as many whole lengths from 1 to limit: log-normal, of this mean and (but for the cut) deviation."""
    x = np.exp(math.sqrt(math.log(1 + (deviation / mean) ** 2)) * z)
    for _ in range(20):                                             # cutting lowers the mean: scale it back
        x = np.clip(x * (mean / x.mean()), 1, limit)
    ends = np.round(np.cumsum(x)).astype(int)                       # rounded so that the sum stays
    return np.clip(np.diff(ends, prepend=0), 1, None).tolist()


@lru_cache(maxsize=256)
def groups_of(rollouts, count, prompt_limit, response_limit):
    """-> ((prompt length, (response lengths), (tokens each has in common with the one before)), ...) of `count` prompts."""
    if not count:
        return ()
    rng, n = random.Random(0), rollouts.answers
    prompts = whole_lengths(quantiles(count, rng), *rollouts.prompt, prompt_limit)
    shared, own = np.repeat(quantiles(count, rng), n), quantiles(count * n, rng)
    responses = whole_lengths(rollouts.alike ** 0.5 * shared + (1 - rollouts.alike) ** 0.5 * own, *rollouts.response, response_limit)
    answers = [tuple(responses[i * n:(i + 1) * n]) for i in range(count)]
    again = [0] * count
    if rollouts.trees:                                                      # where there are more tokens, the tree is larger
        order = sorted(range(count), key=lambda i: (prompts[i] + sum(answers[i]), rng.random()))
        for i, tree in zip(order, np.quantile(rollouts.trees, (np.arange(count) + 0.5) / count, method="inverted_cdf")):
            again[i] = max(0, prompts[i] + sum(answers[i]) - round(tree))
    return tuple((p, own, spread_out(own, left)) for p, own, left in zip(prompts, answers, again))


def spread_out(responses, left):
    """Response lengths -> how many input tokens each has in common with the one before: `left` in all, evenly, as far as they are that long."""
    common = [0] * len(responses)
    most = [0] + [min(a, b) - 1 for a, b in zip(responses, responses[1:])]
    while left and common != most:
        for i in [i for i, (c, x) in enumerate(zip(common, most)) if c < x][:left]:
            common[i], left = common[i] + 1, left - 1
    return tuple(common)


@dataclass
class Sampling:
    """What policy.sample does on one rank. Columns are those of the key-value cache; a cell is one row's place in one column."""
    drawn: int = 0              # tokens
    prefill: int = 0            # tokens read, padding included
    squares: int = 0            # sum over prompts of columns^2
    row_steps: int = 0          # rows summed over decoding steps
    steps: int = 0
    cells: int = 0              # cells attended to, summed over steps
    rows: int = 0               # most rows at once
    most: int = 0               # most cells at once, spare ones included
    join: int = 0               # most cells while prompts join: the merged cache and the part that joins
    first: tuple = (0, 0, 0)    # (cells before, tokens, squares) of the largest prefill


@lru_cache(maxsize=1024)
def sampling(groups, rows_at_once, tokens_at_once):
    """Groups of one rank -> Sampling. From one row's end to the next nothing changes, so it is one stride."""
    s, queue = Sampling(), sorted(groups, key=lambda group: -group[0])
    n = len(groups[0][1]) if groups else 1
    length, left = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)         # (R,) tokens in the cache, tokens still to draw
    joins = lambda: bool(queue) and (not len(length) or (rows_at_once - len(length)) // n * n * 4 >= rows_at_once)
    while queue or len(length):
        if joins():
            room = max(1, min((rows_at_once - len(length)) // n, tokens_at_once // queue[0][0]))
            taken, queue = queue[:room], queue[room:]
            longest, before = taken[0][0], len(length) * int(length.max(initial=0))
            tokens, own = longest * len(taken), longest * len(taken) * n
            s.prefill, s.squares = s.prefill + tokens, s.squares + tokens * longest
            s.first = max(s.first, (before, tokens, tokens * longest), key=lambda x: x[0] / 2 + x[1])
            length = np.concatenate([length, np.repeat([p for p, *_ in taken], n)])
            left = np.concatenate([left, [r for _, responses, _ in taken for r in responses]]).astype(np.int64)
            s.join = max(s.join, len(length) * int(length.max()) + (own if before else 0))
        stride = 1 if joins() else int(left.min())
        R, columns = len(length), int(length.max()) + np.arange(1, stride)          # of the steps before the last draw
        s.drawn, s.steps, s.rows = s.drawn + R * stride, s.steps + stride - 1, max(s.rows, R)
        s.row_steps, s.cells = s.row_steps + R * (stride - 1), s.cells + R * int(columns.sum())
        full = int(length.max()) + stride - 1
        s.most = max(s.most, R * (full + spare(full)))
        going = left > stride
        length, left = length[going] + stride, left[going] - stride
        if len(length):
            s.steps, s.row_steps, s.cells = s.steps + 1, s.row_steps + len(length), s.cells + len(length) * int(length.max())
    return s


@dataclass
class Pass:
    """One forward and backward pass over packed rows."""
    rows: int
    L: int                      # padded length of a row
    targets: int                # predictions: response tokens, without those that another answer has in common

    @property
    def tokens(self):
        return self.rows * self.L

    @property
    def squares(self):
        return self.rows * self.L ** 2


@lru_cache(maxsize=8192)
def passes(groups, s, limit, parts=1, part=0):
    """Groups -> list of Pass, as policy.micro_batches makes them; parts, part: as there."""
    layout = SimpleNamespace(num_hidden_layers=s.layers, num_attention_heads=s.heads, head_dim=s.A // s.heads, hidden_size=s.H)
    policy = SimpleNamespace(layer_weights=s.W, model=SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: layout)))
    rows = []
    for prompt, responses, common in groups:
        k = answers_per_row(policy, prompt, responses, common, limit, parts)
        for i in range(0, len(responses), k):
            targets = sum(responses[i:i + k]) - sum(common[i + 1:i + k])
            rows.append((prompt + targets - len(responses[i:i + k]), targets))              # an answer's last token is never fed
    batches = []
    for L, targets in sorted(rows, reverse=True)[part::parts]:
        if not batches or (batches[-1].rows + 1) * batches[-1].L > limit:
            batches.append(Pass(0, L, 0))
        batches[-1].rows, batches[-1].targets = batches[-1].rows + 1, batches[-1].targets + targets
    return batches


def blocks(questions, cfg):
    """Passes of each question -> (passes that several questions share, passes of each of the others), as influence_block.blocks makes them."""
    fits = lambda q: not cfg.grad_checkpoint and len(q) == q[0].rows == 1 and q[0].targets <= cfg.logp_chunk
    rows = sorted(((q[0].L, q[0].targets) for q in questions if fits(q)), reverse=True)
    ends = [0, *accumulate(sizes(rows, cfg))]
    shared = [Pass(end - start, rows[start][0], sum(targets for _, targets in rows[start:end])) for start, end in pairwise(ends)]
    return shared, [q for q in questions if not fits(q)]


# ---------------------------------------------------------------- the formulas

def forward_flops(s, tokens, squares, targets):
    return 2 * s.W * tokens + 4 * s.layers * s.A * squares + 2 * s.H * s.V * targets


def sampling_flops(s, y):
    return forward_flops(s, y.prefill, y.squares, y.drawn) + forward_flops(s, y.row_steps, y.cells, 0)


def pass_flops(s, x, cfg):
    """Forward and backward of one Pass, recomputation included."""
    flops = 6 * s.W * x.tokens + 14 * s.layers * s.A * x.squares + 6 * s.H * s.V * x.targets
    if cfg.grad_checkpoint:                             # torch stops before a layer's last matrix: nothing needs its product
        flops += 2 * (s.W - s.layers * s.H * s.I) * x.tokens + 4 * s.layers * s.A * x.squares
    return flops + (2 * s.H * s.V * x.targets if x.targets > cfg.logp_chunk else 0)


def activations(s, x, cfg, b):
    """Bytes that a pass keeps for its backward pass, all layers."""
    norms = (4 * s.H if b == 2 else 0) + ((3 if b == 2 else 2) * b * (s.A + s.K) if s.qk_norm else 0)
    layer = x.tokens * (b * (6 * s.H + 4 * s.A + 4 * s.I) + norms) + b * x.squares
    ends = b * s.H * (2 * x.tokens + x.targets)                     # last norm, and what the head reads
    return (s.layers * s.H * b * x.tokens + layer if cfg.grad_checkpoint else s.layers * layer) + ends + x.squares


def logits(s, x, cfg, b):
    return (12 + (b if b == 2 else 0)) * s.V * min(x.targets, cfg.logp_chunk)


def held(s, k):
    return {"master weights": 4 * s.P / k, "AdamW m, v": 8 * s.P / k}


def sampling_moments(s, y, k, b, narrow):
    """The moments at which a sampling stage may need most: [{buffer: bytes}, ...]. narrow: with top_k or top_p."""
    kv, copy = 2 * s.layers * s.K * b, {} if k == 1 and b == 4 else {"compute copy": b * s.P}
    base = held(s, k) | copy
    before, tokens, squares = y.first
    repeated = 2 * s.A * b if s.A != s.K else 0
    return [base | {"KV cache": kv * y.most, "activations": (repeated + s.K * b) * y.most, "logits": (36 if narrow else 24) * s.V * y.rows},
            base | {"KV cache": kv * y.join},
            base | {"KV cache": kv * (before + tokens), "activations": b * (2 * s.H + 3 * s.I) * tokens + (1 + b) * squares}]


def heaviest(batches, s, cfg, b):
    return max(batches, key=lambda x: activations(s, x, cfg, b) + logits(s, x, cfg, b))


def backward_moments(s, base, x, cfg, b, gradient, scoring=0):
    """Pass x when it knows its logits, when it has the head's gradient, and when its last layer runs backward.

    gradient: bytes per element of a gradient; scoring: bytes of what is made of a gradient, a piece at a time.
    """
    base, head = base | {"activations": activations(s, x, cfg, b)}, gradient * s.N
    chunks = 2 if x.targets > cfg.logp_chunk else 1                         # the head's gradient so far, and that of a chunk
    return [base | {"logits": logits(s, x, cfg, b)},
            base | {"logits": logits(s, x, cfg, b) / 3, "largest tensor": max(head * chunks, 0 if s.tied else head + scoring)},
            base | {"backward": 2 * s.I * b * x.tokens, "largest tensor": head if s.tied else 0}]          # tied: waits for the embedding's


def pass_moments(s, base, name, batches, most, cfg, k, b):
    """The same for passes that accumulate gradients called `name`, and their end, when those outside the layers are added up.

    most: passes in a row, on one rank. Of a single one the gradients come as the activations go.
    """
    before = {name: 4 * s.P / k}
    copies = b * (2 * s.P_l + s.P_rest) if k > 1 else (b * s.P if b == 2 else 0)
    base = base | ({"compute copy": copies} if copies else {})
    gradient = b if k > 1 else 4
    end = s.N * gradient * ((2 if most == 1 else 3) if s.tied else 1)
    if k > 1:                                           # whole in the compute dtype, and once more in fp32 to be summed over ranks
        end += gradient * (s.P_rest - s.N) + 4 * s.P_rest
    during = backward_moments(s, base | (before if most > 1 else {}), heaviest(batches, s, cfg, b), cfg, b, gradient)
    return during + [base | before | {"largest tensor": end}]


def update_moments(s, batches, most, cfg, k, b, cuda):
    temporaries = 4 * s.P / k if cuda else 0                                # on CUDA of all tensors at once, on a CPU none: one fused pass
    step = held(s, k) | {"gradients": 4 * s.P / k, "AdamW's temporaries": temporaries}
    return pass_moments(s, held(s, k), "gradients", batches, most, cfg, k, b) + [step]


def influence_moments(s, dev, most, shared, questions, cfg, k, b, slices=False):
    """dev: the passes of g_dev, at most `most` in a row; shared: blocks of questions; questions: the passes of each of the others.

    slices: no copies are gathered.
    """
    base, every = held(s, k) | {"g_dev": 4 * s.P / k}, [x for q in questions for x in q]
    moments = pass_moments(s, held(s, k), "g_dev", dev, most, cfg, k, b) if dev else []
    gradient = b if k > 1 else 4
    scoring = min(s.N, PIECE["cpu" if b == 4 else "cuda"]) * (16 if gradient == 2 else 4)        # of bf16 tensors: fp32 copies first
    if not slices:
        base |= {"gathered weights, v, g_dev": 3 * b * s.P} if k > 1 else {"compute copy": b * s.P} if b == 2 else {}
    if shared:                                          # no gradient is ever whole: two pieces of one
        x, piece = heaviest(shared, s, cfg, b), scoring + gradient * min(s.N, PIECE["cpu" if b == 4 else "cuda"])
        moments += backward_moments(s, base, x, cfg, b, 0, piece)
        moments += [base | {"logits": logits(s, x, cfg, b) / 3 if s.tied else 0, "largest tensor": piece}]
    if slices and questions:
        moments += pass_moments(s, base, "gradients", every, 2, cfg, k, b)
    elif questions:
        base |= {"gradients": gradient * s.P} if any(len(q) > 1 for q in questions) else {}
        moments += backward_moments(s, base, heaviest(every, s, cfg, b), cfg, b, gradient, scoring)
        moments += [base | {"largest tensor": (3 if s.tied else 1) * gradient * s.N + scoring}]
    return moments


# ---------------------------------------------------------------- stages

@dataclass
class Stage:
    name: str
    buffers: dict = field(default_factory=dict)         # {buffer: bytes} of one rank at the stage's worst moment
    host: float = 0.0                                   # bytes of host memory, each rank
    tokens: int = 0                                     # response tokens drawn or trained on, all ranks
    through: int = 0                                    # tokens through the model, prompts and padding included, all ranks
    flops: float = 0.0                                  # all ranks
    moved: float = 0.0                                  # bytes between ranks, host or disk, each rank
    seconds: float = 0.0

    @property
    def peak(self):
        return sum(self.buffers.values())


@dataclass
class Setting:
    """Everything a plan depends on."""
    cfg: config.Config
    shapes: dict                # {"solver", "generator": Shape}
    rollouts: dict              # {"dev", "draft", "answer", "test": Rollouts}
    machine: Machine
    cuda: bool = True

    @property
    def ranks(self):
        return self.machine.gpus

    @property
    def k(self):
        return self.ranks if shard.wanted(self.cfg, self.shapes["solver"].P, self.cuda) else 1

    @property
    def b(self):
        return 2 if self.cfg.dtype == "bf16" or (self.cfg.dtype == "auto" and self.cuda) else 4

    @property
    def together(self):
        """Do all ranks score one question at a time?"""
        memory = self.machine.gpu_gb * 1e9 if self.cuda else math.inf
        return self.k > 1 and too_large(self.cfg, self.shapes["solver"].P, self.b, memory)

    @property
    def takes_turns(self):
        return self.cuda and getattr(self.cfg, "offload_idle", True)

    def groups(self, kind, kept=False):
        r = self.rollouts[kind]
        count, r = (r.kept, self.rollouts.get(f"{kind} kept", r)) if kept else (r.prompts, r)
        prompt, response = r.longest
        return r.groups or groups_of(r, count, min(prompt, self.cfg.max_prompt_tokens), min(response, self.cfg.max_response_tokens))


def share(items, ranks):
    """-> the items of each rank, as ranks.share deals them."""
    return [items[rank::ranks] for rank in range(ranks)]


def longest_first(groups, k):
    """As policy.longest_first, for k ranks."""
    return ranks.evenly(sorted(groups, key=lambda group: -tree_size(*group)), k)


def tree_size(prompt, responses, common):
    """As policy.tree_size, of lengths."""
    return prompt + sum(responses) - sum(common)


def response_tokens(groups):
    return sum(sum(responses) for _, responses, _ in groups)


def worst(moments):
    return max(moments, key=lambda buffers: sum(buffers.values()))


def sampling_stage(p, name, role, kind):
    if not p.rollouts[kind].prompts:
        return Stage(name)
    s, m, narrow = p.shapes[role], p.machine, kind == "test"
    each = [sampling(part, p.cfg.rows_at_once, p.cfg.tokens_at_once) for part in share(p.groups(kind), p.ranks)]
    moved = p.b * s.P * (p.k - 1) / p.k

    def seconds(y):
        cache = 2 * s.layers * s.K * p.b * y.cells * (1 + 2 / 32 + (2 * s.A / s.K if s.A != s.K else 0))
        decode = max(y.steps * s.layers * m.layer_us / 1e6, (y.steps * p.b * (s.W + s.N) + cache) / (1e9 * m.hbm_gbs * m.hbm_share))
        return forward_flops(s, y.prefill, y.squares, 0) / m.flops + decode
    return Stage(name, worst([x for y in each for x in sampling_moments(s, y, p.k, p.b, narrow)]), tokens=sum(y.drawn for y in each),
                 through=sum(y.prefill + y.row_steps for y in each), flops=sum(sampling_flops(s, y) for y in each), moved=moved,
                 seconds=max(seconds(y) for y in each) + moved / m.link)


def training(p, s, minibatches):
    """Mini-batches of groups -> (passes of all ranks, most in a row, FLOPs, bytes moved, seconds). All but the first need old log-probs."""
    dealt = [share(tuple(longest_first(minibatch, p.ranks)), p.ranks) for minibatch in minibatches]
    later = [tuple(group for parts in dealt[1:] for group in parts[rank]) for rank in range(p.ranks)]
    steps, old = ([[passes(part, s, p.cfg.tokens_at_once) for part in parts] for parts in rounds] for rounds in (dealt, [later]))
    forward, both = lambda x: forward_flops(s, x.tokens, x.squares, x.targets), lambda x: pass_flops(s, x, p.cfg)
    spent = [spent_on(p, s, each, both, 2 * p.b + 4, 8 * s.P) for each in steps] + [spent_on(p, s, each, forward, p.b, 0) for each in old]
    flops, moved, seconds = map(sum, zip(*spent))
    return [x for each in steps for part in each for x in part], max((len(part) for each in steps for part in each), default=0), flops, moved, seconds


def spent_on(p, s, each, cost, sharded, whole):
    """Passes of each rank, FLOPs of a pass -> (FLOPs, bytes moved, seconds). Bytes: `sharded` per parameter and pass, or `whole` once."""
    costs, most = [sum(map(cost, part)) for part in each], max(map(len, each))              # ranks with fewer passes run empty ones
    traffic = most * sharded * s.P * (p.k - 1) / p.k if p.k > 1 else whole * (p.ranks - 1) / p.ranks
    return sum(costs), traffic, max(max(costs) / p.machine.flops, traffic / p.machine.link)


def update_stage(p, name, role, kind):
    s, groups, size = p.shapes[role], p.groups(kind, kept=True), p.cfg.minibatch_rows // p.rollouts[kind].answers
    every, most, flops, moved, seconds = training(p, s, [groups[i:i + size] for i in range(0, len(groups), size)])
    if not every:
        return Stage(name)
    return Stage(name, worst(update_moments(s, every, most, p.cfg, p.k, p.b, p.cuda)), tokens=response_tokens(groups),
                 through=sum(x.tokens for x in every), flops=flops, moved=moved, seconds=seconds)


def influence_stage(p):
    if p.cfg.reward != "influence":
        return Stage("influence")
    s = p.shapes["solver"]
    dev = p.groups("dev", kept=True)
    every, most, flops, moved, seconds = training(p, s, [dev] if dev else [])
    groups = p.groups("answer", kept=True)
    scored = groups[:len(groups) - round(len(groups) * p.cfg.rlvr_per_step / max(1, p.rollouts["answer"].prompts))]         # RLVR problems are not
    groups = longest_first(scored, p.ranks)
    cost, gathered = lambda part: sum(pass_flops(s, x, p.cfg) for x in part), s.P * (p.k - 1) / p.k
    if p.together:                                      # the ranks divide a question's rows; each pass is as much traffic as in training
        dealt = [[passes((group,), s, p.cfg.tokens_at_once, p.ranks, r) for r in range(p.ranks)] for group in groups]
        questions = [[x for part in q for x in part] for q in dealt]
        traffic, shared = sum(max(map(len, q)) for q in dealt) * gathered * (2 * p.b + 4), []
        seconds += max(sum(max(map(cost, q)) for q in dealt) / p.machine.flops, traffic / p.machine.link)
    else:
        questions = [passes((group,), s, p.cfg.tokens_at_once) for group in groups]
        traffic = 3 * p.b * gathered
        dealt = [blocks(part, p.cfg) for part in share(questions, p.ranks)]
        shared, questions = [x for part, _ in dealt for x in part], [q for _, part in dealt for q in part]
        costs = [sum(map(cost, [[x] for x in part] + alone)) for part, alone in dealt]
        seconds += max(costs) / p.machine.flops + traffic / p.machine.link
    moments, flat = influence_moments(s, every, most, shared, questions, p.cfg, p.k, p.b, p.together), shared + [x for q in questions for x in q]
    return Stage("influence", worst(moments) if moments else {}, tokens=response_tokens(dev) + response_tokens(groups),
                 through=sum(x.tokens for x in every + flat), flops=flops + cost(flat), moved=moved + traffic, seconds=seconds)


def checkpoint_stage(p):
    written = 12 * (p.shapes["solver"].P + p.shapes["generator"].P)
    return Stage("checkpoint", held(p.shapes["solver"], p.k), moved=written / p.ranks, seconds=written / (1e9 * p.machine.disk_gbs))


STAGES = {"dev": lambda p: sampling_stage(p, "dev", "solver", "dev"), "write": lambda p: sampling_stage(p, "write", "generator", "draft"),
          "answer": lambda p: sampling_stage(p, "answer", "solver", "answer"), "influence": influence_stage,
          "update_generator": lambda p: update_stage(p, "update_generator", "generator", "draft"),
          "update_solver": lambda p: update_stage(p, "update_solver", "solver", "answer"),
          "evaluate": lambda p: sampling_stage(p, "evaluate", "solver", "test"),
          "checkpoint": checkpoint_stage}


def plan(p):
    """Setting -> {stage: Stage} of one iteration in which everything happens, evaluation and checkpoint included."""
    stages, previous = {name: stage(p) for name, stage in STAGES.items()}, "solver"
    for name, stage in stages.items():
        role = "generator" if name in ("write", "update_generator") else "solver"
        idle = 12 * p.shapes["solver" if role == "generator" else "generator"].P / p.k
        if stage.buffers and p.takes_turns:
            stage.host = idle
        elif stage.buffers:
            stage.buffers["idle role"] = idle
        if role != previous and p.takes_turns:                              # one goes out, the other comes in
            swap = 12 * (p.shapes["solver"].P + p.shapes["generator"].P) / p.k
            stage.moved, stage.seconds, previous = stage.moved + swap, stage.seconds + swap / (1e9 * p.machine.host_gbs), role
    return stages


# ---------------------------------------------------------------- does it fit, and what would help

def room(p):
    return 1e9 * p.machine.gpu_gb * (1 - FREE_SHARE)


def halvings(p, name, least):
    value = getattr(p.cfg, name)
    while value // 2 >= least:
        value //= 2
        yield f"--{name} {value}", replace(p, cfg=replace(p.cfg, **{name: value}))


def shorter(p):
    """Halved response limits, the mean length with them."""
    for i in range(1, 4):
        limit = p.cfg.max_response_tokens // 2 ** i
        short = lambda r: replace(r, response=tuple(min(x, x * limit / p.cfg.max_response_tokens) for x in r.response))
        if limit:
            yield f"--max_response_tokens {limit}", replace(p, cfg=replace(p.cfg, max_response_tokens=limit),
                                                            rollouts={kind: short(r) for kind, r in p.rollouts.items()})


def more_gpus(p):
    for gpus in (2 ** i for i in range(1, 10)):
        if gpus > p.machine.gpus:
            yield f"{gpus} GPUs", replace(p, machine=replace(p.machine, gpus=gpus))


def recomputation(p):
    if not p.cfg.grad_checkpoint:
        yield "--grad_checkpoint", replace(p, cfg=replace(p.cfg, grad_checkpoint=True))


def in_slices(p):
    if p.k > 1 and not p.together:
        yield "--scoring together", replace(p, cfg=replace(p.cfg, scoring="together"))


LEVERS = [recomputation, lambda p: halvings(p, "rows_at_once", p.cfg.answers_per_question), lambda p: halvings(p, "tokens_at_once", 1024),
          lambda p: halvings(p, "logp_chunk", 128), in_slices, shorter, more_gpus]


def alone(p, stage):
    """The single changes that make a stage fit, the least of each kind."""
    fits = lambda changed: STAGES[stage](changed).peak <= room(p)
    return filter(None, (next((name for name, changed in lever(p) if fits(changed)), None) for lever in LEVERS))


def remedies(p, names):
    """A setting and the stages that are too large -> lines: what makes each fit, any of several changes or all of them together."""
    lines = {}
    for stage in names:
        enough = ", ".join(alone(p, stage))
        lines.setdefault(f"any of: {enough}" if enough else together(p, stage), []).append(stage)
    return [f"{', '.join(stages)}: {line}" for line, stages in lines.items()]


def together(p, stage):
    """Where no single change is enough: each as far as it helps, then more GPUs."""
    names, least = {}, STAGES[stage](p).peak
    for lever in LEVERS[:-1]:
        for name, changed in lever(p):
            if STAGES[stage](changed).peak < 0.99 * least:
                p, least = changed, STAGES[stage](changed).peak
                names[name.split()[0]] = name
    line = "no single change is enough" + (f"; {', '.join(names.values())} together: {least / 1e9:.0f} GB" if names else "")
    more = next((name for name, changed in more_gpus(p) if STAGES[stage](changed).peak <= room(p)), None) if least > room(p) else None
    return line + (f", and with {more} it fits" if more else " (fits)" if least <= room(p) else ", and no number of GPUs makes it fit")


def not_built(p, stage):
    """What other designs would give to a stage that does not fit."""
    return f"not built: AdamW's m, v in host memory meanwhile, {stage.buffers.get('AdamW m, v', 0) / 1e9:.0f} GB less"


# ---------------------------------------------------------------- printing

def big(x):
    """1.5e12 -> 1.5 T"""
    for power, letter in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if x >= 10 ** power:
            return f"{x / 10 ** power:.3g} {letter}"
    return f"{x:.3g}"


def table(p, stages):
    """-> lines: buffers in GB as rows, stages as columns, then tokens, FLOPs, traffic, minutes."""
    shown = [stage for stage in stages.values() if stage.buffers]
    names = list(dict.fromkeys(name for stage in shown for name in stage.buffers))
    gb = lambda x: f"{x / 1e9:.2f}" if x else "-"
    rows = [("GB of one rank", [stage.name.replace("update_", "upd_") for stage in shown])]
    rows += [(name, [gb(stage.buffers.get(name, 0)) for stage in shown]) for name in names]
    rows += [("peak", [gb(stage.peak) for stage in shown]), ("host memory, idle role", [gb(stage.host) for stage in shown]),
             ("response tokens", [big(stage.tokens) for stage in shown]),
             ("tokens through the model", [big(stage.through) for stage in shown]),
             ("FLOPs, all ranks", [big(stage.flops) for stage in shown]), ("GB moved, each rank", [gb(stage.moved) for stage in shown]),
             ("minutes", [f"{stage.seconds / 60:.2f}" for stage in shown])]
    return [f"{name:26}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in rows]


def minutes(p, stages):
    """Of an average iteration: evaluation and checkpoint happen in some only, and so do dev questions that are not needed for g_dev."""
    every = {"evaluate": p.cfg.eval_every, "checkpoint": p.cfg.checkpoint_every, "dev": 1 if p.cfg.reward == "influence" else p.cfg.dev_every}
    return sum(stage.seconds / every.get(stage.name, 1) for stage in stages.values()) / 60


def report(p):
    """Setting -> the plan as text."""
    s, m, stages = p.shapes["solver"], p.machine, plan(p)
    lines = [f"{s.name}: {s.P / 1e9:.2f} billion parameters, {s.layers} layers of {s.H}, on {m.gpus} x {m.gpu_gb:g} GB, "
             f"{'bf16' if p.b == 2 else 'fp32'}, {'sharded' if p.k > 1 else 'whole'}. Computed, not run.",
             "rates assumed: " + ", ".join(f"{name} {value:g}" for name, value in asdict(m).items() if name not in ("gpus", "gpu_gb"))]
    for kind, r in p.rollouts.items():
        if r.prompts:
            lines.append(f"{kind:7} assumed: {r.prompts} prompts of {r.prompt[0]:.0f} +- {r.prompt[1]:.0f} tokens x {r.answers} responses "
                         f"of {r.response[0]:.0f} +- {r.response[1]:.0f}, {r.kept} prompts with a gradient")
    lines += ["", *table(p, stages), ""]
    average = minutes(p, stages)
    hours = average * p.cfg.iterations / 60
    tested = f"evaluation every {p.cfg.eval_every}" if p.rollouts["test"].prompts else "no evaluation: plan.py --test_questions N counts it"
    lines.append(f"an iteration: {average:.1f} minutes ({tested}, checkpoint every {p.cfg.checkpoint_every}); "
                 f"{p.cfg.iterations} of them: {hours:.1f} hours, {hours * m.gpus:.0f} GPU hours")
    top = max(stages.values(), key=lambda stage: stage.peak)
    usable = f"{room(p) / 1e9:.0f} of {m.gpu_gb:g} GB that are planned with"
    if top.peak <= room(p):
        return "\n".join(lines + [f"fits: at most {top.peak / 1e9:.1f} GB, in {top.name}, of the {usable}"])
    largest = max(top.buffers, key=top.buffers.get)
    over = [stage.name for stage in stages.values() if stage.peak > room(p)]
    lines.append(f"does not fit: {top.name} needs {top.peak / 1e9:.1f} GB of the {usable}; most of it {largest}, "
                 f"{top.buffers[largest] / 1e9:.1f} GB. What would help:")
    return "\n".join(lines + [f"  {line}" for line in remedies(p, over) + [not_built(p, top)]])


def setting_of(cfg, machine, assumed):
    """Config, machine and assumptions -> Setting; reads the config.json of the model, or of the two models."""
    shape = lambda path: shape_of(model_config(path), os.path.basename(os.path.normpath(path)))
    solver = shape(cfg.model)
    generator = solver if cfg.generator_anchor == cfg.model else shape(cfg.generator_anchor)
    return Setting(cfg, {"solver": solver, "generator": generator}, rollouts_of(cfg, assumed), machine, cuda=cfg.device != "cpu")


# ---------------------------------------------------------------- tables

TABLES = """# What the paper's recipe would need

Computed by `python plan.py --tables`, **not run**: no GPU was at hand. The formulas are in the header of [plan.py](../plan.py). Bytes,
tokens and FLOPs were compared with measurements on a CPU (README); the rates, and so the minutes, were not.

Recipe: preset paper-8b (128 documents x 8 questions x 8 answers, 800 dev questions x 8 answers, prompts up to 4,096 and responses up to
8,192 tokens), bf16, our own sampler, no evaluation. A plan fits if its largest stage leaves {free:.0f} % of {gpu_gb:g} GB free. GB are
those of one rank at the worst moment; minutes are those of an average iteration. The last column names the first single change that is
enough, in the order of plan.py: recomputation, rows and tokens at once, logp_chunk, response limit, GPUs. "no setting" means that the
design would have to change.

Assumed: {assumed}. Where a length is None: responses have a quarter of the limit, 2,048 tokens on average, a document's prompt half of
max_chunk_tokens and 200.

Rates: {rates}."""
GPUS = (1, 2, 4, 8, 16, 32, 64)
KINDS = {"sampling": ("dev", "write", "answer"), "influence": ("influence",), "updates": ("update_generator", "update_solver")}


def paper(shape, machine, assumed):
    cfg = config.Config(**config.PAPER_8B, preset="paper-8b")
    return Setting(cfg, {"solver": shape, "generator": shape}, rollouts_of(cfg, assumed), machine)


def table_row(p):
    """A line of docs/plan.md."""
    stages, help_needed = plan(p), []
    total = lambda what: sum(getattr(stage, what) for stage in stages.values())
    cells, average = [p.machine.gpus], minutes(p, stages)
    for kind, names in KINDS.items():
        largest = max((stages[name] for name in names), key=lambda stage: stage.peak)
        cells.append(f"{largest.peak / 1e9:.0f}")
        if largest.peak > room(p):
            help_needed.append(f"{kind}: {next(alone(p, largest.name), 'no setting')}")
    cells += [f"{stages['dev'].host / 1e9:.0f}", f"{total('flops') / 1e15:.0f}", f"{total('moved') / 1e12:.1f}", f"{average:.0f}",
              f"{average * p.cfg.iterations / 60:.0f}", "; ".join(help_needed) or "fits"]
    return f"| {' | '.join(map(str, cells))} |"


def tables(machine, assumed):
    """-> docs/plan.md"""
    said = lambda x, leave_out=(): ", ".join(f"{name} {value}" for name, value in asdict(x).items() if name not in leave_out)
    lines = [TABLES.format(free=100 * FREE_SHARE, gpu_gb=machine.gpu_gb, assumed=said(assumed), rates=said(machine, ("gpus", "gpu_gb")))]
    for name in PUBLISHED:
        shape = shape_of(published(name), name)
        lines += ["", f"## {name}: {shape.P / 1e9:.2f} billion parameters", "",
                  "| GPUs | sampling, GB | influence, GB | updates, GB | host, GB | PFLOPs | TB moved | minutes | hours of 100 iterations "
                  "| fits, or what would help |",
                  "|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"]
        lines += [table_row(paper(shape, replace(machine, gpus=gpus), assumed)) for gpus in GPUS]
    in_full = paper(shape_of(published("Qwen3-8B"), "Qwen3-8B"), replace(machine, gpus=8), assumed)
    return "\n".join(lines + ["", "## Qwen3-8B on 8 GPUs in full", "", "```", report(in_full), "```"])


# ---------------------------------------------------------------- plan against measurement

def lengths(groups):
    """(G, m) rollouts -> the last six fields of Rollouts: means, standard deviations, alike, longest, trees, groups."""
    prompts = np.array([len(group[0].prompt) for group in groups], dtype=float)                    # (G,)
    responses = np.array([[len(x.response) for x in group] for group in groups], dtype=float)      # (G, m)
    within = responses.var(axis=1, ddof=1).mean()
    between = responses.mean(axis=1).var() - within / responses.shape[1]
    alike = float(np.clip(between / max(between + within, 1e-9), 0, 1))
    known = known_lengths(groups)
    return ((prompts.mean(), prompts.std()), (responses.mean(), responses.std()), alike, (prompts.max(), responses.max()),
            tuple(sorted(tree_size(*group) for group in known)), known)


def known_lengths(groups):
    """(G, m) rollouts -> the same in the form of groups_of."""
    responses = lambda group: tuple(len(group[i].response) for i in tree_order(group))
    return tuple((len(group[0].prompt), responses(group), tuple(common_starts(group))) for group in groups)


def measured_rollouts(facts):
    """What log.iteration was told -> {kind: Rollouts}, and of those with a gradient {"kind kept": Rollouts}."""
    flat = lambda r: ((r == r.max(dim=1, keepdim=True).values).all(dim=1).tolist() if len(r) else [])
    drafts = [[draft.rollout for draft in row] for row in facts["drafts"]]
    kinds = {"dev": (facts["dev_answers"], flat(facts["r_dev"])), "draft": (drafts, (facts["A_gen"] == 0).all(dim=1).tolist()),
             "answer": (facts["answers"], flat(facts["r"]))}
    found = {"test": Rollouts(0, 1, 0, (1, 0), (1, 0))}
    for kind, (groups, left_out) in kinds.items():
        kept = [group for group, out in zip(groups, left_out) if not out]
        for name, some in ((kind, groups), (f"{kind} kept", kept)):
            found[name] = Rollouts(len(some), len(some[0]), len(kept), *lengths(some)) if some else found["test"]
    return found


def flop_counter():
    """torch's counter, with the CPU's attention kernel, which it does not know, counted by its own formula for attention."""
    from torch.utils import flop_counter as torchs
    aten = torch.ops.aten
    forward = lambda q, k, v, *args, out_val=None, **kwargs: torchs.sdpa_flop_count(q.shape, k.shape, v.shape)
    backward = lambda grad, q, k, v, *args, out_val=None, **kwargs: torchs.sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    forward._get_raw = backward._get_raw = True
    return torchs.FlopCounterMode(display=False, custom_mapping={aten._scaled_dot_product_flash_attention_for_cpu: forward,
                                                                 aten._scaled_dot_product_flash_attention_for_cpu_backward: backward})


def most_bytes(profiler):
    """The most bytes in use at one time, beyond those in use at the profiler's start."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate((event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())), initial=0))


def held_bytes(policies):
    """Bytes of this rank's part of weights, and of AdamW's moments, of both roles."""
    size = lambda t: getattr(t, "to_local", lambda: t)().nbytes
    states = [state for policy in policies for state in policy.optimizer.state.values()]
    weights = sum(size(p) for policy in policies for p in policy.params)
    return weights, sum(size(state[moment]) for state in states for moment in ("exp_avg", "exp_avg_sq"))


def watched_run(cfg):
    """train.py's own loop, its last iteration watched -> ({stage: (peak bytes, FLOPs)}, held_bytes, what the log was told) of this rank."""
    import train                                        # here, because train.py imports this file for --plan
    seen, policies, clocks, facts = {}, [], [], {}

    class Watching(Clock):
        def __init__(self):
            super().__init__()
            clocks.append(self)

        @contextlib.contextmanager
        def __call__(self, stage):
            if len(clocks) < cfg.iterations:
                with super().__call__(stage):
                    yield
                return
            held = sum(held_bytes(policies))
            watch = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            with super().__call__(stage), watch as profiler, flop_counter() as counter:
                yield
            seen[stage] = held + most_bytes(profiler), counter.get_total_flops()

    class Noting(Log):
        def iteration(self, t, clock, **told):
            facts.update(told)

        def finish(self, policies):
            pass

    def policy(*args):
        policies.append(Policy(*args))
        return policies[-1]

    with mock.patch.multiple(train, Clock=Watching, Log=Noting, Policy=policy, save=lambda *args: None):
        train.train(cfg)
    return seen, held_bytes(policies), facts


def check(cfg):
    """Two iterations on a CPU, the second one watched -> rows of (stage, what, planned, planned from means, measured).

    Planned with the lengths of the rollouts themselves, which tests formulas and schedules; and from their means, spreads and trees alone, which also
    tests what a plan assumes about lengths. Of a handful of prompts a mean says little.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = replace(cfg, run=f"{folder}/run", iterations=2, test=None, device="cpu", dtype="fp32", show_every=0)
        seen, held_now, facts = watched_run(cfg)
    everyone = ranks.gather([(seen, held_now)], ranks.world())
    rollouts = measured_rollouts(facts)
    p = Setting(cfg, setting_of(cfg, Machine(), Assumed()).shapes, rollouts, Machine(gpus=ranks.world()), cuda=False)
    means = plan(replace(p, rollouts={kind: replace(r, groups=()) for kind, r in rollouts.items()}))
    rows, tokens = [], tokens_of(facts)
    for i, (what, bytes_each) in enumerate([("bytes: weights", 4), ("bytes: AdamW", 8)]):
        planned = sum(bytes_each * s.P / p.k for s in p.shapes.values())
        rows.append(("both roles", what, planned, planned, max(held[i] for _, held in everyone)))
    for name, stage in plan(p).items():
        if name in seen and stage.buffers:
            rows += [(name, "bytes: peak", stage.peak, means[name].peak, max(theirs[name][0] for theirs, _ in everyone)),
                     (name, "FLOPs", stage.flops, means[name].flops, sum(theirs[name][1] for theirs, _ in everyone))]
            rows += [(name, "tokens", stage.tokens, means[name].tokens, tokens[name])] if name in tokens else []
    return rows


def errors(rows, column):
    """{kind of number: largest relative error} of a column of plans, 2 or 3."""
    return {kind: max(abs(row[column] / row[4] - 1) for row in rows if row[1].startswith(kind)) for kind in ("bytes", "tokens", "FLOPs")}


def tokens_of(facts):
    """What log.iteration was told -> {stage: response tokens drawn or trained on}, as metrics.jsonl counts them."""
    drawn = lambda groups: sum(len(x.response) for group in groups for x in group)
    drafts = [[draft.rollout for draft in row] for row in facts["drafts"]]
    steps = {f"update_{role}": facts[f"{role}_step"] for role in ("generator", "solver")}
    return {"dev": drawn(facts["dev_answers"]), "write": drawn(drafts), "answer": drawn(facts["answers"])} | {
        name: step["tokens"] for name, step in steps.items() if step}


def print_check(rows):
    print(f"{ranks.world()} ranks, fp32 on a CPU\n{'stage':18}{'what':16}{'planned':>20}{'measured':>20}{'off by':>9}{'from means':>12}")
    for name, what, planned, means, measured in rows:
        print(f"{name:18}{what:16}{planned:20,.0f}{measured:20,.0f}{planned / measured - 1:9.1%}{means / measured - 1:12.1%}")
    for said, column in (("largest error", 2), ("from means and spreads of lengths alone", 3)):
        print(f"{said}: " + ", ".join(f"{kind} {error:.1%}" for kind, error in errors(rows, column).items()))


# ---------------------------------------------------------------- the command

def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                                     epilog="Every other flag is a field of config.py.")
    parser.add_argument("--tables", action="store_true", help="print docs/plan.md")
    parser.add_argument("--check", metavar="MODEL", help="run two iterations on a CPU and compare them with their plan")
    for kind in (Machine, Assumed):
        for x in fields(kind):
            number = int if isinstance(x.default, int) and x.name != "gpu_gb" else float
            parser.add_argument(f"--{x.name}", type=number, default=argparse.SUPPRESS, metavar=number.__name__, help=f"default {x.default}")
    args, rest = parser.parse_known_args(argv)
    pick = lambda kind: kind(**{x.name: getattr(args, x.name) for x in fields(kind) if hasattr(args, x.name)})
    if args.tables:
        print(tables(pick(Machine), pick(Assumed)))
    elif args.check:
        ranks.start(torch.device("cpu"))
        result = check(config.parse(["--model", args.check, *rest]))
        if ranks.is_main():
            print_check(result)
        ranks.stop()
    else:
        print(report(setting_of(config.parse(rest), pick(Machine), pick(Assumed))))


if __name__ == "__main__":
    run_script(main)
