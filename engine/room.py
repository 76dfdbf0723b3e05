"""How much memory and disk a run takes, and one line where there is less. Below it is one process
on a CPU; on_a_gpu has the same for each of R GPUs.

    memory   BASE + 12 (P + P_gen) + the larger of
                 4 P + activations + logits        an update, or scoring beside g_dev
                 KV cache                          sampling
    disk     12 (P + P_gen) a checkpoint: three at a time while one is written, one at the end;
             4 (P + P_gen) the models of the end, and each pair that --save_every keeps; half of
             that for a kept one in bf16

    code         symbol  meaning
    P, P_gen             parameters of the solver, of the generator: 4 bytes each for the weight and
                         for AdamW's m and v
    activations          tokens_at_once tokens, each b (6 H + 4 A + 4 I) in every layer
    logits               12 V bytes for each of at most logp_chunk predictions
    KV cache             2 l K b for each token of the rows sampled side by side

H hidden, I intermediate, A and K query heads and key-value heads, each times the size of one, l
layers, V words of the vocabulary, b = 4 bytes, 2 in bf16 on a GPU. Passes are taken as full and
responses at their limit, so most runs stay below: a model of 135 million parameters was seen to
take 7.2 GB of the 10.7 that its preset may. tools/plan.py has the whole account, stage by stage;
this one is within a quarter of it (tests/test_room.py).
"""
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM

from data import InputError
from engine import model_folder, ranks
from engine.attention import heads_of
from engine.cache import ROWS, rows_that_fit
from engine.device import is_out_of_memory
from engine.models import device_of, layer_weights

# Python, torch and transformers, before any weight.
BASE = 0.5e9


# ---------------------------------------------------------------- the sizes of a model

@dataclass(frozen=True, eq=False)
class Shape:
    """What formulas need of a model; engine/packing.py takes it for a policy."""
    name: str
    model: object       # without memory
    P: int              # parameters, tied ones once
    P_l: int            # of one layer
    layer_weights: int  # W: in the matrices of all layers
    layers: int         # l
    H: int
    I: int
    A: int
    K: int
    V: int
    tied: bool          # embedding and head
    qk_norm: bool
    end_to_end: bool = False    # passes without padding where nothing is shared

    @property
    def W(self):
        return self.layer_weights

    @property
    def N(self):
        """Elements of the largest tensor: embedding or head."""
        return self.V * self.H

    @property
    def P_rest(self):
        """Outside the layers."""
        return self.P - self.layers * self.P_l


