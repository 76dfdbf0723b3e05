"""How fast the two expensive stages are, against the plain way of doing the same and against the least that must be done.

    python bench.py                                     # the toy anchor, answers as long as the toy world's
    python bench.py --size 20m --json bench.json        # 20 million random weights, prompts of about 120 tokens, answers of 20 to 60
    python bench.py --model PATH --lengths long         # any model folder

There is no equation here: nothing is computed that influence.py and policy.py do not define. What is compared with what:

    stage       variant     what runs
    influence   ours        influence_scores: packed rows, hooks that drop every gradient as soon as it is final
                plain       one padded row per answer, the model's own logits, log-softmax everywhere, g_q whole, then a pass over all parameters
                bare        forward and backward over the same packed rows and nothing else: no score can cost less
    rollouts    ours        sample: each prompt read once, finished rows leave, waiting prompts join; keeps log-probs as well
                generate    model.generate on left-padded batches of as many rows; a batch ends when its last row ends

One process. Variants take turns and a different one begins each round, so that a machine that slows down slows all of them. An untimed first round
compares the results, since only equal computations may be compared in speed. Times are medians; a ratio is one of medians.

Tokens are random, lengths are not. Answers to be scored are uniform within LENGTHS. Rollouts are ragged: drawn at a temperature at which all tokens are
equally likely, one token in 24 being a stop, so lengths are geometric, most of them short, cut at 128. generate is told where each of our rows ended and
ends it there. Only response tokens count, never padding.

Memory is what torch's profiler counts: the most bytes in use at one time beyond those before, while the question with the most tokens is scored.

Not measured: GPUs, several ranks, bf16, the two updates, start-up; nor whether scores or texts are any good (tests/, evaluate.py).
"""
import argparse
import copy
import json
import os
import platform
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import median

import torch
import transformers

import toy
from config import TOY, Config
from data import InputError, Rollout
from influence import Gamma, dev_gradient, influence_scores, second_moment
from policy import Policy, batch_loss, mean_length, micro_batches, old_logps, sample, token_loss, update

LENGTHS = {"toy": dict(prompt=(24, 28), answer=(5, 7)), "long": dict(prompt=(100, 140), answer=(20, 60))}       # tokens, from and to
SIZES = {"20m": dict(vocab_size=16384, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
                     num_key_value_heads=3, head_dim=64, max_position_embeddings=1024, tie_word_embeddings=True)}
FLAT = 1000.0                           # the temperature of the rollouts


# ---------------------------------------------------------------- what is measured on

@dataclass
class World:
    policy: Policy                      # its AdamW has moved, so v is not empty
    cfg: Config
    answers: list                       # (Q, m) rollouts of random tokens
    A: torch.Tensor                     # (Q, m) advantages, no row of zeros
    g_dev: list                         # like policy.params


def make_world(policy, cfg, Q, m, lengths, seed=0):
    rng, cfg = random.Random(seed), replace(cfg, minibatch_rows=4 * m)
    draw = lambda n: [rng.randrange(policy.model.config.vocab_size) for _ in range(n)]

    def groups(G):
        """-> (G, m) rollouts with the model's own log-probs, as if it had just sampled them, and (G, m) advantages."""
        silent = [[Rollout(prompt, draw(rng.randint(*lengths["answer"])), [], True, "") for _ in range(m)]
                  for prompt in [draw(rng.randint(*lengths["prompt"])) for _ in range(G)]]
        logps = old_logps(policy, list(enumerate(silent)), cfg)
        A = torch.tensor([[rng.gauss(0, 1) for _ in range(m)] for _ in range(G)])
        return [[replace(x, logp=logps[g * m + i].tolist()) for i, x in enumerate(group)] for g, group in enumerate(silent)], A - A.mean(1, True)
    for _ in range(2):
        update(policy, *groups(4), cfg)
    g_dev = dev_gradient(policy, *groups(4), cfg)
    return World(policy, cfg, *groups(Q), g_dev)


