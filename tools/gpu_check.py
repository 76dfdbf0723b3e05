"""What a first GPU has to show, in at most eight minutes and one table: run it before a run.

    python -m tools.gpu_check           one GPU; nothing is downloaded
    python -m tools.gpu_check --tiny    a toy size on a CPU: tries the script itself

A Qwen3 of 1.7B with random weights goes through everything that the paper's recipe does with one of
8B. Nothing of this had met a GPU when it was written: a LOOK is either a mistake of ours or a limit
that was guessed too tightly, and its line says which number was expected and why.

    check      what                                                                     seconds
    device     rates of this GPU, which all shares below are of; what is switched off        15
    kernels    varlen_attn against plain attention, forward and backward                     10
    scores     s_hat by hooks and by blocks against the definition, bf16 against fp32        80
    rows       answers end to end against side by side: log-probs, gradient                  30
    sampling   the sampler against the trainer, `generate` and memory bandwidth              60
    training   an update's and a scoring's share of the peak                                 60
    turns      two roles on one device: out, in, unchanged                                   40
    shards     FSDP2 on one rank, both ways of scoring; host and back; a checkpoint          70
    resume     train.py: two iterations at once, and one by one                              40
    vllm       the same prompts by vLLM, if it is installed                                  60

Each stands alone: what fails is a line of the table. The table goes to --json too.
"""
import contextlib
import gc
import importlib.util
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

# Before the libraries that read them.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
import torch.distributed as dist
import transformers
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

import influence
import train
from config import ROOT, Config
from data import InputError
from engine import checkpoint, device, flags, ranks, room, shard, varlen
from engine.arguments import Parser
from engine.logps import tree_logps
from engine.packing import Rows, pack, passes
from engine.speech import run_script
from policy import Policy, old_logps, pass_loss, take_turns, update
from sampling import sample
from tools.baselines import World, bare_passes, make_world, random_groups, rollouts_of
from tools.formulas import pass_flops

# Seconds of each check on an H200: guesses, from which what is left is told.
CHECKS = {"device": 15, "kernels": 10, "scores": 80, "rows": 30, "sampling": 60, "training": 60,
          "turns": 40, "shards": 70, "resume": 40, "vllm": 60}


# ---------------------------------------------------------------- sizes

@dataclass(frozen=True)
class Size:
    """A model, and how much of everything."""
    shape: dict
    m: int                  # answers to a question
    prompt: int             # tokens
    answer: int
    short: int              # tokens of an answer where fp32 has to hold it
    sampled: int            # tokens of a sampled answer
    prompts: int            # sampled from at once
    tokens_at_once: int
    logp_chunk: int
    matrix: int             # for the rates


FULL = Size(
    dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28,
         num_attention_heads=16, num_key_value_heads=8, head_dim=128),
    m=8, prompt=200, answer=2048, short=120, sampled=256, prompts=16, tokens_at_once=32768,
    logp_chunk=4096, matrix=8192)
TINY = Size(
    dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
         num_attention_heads=4, num_key_value_heads=2, head_dim=16),
    m=4, prompt=5, answer=24, short=12, sampled=8, prompts=3, tokens_at_once=200, logp_chunk=64,
    matrix=128)