def shape_of(config, name):
    """transformers' config -> Shape. The model is laid out without memory, to count parameters."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    c = config.get_text_config()
    heads, kv_heads, head_dim = heads_of(config)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return Shape(
        name, model, P=sum(sizes.values()),
        P_l=sum(n for name, n in sizes.items() if ".layers.0." in name),
        layer_weights=layer_weights(model), layers=c.num_hidden_layers,
        H=c.hidden_size, I=getattr(c, "intermediate_size", None) or 4 * c.hidden_size,
        A=heads * head_dim, K=kv_heads * head_dim, V=c.vocab_size,
        tied=bool(c.tie_word_embeddings),
        qk_norm=any("q_norm" in name for name in sizes))


def read_shape(path):
    """A model folder, or a hub id that is in the cache -> Shape.

    InputError as model_folder.require; OSError or ValueError for what cannot be read.

    The hub is not asked: where it is out of reach that takes 46 seconds, and loading asks it too.
    """
    if os.path.isdir(path):
        # whatever it says, a model is laid out from it
        model_folder.require(path, whole=False)
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    return shape_of(config, os.path.basename(os.path.normpath(path)))


# ---------------------------------------------------------------- what a run takes

# Of the upper bound, since passes are seldom full: SmolLM2-135M took 7.2 GB of 10.7. Between this
# share and the whole a run may or may not fit: it is told what is free, and starts.
CERTAIN = 0.6
# What a config raises that is no model's.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError,
              ValueError, StrictDataclassError)

def needs(P, cfg, shape, P_gen=None):
    """-> (bytes of memory, bytes on disk) at the worst moments.

    P, P_gen: parameters of the solver, and of the generator, which has as many unless given.
    """
    both = P + (P if P_gen is None else P_gen)
    at_work = max(4 * P + of_a_pass(shape, cfg), of_a_cache(shape, cfg))
    return BASE + 12 * both + at_work, on_disk(both, cfg)[0]


def of_a_pass(s, cfg, b=4):
    """Activations and logits of a pass that is full, in numbers of b bytes."""
    X = cfg.tokens_at_once
    layer = b * (6 * s.H + 4 * s.A + 4 * s.I) * X
    kept = layer + b * s.layers * s.H * X if cfg.grad_checkpoint else s.layers * layer
    return kept + (12 if b == 4 else 14) * s.V * min(X, cfg.logp_chunk)


def on_a_gpu(P, cfg, shape, P_gen, R):
    """-> bytes that a run takes at least on each of R GPUs, and in the memory of their machines.

    A role at work holds 12 bytes a parameter, cut over the ranks; an update adds 4 and a pass,
    sampling a whole copy. The cache takes what is left.
    """
    roles = P, P if P_gen is None else P_gen
    k = R if R > 1 and cfg.shard != "false" else 1
    b = 4 if cfg.dtype == "fp32" else 2
    at_work = max(roles) if cfg.offload_idle else sum(roles)
    copy = b * max(roles) if b == 2 or k > 1 else 0
    least = 12 * at_work / k + max(4 * max(roles) / k + CERTAIN * of_a_pass(shape, cfg, b), copy)
    return least, 12 * sum(roles) * R / k if cfg.offload_idle else 0


def of_a_cache(s, cfg):
    rows = max(rows_of(cfg, s), cfg.answers_per_question)
    return 8 * s.layers * s.K * rows * (cfg.max_prompt_tokens + cfg.max_response_tokens)


def rows_of(cfg, s):
    """Rows that are sampled side by side, at most, on a CPU."""
    return cfg.rows_at_once or rows_that_fit(cfg, 8 * s.layers * s.K)


def on_disk(both, cfg):
    """Parameters of both roles -> (most bytes at one time, bytes that are left at the end)."""
    saves = math.ceil(cfg.iterations / cfg.checkpoint_every)
    bf16 = cfg.dtype == "bf16" or (cfg.dtype == "auto" and device_of(cfg).type == "cuda")
    pairs = 1 + cfg.iterations // cfg.save_every if cfg.save_every else 0
    kept = (2 if bf16 else 4) * both * pairs
    a_save = 12 * both * min(saves, 3)
    # the models are written before the checkpoint before the last goes
    the_end = 12 * both * min(saves, 2) + 4 * both
    return kept + max(a_save, the_end), kept + 16 * both


# ---------------------------------------------------------------- is there so much

def free_ram():
    """Bytes that programs can still have, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def free_disk(run):
    """Bytes free where a run's folder is or will be, with those that its own checkpoints hold."""
    folder = Path(run).absolute()
    own = [path.stat().st_size for path in folder.glob("checkpoint*/**/*") if path.is_file()]
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free + sum(own)


def refuse(cfg, P=None):
    """Raises InputError of one line where free memory or disk cannot hold a run of cfg.

    P: parameters of the solver, counted by its config unless given. On a CPU memory is looked at
    with one process only. A config that cannot be read is left to whoever loads it; a folder that
    is no model is refused here.
    """
    sizes = sizes_of(cfg, P)
    on_cuda = device_of(cfg).type == "cuda"
    if sizes and on_cuda:
        refuse_gpu(*sizes, ranks.world(), *gpu_memory(device_of(cfg)))
    if sizes and ranks.world() == 1 and not on_cuda:
        refuse_memory(*sizes)
    if sizes:
        refuse_disk(*sizes)


def takes(cfg, P=None):
    """One line to say before a run: what it may take and leave; None if no model can be read."""
    sizes = sizes_of(cfg, P)
    if sizes is None:
        return None
    P, _, shape, P_gen = sizes
    memory, disk = needs(*sizes)
    left, free = on_disk(P + (P_gen or P), cfg)[1], free_ram()
    short = f" ({gb(free)} are free)" if free is not None and memory > free else ""
    return (f"takes up to {gb(memory)} of memory{short} on one process, and on disk up to "
            f"{gb(disk)}, of which {gb(left)} stay")