def random_model(folder, size):
    """Writes a Qwen3 of random weights and a tokenizer, so that it comes in through the same door as every model."""
    torch.manual_seed(0)
    tokenizer = toy.make_tokenizer()
    config = transformers.Qwen3Config(**SIZES[size], bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# ---------------------------------------------------------------- the other ways

def padded(rows, left=False):
    """Lists of tokens -> (R, L) ids and (R, L) mask."""
    L = max(map(len, rows))
    fill = lambda row, gap: gap + row if left else row + gap
    return (torch.tensor([fill(row, [0] * (L - len(row))) for row in rows]),
            torch.tensor([fill([1] * len(row), [0] * (L - len(row))) for row in rows]))


def padded_loss(w, group, A, denominator):
    """m answers, (m,) advantages -> scalar: one row per answer through the model's own logits."""
    ids, mask = padded([x.prompt + x.response for x in group])                                                          # (m, L)
    is_answer = mask[:, 1:].bool() & (torch.arange(1, mask.shape[1]) >= len(group[0].prompt))                           # (m, L-1)
    logits = w.policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits                                 # (m, L, V)
    logp = torch.log_softmax(logits[:, :-1].float() / w.cfg.temperature, dim=-1).gather(2, ids[:, 1:, None])[..., 0]    # (m, L-1)
    logp, A_token = logp[is_answer], A[:, None].expand_as(logp)[is_answer]                                              # (tokens,)
    sampler = torch.tensor([lp for x in group for lp in x.logp])
    return token_loss(logp, logp.detach(), sampler, A_token, w.cfg.clip, w.cfg.dual_clip, w.cfg.tis_cap).sum() / denominator


def plain_scores(w):
    """World -> (Q,) s_hat by the definition."""
    scores, Tbar = [], mean_length(w.answers)
    norm_dev = torch.stack([g.square().sum() for g in w.g_dev]).sum().sqrt()
    for q, group in enumerate(w.answers):
        padded_loss(w, group, w.A[q], len(group) * Tbar).backward()
        dots, squares = [], []
        for p, g in zip(w.policy.params, w.g_dev):
            direction = Gamma(p.grad, *second_moment(w.policy.optimizer, p), w.cfg.beta2, w.cfg.adam_eps).flatten()
            dots.append(torch.dot(g.flatten(), direction))
            squares.append(torch.dot(direction, direction))
            p.grad = None
        scores.append(float(torch.stack(dots).sum() / (norm_dev * torch.stack(squares).sum().sqrt())))
    return torch.tensor(scores)


def bare_passes(w):
    """Forward and backward of every question over its packed rows; the gradients are thrown away."""
    for q, group in enumerate(w.answers):
        for rows in micro_batches(w.policy, [(q, group)], w.cfg):
            batch_loss(w.policy, rows, w.A, len(group) * mean_length(w.answers), w.cfg)[0].backward()
        for p in w.policy.params:
            p.grad = None


@torch.no_grad()
def generate(policy, prompts, ends, rows_at_once, temperature):
    """R prompts and the R lengths to stop at -> R lists of tokens, from transformers' own loop; like sample, it decodes them too."""
    draws = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
    responses = []
    for start in range(0, len(prompts), rows_at_once):
        ids, mask = padded(prompts[start:start + rows_at_once], left=True)                                              # (rows, L)
        end = torch.tensor(ends[start:start + rows_at_once])
        ended = lambda so_far, scores, **_: so_far.shape[1] - ids.shape[1] >= end                                       # (rows,)
        out = policy.model.generate(input_ids=ids, attention_mask=mask, use_cache=True, max_new_tokens=int(end.max()), pad_token_id=0, **draws,
                                    eos_token_id=policy.model.config.vocab_size, stopping_criteria=[ended])             # an EOS that never comes
        responses += [row[:n] for row, n in zip(out[:, ids.shape[1]:].tolist(), end.tolist())]
    policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
    return responses


# ---------------------------------------------------------------- the stages

@dataclass
class Stage:
    name: str
    tokens: int                         # response tokens that every variant works through
    variants: dict                      # name: function of nothing
    targets: list                       # (numerator, denominator, "at least" or "at most", number): ratios of median times
    difference: object                  # {variant: result} -> how far apart the results are; 0 or rounding


def influence_stage(w, args):
    variants = {"ours": lambda: influence_scores(w.policy, w.answers, w.A, w.g_dev, w.cfg), "plain": lambda: plain_scores(w), "bare": lambda: bare_passes(w)}
    return Stage("influence", sum(len(x.response) for group in w.answers for x in group), variants,
                 [("plain", "ours", "at least", 3.0), ("ours", "bare", "at most", 1.25)], lambda x: float((x["ours"] - x["plain"]).abs().max()))


def rollout_stage(w, args, temperature=FLAT, mean=24, limit=128):
    policy, prompts, m = copy.copy(w.policy), [group[0].prompt for group in w.answers], len(w.answers[0])
    policy.stop_ids = list(range(policy.model.config.vocab_size // mean))
    cfg = replace(w.cfg, rows_at_once=args.rows, max_response_tokens=limit)
    ours = lambda: [x.response for group in sample(policy, prompts, m, ("bench",), cfg, temperature, top_p=1.0, top_k=0) for x in group]
    ends = [len(response) for response in ours()]
    variants = {"ours": ours, "generate": lambda: generate(policy, [p for p in prompts for _ in range(m)], ends, args.rows, temperature)}
    return Stage("rollouts", sum(ends), variants, [("generate", "ours", "at least", 1.5)],
                 lambda x: sum(abs(len(a) - n) for results in x.values() for a, n in zip(results, ends)))


STAGES = [influence_stage, rollout_stage]


def measure(stage, repeats):
    """Stage -> {"seconds": {variant: list}, "ratios": list, ...}: one round to compare results, then rounds to time."""
    difference = stage.difference({name: run() for name, run in stage.variants.items()})
    seconds, names = {name: [] for name in stage.variants}, list(stage.variants)
    for i in range(repeats):
        for name in names[i % len(names):] + names[:i % len(names)]:
            start = time.perf_counter()
            stage.variants[name]()
            seconds[name].append(time.perf_counter() - start)
    ratios = [{"ratio": f"{a} / {b}", "value": median(seconds[a]) / median(seconds[b]), "target": f"{word} {number}"} for a, b, word, number in stage.targets]
    return {"tokens": stage.tokens, "difference": difference, "seconds": seconds, "ratios": ratios}


# ---------------------------------------------------------------- memory

def peak_bytes(run):
    """The most bytes in use at one time while `run` runs, beyond those before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def memory(w):
    """Bytes that scoring takes beyond weights and Adam, and what it may take: g_dev, the largest tensor, and passes that drop each gradient at once."""
    q = max(range(len(w.answers)), key=lambda q: sum(len(x.response) for x in w.answers[q]))
    one = replace(w, answers=[w.answers[q]], A=w.A[q:q + 1])
    g_dev, largest = (f(g.nbytes for g in w.g_dev) for f in (sum, max))
    scoring = peak_bytes(lambda: influence_scores(one.policy, one.answers, one.A, one.g_dev, one.cfg))
    hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in w.policy.params]
    passes = peak_bytes(lambda: bare_passes(one))
    for hook in hooks:
        hook.remove()
    return {"used": g_dev + scoring, "allowed": g_dev + largest + passes, "g_dev": g_dev, "largest tensor": largest, "passes": passes}


# ---------------------------------------------------------------- the command

def machine():
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")] if os.path.exists("/proc/cpuinfo") else []
    return {"cpu": (cpu or [platform.processor()])[0], "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
            "torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=TOY["model"], help="model folder or hub id")
    parser.add_argument("--size", choices=SIZES, help="random weights of this size instead")
    parser.add_argument("--lengths", choices=LENGTHS, help="toy, and long with --size, unless given")
    for name, default in [("questions", 32), ("answers", 8), ("repeats", 5), ("threads", 1), ("rows", 64)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cfg = Config(device="cpu", dtype="fp32")
    with tempfile.TemporaryDirectory() as folder:
        if args.size:
            random_model(folder, args.size)
        policy = Policy("solver", folder if args.size else args.model, 1e-5, cfg)
    lengths = args.lengths or ("long" if args.size else "toy")
    w = make_world(policy, cfg, args.questions, args.answers, LENGTHS[lengths])
    report = {"machine": machine(), "settings": vars(args) | {"lengths": lengths, "parameters": sum(p.numel() for p in policy.params)}, "stages": {}}
    print(report["machine"], report["settings"], sep="\n")
    for make_stage in STAGES:
        stage = make_stage(w, args)
        result = report["stages"][stage.name] = measure(stage, args.repeats)
        print(f"\n{stage.name}: {stage.tokens} response tokens, results differ by {result['difference']:.1e}")
        for name, seconds in result["seconds"].items():
            print(f"  {name:17}{1000 * median(seconds):10.0f} ms{stage.tokens / median(seconds):10.0f} tokens/s")
        for ratio in result["ratios"]:
            print(f"  {ratio['ratio']:17}{ratio['value']:10.2f}     target {ratio['target']}")
    report["memory"] = memory(w)
    print("\nmemory while scoring, MB beyond weights and Adam: " + ", ".join(f"{name} {n / 2 ** 20:.1f}" for name, n in report["memory"].items()))
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=2)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