class Bench:
    """The table, the model's folder, and what every check needs of both."""

    def __init__(self, size, device, seconds):
        self.size, self.device, self.seconds = size, device, seconds
        self.cuda = device.type == "cuda"
        self.start, self.lines, self.rates, self.check = time.time(), [], {}, ""
        self.rng = random.Random(0)
        self.work = tempfile.mkdtemp(dir=roomy())
        self.cfg = Config(
            device=device.type, answers_per_question=size.m, minibatch_rows=4 * size.m,
            tokens_at_once=size.tokens_at_once, logp_chunk=size.logp_chunk,
            max_response_tokens=size.sampled, rows_at_once=size.prompts * size.m,
            grad_checkpoint=True, dtype="bf16", end_to_end="true")

    def say(self, what, value, good=None, wanted=""):
        """A line. good: None where nothing is expected of the value. wanted: what is, and why."""
        verdict = "" if good is None else "ok" if good else "LOOK"
        line = {"check": self.check, "what": what, "value": value, "verdict": verdict,
                "wanted": wanted}
        self.lines.append(line)
        print(f"{time.time() - self.start:5.0f} s  {what:56} {value:26} {verdict}", flush=True)

    def role(self, name="solver", lr=1e-5, **changes):
        """-> a Policy around the random model, and its Config."""
        cfg = replace(self.cfg, **changes)
        return Policy(name, self.folder(), lr, cfg), cfg

    def folder(self):
        """The random model, in bf16 as published ones are."""
        path = os.path.join(self.work, "model")
        if not os.path.exists(path):
            torch.manual_seed(0)
            config = Qwen3Config(**self.size.shape, tie_word_embeddings=True,
                                 max_position_embeddings=40960)
            with self.device:
                model = Qwen3ForCausalLM(config)
            model.bfloat16().cpu().save_pretrained(path)
            AutoTokenizer.from_pretrained(str(ROOT / "toy/anchor")).save_pretrained(path)
        return path

    def groups(self, policy, cfg, Q, tokens):
        """-> (Q, m) rollouts of random tokens, of half to one and a half of `tokens`, and A."""
        lengths = {"prompt": (self.size.prompt, self.size.prompt),
                   "answer": (tokens // 2, tokens + tokens // 2)}
        return random_groups(policy, cfg, Q, self.size.m, lengths, self.rng)

    def clock(self, function, repeats=1, warm=False):
        """-> seconds of one call, what the last one gave."""
        if warm:
            function()
        self.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            result = function()
        self.wait()
        return (time.perf_counter() - start) / repeats, result

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def free(self):
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def held(self):
        """GB of tensors on the device; 0 on a CPU."""
        return torch.cuda.memory_allocated() / 1e9 if self.cuda else 0.0

    def peak(self):
        return torch.cuda.max_memory_allocated() / 1e9 if self.cuda else 0.0


def roomy():
    """Memory, where there is enough of it for a checkpoint; else the usual place."""
    shm = "/dev/shm"
    return shm if os.path.isdir(shm) and shutil.disk_usage(shm).free > 60e9 else None


def largest(a, b):
    return float((a.detach().float() - b.detach().float()).abs().max())


def cosine(a, b):
    """Of two lists of tensors."""
    return float(influence.cosine(a, b))


# ---------------------------------------------------------------- the device

def rates(b):
    """What this device reaches: every share below is a share of it, not of a data sheet."""
    n = b.size.matrix
    x = torch.randn(n, n, device=b.device, dtype=torch.bfloat16)
    seconds, _ = b.clock(lambda: x @ x, 10, warm=True)
    b.rates["flops"] = 2 * n ** 3 / seconds
    y = torch.empty(n * n * 8, device=b.device)
    seconds, _ = b.clock(lambda: y.mul_(1.0), 10, warm=True)
    # read and written
    b.rates["bytes"] = 2 * 4 * y.numel() / seconds
    host = torch.empty_like(y, device="cpu", pin_memory=b.cuda)
    seconds, _ = b.clock(lambda: y.copy_(host, non_blocking=True), 5, warm=True)
    b.rates["host"] = 4 * y.numel() / seconds


def device_check(b):
    """Before the first tensor, as a role does it."""
    device.prepare(b.device, "plain")
    b.say("machine", torch.cuda.get_device_name() if b.cuda else "CPU")
    b.say("torch, transformers", f"{torch.__version__}, {transformers.__version__}")
    rates(b)
    found = (f"{b.rates['flops'] / 1e12:.1f}  {b.rates['bytes'] / 1e9:.0f}  "
             f"{b.rates['host'] / 1e9:.1f}")
    b.say("bf16 TFLOP/s, GB/s, GB/s from pinned memory", found,
           not b.cuda or b.rates["host"] > 10e9, "10 GB/s: a bus of PCIe 4, pinned")
    if b.cuda:
        b.say("cuDNN's attention is off",
               str(not torch.backends.cuda.cudnn_sdp_enabled()),
               not torch.backends.cuda.cudnn_sdp_enabled(), "it plans anew for every length")
    try:
        torch.empty(10 ** 15, device=b.device)
    except RuntimeError as error:
        b.say("running out of memory is known as that", type(error).__name__,
               device.is_out_of_memory(error), "a rank that does has to end the run")


# ---------------------------------------------------------------- kernels

def kernels(b):
    """Rows of odd lengths, with fewer key heads than query heads, in bf16.

    Outputs are means of values of size 1 and bf16 keeps 8 bits: 2^-6 is four of its steps.
    """
    H, K, D = (b.size.shape[name] for name in
               ("num_attention_heads", "num_key_value_heads", "head_dim"))
    lengths = [b.size.answer + 1, 1, 7, b.size.answer // 3]
    T = sum(lengths)
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, T, heads, D, generator=generator) for heads in (H, K, K, H)]
    *inputs, dy = [x.to(b.device, torch.bfloat16).transpose(1, 2) for x in made]
    for name, window in (("all", None), ("a window", max(lengths) // 2)):
        config = SimpleNamespace(sliding_window=window, layer_types=None)
        model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
        mask = varlen.row_masks(model, lengths, b.device)

        def results(query, key, value):
            leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
            out, _ = varlen.row_attention(*leaves, mask, D ** -0.5)
            out.backward(dy.transpose(1, 2).to(out.dtype))
            return [out, *(x.grad for x in leaves)]

        ours = results(*inputs)
        # fp32 goes row by row through plain attention
        exact = results(*(x.float() for x in inputs))
        d = max(largest(x, y) / float(y.detach().abs().max()) for x, y in zip(ours, exact))
        b.say(f"varlen_attn, {name}: output and gradients, relative", f"{d:.1e}", d < 2 ** -6,
              "2^-6 of the largest: bf16 keeps 8 bits")


# ---------------------------------------------------------------- scores

def scores(b):
    """In fp32 the three ways differ by the order of sums alone. In bf16 each number is off by
    0.4 %, of which most averages out over millions of weights.
    """
    p, cfg = b.role(dtype="fp32", end_to_end="false", tokens_at_once=b.size.tokens_at_once // 8)
    lengths = {"prompt": (b.size.prompt // 4 + 2, b.size.prompt // 2 + 2),
               "answer": (b.size.short // 4, b.size.short)}
    w = make_world(p, cfg, 6, b.size.m, lengths)
    p.optimizer.zero_grad()

    def scored():
        return influence.influence_scores(p, w.answers, w.A, w.g_dev, cfg)[0]

    truth = influence.plain_scores(p, w.answers, w.A, w.g_dev, cfg)
    hooks = scored()
    recomputed, p.recomputed = p.recomputed, []
    blocks = scored()
    p.recomputed = recomputed
    spread = float(truth.std())
    for name, found in (("hooks", hooks), ("blocks", blocks)):
        d = largest(found, truth)
        b.say(f"s_hat fp32, {name} - definition: largest; std of s_hat", f"{d:.1e}  {spread:.1e}",
              d < 0.01 * spread, "a hundredth of what tells questions apart: the order of sums")

    pairs = list(enumerate(w.answers))
    exact, g_exact = old_logps(p, pairs, cfg), influence.dev_gradient(p, w.answers, w.A, cfg)
    p.bf16 = True
    rounded, g_bf16 = old_logps(p, pairs, cfg), influence.dev_gradient(p, w.answers, w.A, cfg)
    low = scored()
    mean, most = difference(exact, rounded)
    b.say("log-probs bf16 - fp32, mean and largest", f"{mean:.4f}  {most:.3f}", mean < 0.03,
          "0.03: a token's loss is then off by 3 %")
    alike = cosine(g_exact, g_bf16)
    b.say("g_dev: cosine of bf16 and fp32", f"{alike:.5f}", alike > 0.99, "0.99: rounding")
    r = float(torch.corrcoef(torch.stack([low, truth]))[0, 1])
    b.say("s_hat bf16 and fp32: correlation, largest difference",
          f"{r:.4f}  {largest(low, truth):.1e}", r > 0.95, "0.95: the order of questions stays")


def difference(a, b):
    """Two {index: (tokens,)} -> mean and largest difference over all tokens."""
    gaps = torch.cat([(a[i] - b[i]).abs() for i in a])
    return float(gaps.mean()), float(gaps.max())


# ---------------------------------------------------------------- rows

def rows(b):
    """The same answers, one to a tree, end to end and side by side, both in bf16: they differ as
    two kernels do, and by no more than bf16 differs from fp32.
    """
    p, cfg = b.role()
    b.say("the model takes rows end to end", str(p.end_to_end), p.end_to_end,
          "else updates are padded")
    groups, A = b.groups(p, cfg, 2, b.size.answer // 2)
    trees = []
    for g, group in enumerate(groups):
        trees += pack(group, g, 1)

    found = {}
    for name, kind in (("end to end", Rows), ("side by side", list)):
        logp, seconds = [], 0.0
        for start in range(0, len(trees), 4):
            some = kind(trees[start:start + 4])
            took, part = b.clock(partial(backward, p, some, A, cfg))
            seconds += took
            logp.append(part)
        gradient = [x.grad for x in p.params]
        p.optimizer.zero_grad()
        found[name] = torch.cat(logp), gradient, seconds
    (logp, g, s), (other, their_g, theirs) = found.values()
    gap, alike = float((logp - other).abs().mean()), cosine(g, their_g)
    b.say("end to end - side by side: mean log-prob, cosine of g", f"{gap:.4f}  {alike:.5f}",
          gap < 0.03 and alike > 0.99, "0.03 and 0.99, as bf16 against fp32")
    b.say("seconds: end to end, side by side", f"{s:.3f}  {theirs:.3f}",
          not b.cuda or s < 1.1 * theirs,
          "less, or no padding was saved")


def backward(p, trees, A, cfg):
    """Gradients of a pass are added up -> its log-probs."""
    loss, _ = pass_loss(p, trees, A, 100.0, cfg)
    loss.backward()
    with torch.no_grad():
        return tree_logps(p, trees, cfg.temperature, cfg)


# ---------------------------------------------------------------- sampling

def prompts_of(b):
    """Ragged."""
    found = []
    for _ in range(b.size.prompts):
        n = b.rng.randint(b.size.prompt // 2 + 1, b.size.prompt + 1)
        found.append([b.rng.randrange(10, 200) for _ in range(n)])
    return found


def sampling(b):
    """A sampler in bf16 and a trainer in bf16 differ by rounding: 0.03 on average, which the
    importance weight w takes care of. It reads all weights once a step, and its rows' caches.
    """
    p, cfg = b.role()
    prompts = prompts_of(b)
    sample(p, prompts[:2], b.size.m, (0,), cfg)
    seconds, once = b.clock(lambda: sample(p, prompts, b.size.m, (1,), cfg))
    again = sample(p, prompts, b.size.m, (1,), cfg)
    drawn = sum(len(x.response) for x in rollouts_of(once))
    b.say("the same tokens twice", str(once == again), once == again,
          "numbers belong to rows; kernels might not repeat themselves")

    mean, most = sampler_trainer(p, once, cfg)
    b.say("sampler - trainer: log-probs, mean and largest", f"{mean:.4f}  {most:.3f}", mean < 0.03,
          "0.03: rounding in bf16")

    theirs, tokens = b.clock(lambda: by_generate(p, prompts, b.size.m, b.size.sampled))
    ratio = (drawn / seconds) / (tokens / theirs)
    b.say("tokens/s: ours, generate, ratio",
          f"{drawn / seconds:.0f}  {tokens / theirs:.0f}  {ratio:.2f}", not b.cuda or ratio > 1,
          "more than transformers' own loop")
    share = bytes_read(b, p, once) / seconds / b.rates["bytes"]
    b.say("share of memory bandwidth", f"{share:.2f}", not b.cuda or share > 0.2,
          "0.2: below it Python is what is waited for; the plan takes 0.6 for long answers")


def sampler_trainer(p, groups, cfg):
    """-> mean and largest difference of what the sampler said and the trainer says."""
    told = {}
    for i, rollout in enumerate(rollouts_of(groups)):
        told[i] = torch.tensor(rollout.logp)
    trained = old_logps(p, list(enumerate(groups)), cfg)
    return difference(told, {i: logp.cpu() for i, logp in trained.items()})


def by_generate(p, prompts, n, tokens):
    """transformers' own loop on the same rows -> how many tokens it drew."""
    rows = []
    for prompt in prompts:
        rows += [prompt] * n
    L = max(map(len, rows))
    ids = torch.tensor([[0] * (L - len(row)) + row for row in rows], device=p.device)
    mask = torch.tensor([[0] * (L - len(row)) + [1] * len(row) for row in rows], device=p.device)
    with p.sampling_model() as model, torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=mask, min_new_tokens=tokens, max_new_tokens=tokens,
            do_sample=True, temperature=0.7, top_k=0, top_p=1.0, pad_token_id=0)
    return out[:, L:].numel()


def bytes_read(b, p, groups):
    """What sampling has to read at least: all weights at every step, and each row's cache."""
    shape = b.size.shape
    of_token = 4 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * shape["head_dim"]
    steps, cells = 0, 0
    for group in groups:
        for x in group:
            n = len(x.response)
            steps = max(steps, n)
            cells += n * len(x.prompt) + n * n // 2
    return steps * 2 * sum(w.numel() for w in p.params) + of_token * cells


# ---------------------------------------------------------------- training

def flops_of(b, p, groups, cfg):
    """FLOPs of the passes over these groups, as the plan counts them; a row end to end looks only
    back.
    """
    s = room.shape_of(p.model.config, "")
    total = 0
    for trees in passes(p, list(enumerate(groups)), cfg):
        lengths = [tree.tokens for tree in trees]
        tokens, squares = sum(lengths), sum(n * n for n in lengths) // 2
        if not isinstance(trees, Rows):
            tokens, squares = len(trees) * max(lengths), len(trees) * max(lengths) ** 2
        targets = sum(tree.predictions for tree in trees)
        total += pass_flops(s, SimpleNamespace(tokens=tokens, squares=squares, targets=targets),
                            cfg)
    return total


def training(b):
    """Shares are of the matrix product above. The plan takes 0.35; with less than 0.2 a run takes
    twice as long as it says.
    """
    p, cfg = b.role()
    groups, A = b.groups(p, cfg, 4, b.size.answer)
    update(p, groups, A, cfg)
    b.free()
    flops = flops_of(b, p, groups, cfg)
    seconds, step = b.clock(lambda: update(p, groups, A, cfg))
    share = flops / seconds / b.rates["flops"]
    b.say("update: tokens/s, share of peak, GB", f"{step['tokens'] / seconds:.0f}  {share:.2f}  "
          f"{b.peak():.1f}", not b.cuda or share > 0.2, "0.2: the plan takes 0.35")

    g_dev = influence.dev_gradient(p, groups, A, cfg)
    asked, A_q = b.groups(p, cfg, 3, b.size.answer)
    influence.influence_scores(p, asked[:1], A_q[:1], g_dev, cfg)
    b.free()
    flops = 0
    for group in asked:
        flops += flops_of(b, p, [group], cfg)
    seconds, (s_hat, _) = b.clock(lambda: influence.influence_scores(p, asked, A_q, g_dev, cfg))
    bare, _ = b.clock(lambda: bare_passes(World(p, cfg, asked, A_q, g_dev)))
    share = flops / seconds / b.rates["flops"]
    fine = bool(s_hat.isfinite().all()) and bool((s_hat != 0).all())
    b.say("scoring: s a question, share of peak, GB",
          f"{seconds / 3:.2f}  {share:.2f}  {b.peak():.1f}",
          fine and (not b.cuda or share > 0.15), "0.15, and a score for every question")
    b.say("scoring over bare passes", f"{seconds / bare:.2f}", not b.cuda or seconds / bare < 1.4,
          "1.4: sums that wait for nothing")


# ---------------------------------------------------------------- who is where

def turns(b):
    """16 bytes a parameter cross the bus at a turn: 12 of a role that has been updated, 4 of one
    that has not.
    """
    (one, cfg), (other, _) = b.role(), b.role("generator")
    groups, A = b.groups(one, cfg, 4, b.size.short)
    update(one, groups, A, cfg)
    if not b.cuda:
        # one place, as if it were two
        one.waiting.apart = other.waiting.apart = True
    before, objects = [x.detach().clone() for x in one.params[:3]], list(map(id, one.params))
    both = b.held()
    take_turns(one, other)
    first, _ = b.clock(other.wake)
    left = b.held()
    seconds, _ = b.clock(one.wake)
    other.wake()
    again, _ = b.clock(one.wake)
    P = sum(x.numel() for x in one.params)
    same = objects == list(map(id, one.params))
    same = same and all(torch.equal(x, y) for x, y in zip(before, one.params))
    b.say("out and in: s at first, later; GB/s", f"{first:.2f}  {again:.2f}  "
          f"{16 * P / again / 1e9:.1f}",
          not b.cuda or 16 * P / again > 5e9, "5 GB/s: pinned memory; pageable has 2 to 4")
    b.say("GB on the device: both roles, one of them", f"{both:.1f}  {left:.1f}",
          not b.cuda or left < 0.6 * both, "the one that waits has left")
    step = update(one, groups, A, cfg)
    counts = {int(state["step"]) for state in one.optimizer.state.values()}
    b.say("unchanged, and an update afterwards", f"{same}  {step['grad_norm']:.3f}",
          same and step["steps"] > 0 and len(counts) == 1, "bit for bit")


@contextlib.contextmanager
def group_of_one(b):
    """A process group of this process alone."""
    words = ranks.group_words(b.device)
    dist.init_process_group(**words, init_method=f"file://{b.work}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shards(b):
    """FSDP2 casts weights once, autocast at every operation: the scores differ as bf16 does."""
    with group_of_one(b):
        plain, cfg = b.role(shard="false")
        cut, _ = b.role(shard="true")
        groups, A = b.groups(plain, cfg, 4, b.size.short)
        for p in (plain, cut):
            update(p, groups, A, cfg)
        found = {}
        for name, p, scoring in (("plain", plain, "auto"), ("alone", cut, "alone"),
                                 ("together", cut, "together")):
            c = replace(cfg, scoring=scoring)
            g_dev = influence.dev_gradient(p, groups, A, c)
            found[name] = influence.influence_scores(p, groups, A, g_dev, c)[0]
        spread = float(found["plain"].std())
        for name in ("alone", "together"):
            d = largest(found[name], found["plain"])
            b.say(f"FSDP2, scored {name} - whole: s_hat; its std", f"{d:.1e}  {spread:.1e}",
                  cut.sharded and d < 0.1 * spread, "a tenth of what tells questions apart: bf16")
        del plain
        b.free()
        away_and_back(b, cut, groups, A, cfg)
        saved(b, cut, groups, A, cfg)


def away_and_back(b, cut, groups, A, cfg):
    if not b.cuda:
        cut.waiting.apart = True
    held = b.held()
    cut.move("cpu", awake=False)
    left = b.held()
    cut.move(cut.device, awake=True)
    step = update(cut, groups, A, cfg)
    b.say("slices to the host and back: GB freed; an update",
           f"{held - left:.1f}  {step['grad_norm']:.3f}",
           step["steps"] > 0 and (not b.cuda or left < 0.3 * held), "weights and moments have left")


def saved(b, cut, groups, A, cfg):
    run = os.path.join(b.work, "run")
    os.makedirs(run)
    seconds, _ = b.clock(lambda: checkpoint.save(run, {"solver": cut}, {"iteration": 1}))
    kept = [shard.local(x).clone() for x in checkpoint.policy_tensors(cut).values()]
    update(cut, groups, A, cfg)
    checkpoint.load(*checkpoint.find(run), {"solver": cut})
    now = [shard.local(x) for x in checkpoint.policy_tensors(cut).values()]
    same = all(torch.equal(x, y) for x, y in zip(kept, now))
    step = update(cut, groups, A, cfg)
    b.say("checkpoint: s to write, the same after loading", f"{seconds:.1f}  {same}",
           same and step["steps"] > 0, "bit for bit, and it goes on from there")


# ---------------------------------------------------------------- whole runs

def run_of(b, words):
    """train.py in this process -> its lines of metrics."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = train.main(flags.parse(words))
    if code:
        raise RuntimeError(f"train.py ended with {code}: {out.getvalue()[-300:]}")


def resume(b):
    """The embedded world on this device. On a CPU two runs are equal; CUDA adds up in any order."""
    small = ["--device", b.device.type, "--docs_per_step", "1", "--questions_per_doc", "4",
             "--answers_per_question", "4", "--minibatch_rows", "8", "--eval_every", "9",
             "--max_response_tokens", "48", "--dev", few(b, "dev", 8), "--test", few(b, "test", 8)]
    whole, parts = (os.path.join(b.work, name) for name in ("whole", "parts"))
    run_of(b, [*small, "--iterations", "2", "--run", whole])
    run_of(b, [*small, "--iterations", "1", "--run", parts])
    run_of(b, ["--resume", parts, "--iterations", "2"])

    ends = []
    for run in (whole, parts):
        with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
        ends.append((len(lines), {key: value for key, value in lines[-1].items()
                                  if key not in ("seconds", "peak_memory_mb")}))
    same = ends[0] == ends[1]
    counts = ends[0][0], ends[1][0]
    b.say("train.py: two at once, one and one more; the same", f"{counts}  {same}",
          counts == (2, 2) and (b.cuda or same),
          "two iterations each; on a CPU every number")


def few(b, name, n):
    """The first items of a file of the embedded world -> a file of its own."""
    path = os.path.join(b.work, f"{name}.json")
    items = json.loads((ROOT / f"toy/{name}.json").read_text(encoding="utf-8"))[:n]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(items, f)
    return path


def vllm(b):
    """Its kernels are others: its log-probs may differ from the trainer's twice as much as ours."""
    if not importlib.util.find_spec("vllm"):
        b.say("vLLM", "not installed")
        return
    p, cfg = b.role(sampler="vllm")
    prompts = prompts_of(b)
    sample(p, prompts[:1], 1, (0,), cfg)
    seconds, found = b.clock(lambda: sample(p, prompts, b.size.m, (1,), cfg))
    drawn = sum(len(x.response) for x in rollouts_of(found))
    mean, most = sampler_trainer(p, found, cfg)
    b.say("tokens/s; its log-probs - the trainer's, mean, largest",
          f"{drawn / seconds:.0f}  {mean:.4f}  {most:.3f}", mean < 0.06, "0.06: other kernels")


# ---------------------------------------------------------------- all of it

def one(b, name, function):
    """A check; what it raises is a line."""
    b.check = name
    b.free()
    if time.time() - b.start > b.seconds:
        b.say("skipped", "no time left", False, "a faster disk, or more --seconds")
        return
    try:
        function(b)
    except Exception as error:
        traceback.print_exc()
        why = " ".join(str(error).split())[:60]
        b.say("failed", f"{type(error).__name__}: {why}", False, "it to run through")


def left(done, b):
    """Seconds still to come, by what the checks so far took of what was guessed."""
    guessed = sum(CHECKS[name] for name in done)
    pace = (time.time() - b.start) / guessed if guessed else 1.0
    return pace * sum(seconds for name, seconds in CHECKS.items() if name not in done)


FUNCTIONS = {"device": device_check, "kernels": kernels, "scores": scores, "rows": rows,
             "sampling": sampling, "training": training, "turns": turns, "shards": shards,
             "resume": resume, "vllm": vllm}


def table(lines):
    yield f"{'check':9} {'what':54} {'value':28} verdict"
    for x in lines:
        why = f"   wanted: {x['wanted']}" if x["verdict"] == "LOOK" else ""
        yield f"{x['check']:9} {x['what']:54} {x['value']:28} {x['verdict']}{why}"


def check(size, device, seconds, path):
    """-> the lines of the table, which is printed and written to `path`."""
    b = Bench(size, device, seconds)
    try:
        for i, (name, function) in enumerate(FUNCTIONS.items()):
            about = left(list(FUNCTIONS)[:i], b)
            print(f"\n[{i + 1}/{len(FUNCTIONS)}] {name}; about {about:.0f} s left", flush=True)
            one(b, name, function)
    finally:
        shutil.rmtree(b.work, ignore_errors=True)
    found = {"seconds": round(time.time() - b.start, 1), "rates": b.rates, "lines": b.lines}
    with open(path, "w", encoding="utf-8") as f:
        json.dump(found, f, indent=1)
    looks = sum(x["verdict"] == "LOOK" for x in b.lines)
    print("\n" + "\n".join(table(b.lines)))
    print(f"\n{found['seconds']:.0f} s; {looks} to look at; also in {path}")
    return b.lines


def main(argv=None):
    parser = Parser("python -m tools.gpu_check", __doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a toy size on a CPU")
    parser.add_argument("--seconds", type=float, default=440,
                        help="no check begins after so many (default 440)")
    parser.add_argument("--json", default="gpu-check.json",
                        help="where the table goes too (default gpu-check.json, in this folder)")
    args = parser.parse_args(argv)
    if not args.tiny and not torch.cuda.is_available():
        raise InputError("no GPU: torch sees none; --tiny tries the script itself on a CPU")
    device = torch.device("cpu") if args.tiny else torch.device("cuda", 0)
    if args.tiny:
        torch.set_num_threads(1)
    lines = check(TINY if args.tiny else FULL, device, args.seconds, args.json)
    return int(any(x["verdict"] == "LOOK" for x in lines))


if __name__ == "__main__":
    sys.exit(run_script(main))