def sizes_of(cfg, P=None):
    """-> the arguments of needs, from the configs of both models; None if one cannot be read."""
    try:
        shape = read_shape(cfg.model)
        same = cfg.generator_anchor == cfg.model
        P_gen = None if same else read_shape(cfg.generator_anchor).P
    except UNREADABLE:
        return None
    return P or shape.P, cfg, shape, P_gen


def refuse_memory(P, cfg, shape, P_gen):
    memory, free = needs(P, cfg, shape, P_gen)[0], free_ram()
    if free is None or CERTAIN * memory <= free:
        return
    advice = "give a smaller --model"
    for tokens, rows in smaller(cfg, rows_of(cfg, shape)):
        less = replace(cfg, tokens_at_once=tokens, rows_at_once=rows)
        if CERTAIN * needs(P, less, shape, P_gen)[0] <= free:
            advice = f"--tokens_at_once {tokens} --rows_at_once {rows} may fit"
            break
    raise InputError(f"model {cfg.model}: the run needs up to {gb(memory)} of memory, "
                     f"{gb(free)} are free; {advice}")


def gpu_memory(device):
    """-> bytes of this GPU, bytes free in its machine's memory or None, ranks on this machine."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return torch.cuda.mem_get_info(device)[1], free_ram(), local


def refuse_gpu(P, cfg, shape, P_gen, R, total, free, local):
    """R ranks, `local` of them on this machine; total: bytes of a GPU, free: of its machine."""
    least, waiting = on_a_gpu(P, cfg, shape, P_gen, R)
    if least > total:
        advice = "more GPUs, or a smaller --model"
        for tokens, _ in smaller(cfg, rows_of(cfg, shape)):
            less = replace(cfg, tokens_at_once=tokens, grad_checkpoint=True)
            if on_a_gpu(P, less, shape, P_gen, R)[0] <= total:
                advice = f"--tokens_at_once {tokens} --grad_checkpoint true may fit"
                break
        raise InputError(f"model {cfg.model}: the run needs at least {gb(least)} on each of {R} "
                         f"GPUs, which have {gb(total)}; {advice}")
    if free is not None and waiting * local / R > free:
        raise InputError(f"model {cfg.model}: the role that waits needs up to "
                         f"{gb(waiting * local / R)} of this machine's memory, {gb(free)} are "
                         "free; --offload_idle false keeps it on the GPUs")


def smaller(cfg, rows):
    """Half of (tokens, rows) at once, a quarter, and so on, down to what is still of use."""
    tokens = cfg.tokens_at_once
    while tokens > 256 or rows > cfg.answers_per_question:
        tokens = max(tokens // 2, min(tokens, 256))
        rows = max(rows // 2, min(rows, cfg.answers_per_question))
        yield tokens, rows


def out_of_memory(error, cfg):
    """What ended a run -> (a line, the flags that take less), if it was memory; else None."""
    if not is_out_of_memory(error):
        return None
    sizes = sizes_of(cfg) if device_of(cfg).type == "cpu" else None
    rows = cfg.rows_at_once or (rows_of(cfg, sizes[2]) if sizes else ROWS)
    tokens, rows = next(smaller(cfg, rows), (cfg.tokens_at_once, rows))
    less = f"--tokens_at_once {tokens} --rows_at_once {rows}"
    if device_of(cfg).type == "cuda" and not cfg.grad_checkpoint:
        less += " --grad_checkpoint true"
    who = f"rank {ranks.rank()} of {ranks.world()} " if ranks.world() > 1 else ""
    why = " ".join(str(error).split())[:160]
    return f"{who}ran out of memory, so the run has ended ({why})", less


def refuse_disk(P, cfg, shape, P_gen):
    disk, free = needs(P, cfg, shape, P_gen)[1], free_disk(cfg.run)
    if disk <= free:
        return
    advice = "give an --output_dir on another disk"
    for name, value in (("checkpoint_every", cfg.iterations), ("save_every", 0)):
        less = replace(cfg, **{name: value})
        if needs(P, less, shape, P_gen)[1] <= free:
            advice += f", or --{name} {value}"
    raise InputError(f"run {cfg.run}: needs up to {gb(disk)} on disk, {gb(free)} are free; "
                     f"{advice}")


def gb(x):
    return f"{x / 1e9:.1f} GB" if x >= 1e8 else f"{x / 1e6:.0f} MB"
