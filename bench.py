"""How fast the two expensive stages are, against the plain way of doing the same and against the least that must be done.

    python bench.py                                     # the toy anchor, answers as long as the toy world's
    python bench.py --size 20m --json bench.json        # 20 million random weights, prompts of about 120 tokens, answers of 20 to 60

There is no equation here: nothing is computed that influence.py and policy.py do not define. What is compared:

    influence   ours       influence_scores: packed rows, hooks that drop every gradient as soon as it is final
                plain      one padded row per answer, log-softmax of all logits, g_q whole, then a pass over all parameters
                bare       forward and backward over the same packed rows and nothing else: no score can cost less
    rollouts    ours       sample: each prompt read once, finished rows leave, waiting prompts join; keeps log-probs as well
                generate   model.generate on left-padded batches of as many rows; a batch ends when its last row ends

Variants take turns in one process, a different one first in each round, so that a machine that slows down slows all of them. Times are
medians; a ratio is one of medians. A first round, not timed, compares the results, since only equal computations may be compared in speed:
the scores, and the lengths of the rollouts, which are drawn (that greedy ones are the same tokens is shown in tests/test_bench.py).

Tokens are random; lengths are chosen. Answers to be scored are uniform within LENGTHS. Rollouts are ragged: geometric with mean 24, so most
are short, and cut at 128. generate is told where each of our rows ended and ends it there. Only response tokens count, never padding.

Memory is what torch's profiler counts: the most bytes in use at one time beyond those before, for the question with the most tokens.

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
from torch.nn.utils.rnn import pad_sequence

import toy
from config import TOY, Config
from data import InputError, Rollout
from influence import Gamma, dev_gradient, influence_scores, second_moment
from policy import Policy, batch_loss, mean_length, micro_batches, old_logps, sample, token_loss, update

LENGTHS = {"toy": dict(prompt=(24, 28), answer=(5, 7)), "long": dict(prompt=(100, 140), answer=(20, 60))}           # tokens, from and to
SIZES = {"20m": dict(vocab_size=16384, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
                     num_key_value_heads=3, head_dim=64, max_position_embeddings=1024, tie_word_embeddings=True)}


# ---------------------------------------------------------------- what is measured on

@dataclass
class World:
    policy: Policy      # its AdamW has moved, so v is not empty
    cfg: Config
    answers: list       # (Q, m) rollouts of random tokens
    A: torch.Tensor     # (Q, m) advantages, no row of zeros
    g_dev: list         # like policy.params


def random_groups(policy, cfg, G, m, lengths, rng):
    """-> (G, m) rollouts with the model's own log-probs, as if it had just sampled them, and (G, m) advantages."""
    draw = lambda kind: [rng.randrange(policy.model.config.vocab_size) for _ in range(rng.randint(*lengths[kind]))]
    groups = [[Rollout(prompt, draw("answer"), [], True, "") for _ in range(m)] for prompt in [draw("prompt") for _ in range(G)]]
    logps = old_logps(policy, list(enumerate(groups)), cfg)
    for i, rollout in enumerate(rollout for group in groups for rollout in group):
        rollout.logp = logps[i].tolist()
    A = torch.tensor([[rng.gauss(0, 1) for _ in range(m)] for _ in range(G)])
    return groups, A - A.mean(dim=1, keepdim=True)


def make_world(policy, cfg, Q, m, lengths, seed=0):
    """Two updates and g_dev from other rollouts, then the Q questions to be scored."""
    cfg, rng = replace(cfg, minibatch_rows=4 * m), random.Random(seed)
    for _ in range(2):
        update(policy, *random_groups(policy, cfg, 4, m, lengths, rng), cfg)
    g_dev = dev_gradient(policy, *random_groups(policy, cfg, 4, m, lengths, rng), cfg)
    return World(policy, cfg, *random_groups(policy, cfg, Q, m, lengths, rng), g_dev)


# ---------------------------------------------------------------- the other ways

def padded(rows, side="right"):
    """Lists of tokens -> (R, L) ids, (R, L) mask."""
    fill = lambda lists: pad_sequence([torch.tensor(x) for x in lists], batch_first=True, padding_side=side)
    return fill(rows), fill([[1] * len(row) for row in rows])


def padded_loss(w, group, A, denominator):
    """m answers, (m,) advantages -> scalar: one row per answer through the model's own logits."""
    ids, mask = padded([x.prompt + x.response for x in group])                                                      # (m, L)
    is_answer = mask[:, 1:].bool() & (torch.arange(1, mask.shape[1]) >= len(group[0].prompt))                       # (m, L-1)
    logits = w.policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits                             # (m, L, V)
    logp = torch.log_softmax(logits[:, :-1] / w.cfg.temperature, dim=-1).gather(2, ids[:, 1:, None])[..., 0]        # (m, L-1)
    logp, A_token = logp[is_answer], A[:, None].expand_as(logp)[is_answer]                                          # (tokens,)
    sampler = torch.tensor([lp for x in group for lp in x.logp])
    return token_loss(logp, logp.detach(), sampler, A_token, w.cfg.clip, w.cfg.dual_clip, w.cfg.tis_cap).sum() / denominator


def plain_scores(w):
    """World -> (Q,) s_hat by the definition."""
    s_hat, norm_dev = torch.zeros(len(w.answers)), torch.stack([g.square().sum() for g in w.g_dev]).sum().sqrt()
    for q, group in enumerate(w.answers):
        padded_loss(w, group, w.A[q], len(group) * mean_length(w.answers)).backward()
        sums = torch.zeros(2)                                                           # <g_dev, Gamma>, |Gamma|^2
        for p, g in zip(w.policy.params, w.g_dev):
            direction = Gamma(p.grad, *second_moment(w.policy.optimizer, p), w.cfg.beta2, w.cfg.adam_eps).flatten()
            sums += torch.stack([torch.dot(g.flatten(), direction), torch.dot(direction, direction)])
            p.grad = None
        s_hat[q] = sums[0] / (norm_dev * sums[1].sqrt())
    return s_hat


def bare_passes(w):
    """Forward and backward of every question over its packed rows; the gradients are thrown away."""
    for q, group in enumerate(w.answers):
        for rows in micro_batches(w.policy, [(q, group)], w.cfg):
            batch_loss(w.policy, rows, w.A, len(group) * mean_length(w.answers), w.cfg)[0].backward()
        for p in w.policy.params:
            p.grad = None


def generate(policy, prompts, ends, rows_at_once, temperature):
    """R prompts and the R lengths to stop at -> R lists of tokens, from transformers' own loop. Decodes them too, as sample does."""
    draws = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
    responses = []
    for start in range(0, len(prompts), rows_at_once):
        ids, mask = padded(prompts[start:start + rows_at_once], side="left")                                        # (rows, L)
        end = torch.tensor(ends[start:start + rows_at_once])
        ended = lambda so_far, scores, **_: so_far.shape[1] - ids.shape[1] >= end                                   # (rows,)
        never = policy.model.config.vocab_size                                          # no such token
        out = policy.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=int(end.max()), stopping_criteria=[ended],
                                    eos_token_id=never, pad_token_id=0, **draws)
        responses += [row[:n] for row, n in zip(out[:, ids.shape[1]:].tolist(), end.tolist())]
    policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
    return responses


# ---------------------------------------------------------------- the stages: a name and its variants, each a function of nothing

@dataclass
class Stage:
    name: str
    tokens: int         # response tokens that every variant works through
    variants: dict      # name: function
    targets: list       # (numerator, denominator, "at least" or "at most", number): ratios of median times
    difference: object  # {variant: result} -> how far apart the results are: 0, or rounding


def influence_stage(w, args):
    return Stage("influence", sum(len(x.response) for group in w.answers for x in group),
                 {"ours": lambda: influence_scores(w.policy, w.answers, w.A, w.g_dev, w.cfg)[0],
                  "plain": lambda: plain_scores(w),
                  "bare": lambda: bare_passes(w)},
                 [("plain", "ours", "at least", 3.0), ("ours", "bare", "at most", 1.25)],
                 lambda results: float((results["ours"] - results["plain"]).abs().max()))


def rollout_stage(w, args, temperature=1000.0, mean=24, limit=128):
    """At temperature 1000 all tokens are equally likely, whatever the weights."""
    policy, prompts, m = copy.copy(w.policy), [group[0].prompt for group in w.answers], len(w.answers[0])
    policy.stop_ids = list(range(policy.model.config.vocab_size // mean))
    cfg = replace(w.cfg, rows_at_once=args.rows, max_response_tokens=limit)
    ours = lambda: [x.response for group in sample(policy, prompts, m, ("bench",), cfg, temperature, top_p=1.0, top_k=0) for x in group]
    ends = [len(response) for response in ours()]                                           # the same in every run
    return Stage("rollouts", sum(ends),
                 {"ours": ours, "generate": lambda: generate(policy, [p for p in prompts for _ in range(m)], ends, args.rows, temperature)},
                 [("generate", "ours", "at least", 1.5)],
                 lambda results: sum(abs(len(row) - n) for rows in results.values() for row, n in zip(rows, ends)))


STAGES = [influence_stage, rollout_stage]


def measure(stage, repeats):
    """Stage -> {"tokens", "difference", "seconds": {variant: list}, "ratios": list}."""
    difference = stage.difference({name: run() for name, run in stage.variants.items()})
    seconds, names = {name: [] for name in stage.variants}, list(stage.variants)
    for i in range(repeats):
        for name in names[i % len(names):] + names[:i % len(names)]:
            start = time.perf_counter()
            stage.variants[name]()
            seconds[name].append(time.perf_counter() - start)
    ratios = [{"ratio": f"{a} / {b}", "value": median(seconds[a]) / median(seconds[b]), "target": f"{word} {number}"}
              for a, b, word, number in stage.targets]
    return {"tokens": stage.tokens, "difference": difference, "seconds": seconds, "ratios": ratios}


# ---------------------------------------------------------------- memory

def peak_bytes(run):
    """The most bytes in use at one time while `run` runs, beyond those before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def memory(w):
    """Bytes of scoring beyond weights and Adam: used, and allowed = g_dev + largest tensor + passes that drop each gradient at once."""
    q = max(range(len(w.answers)), key=lambda q: sum(len(x.response) for x in w.answers[q]))
    one = replace(w, answers=[w.answers[q]], A=w.A[q:q + 1])
    scoring = peak_bytes(lambda: influence_scores(one.policy, one.answers, one.A, one.g_dev, one.cfg))
    hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in w.policy.params]
    passes = peak_bytes(lambda: bare_passes(one))
    for hook in hooks:
        hook.remove()
    g_dev, largest = sum(g.nbytes for g in w.g_dev), max(g.nbytes for g in w.g_dev)
    return {"used": g_dev + scoring, "allowed": g_dev + largest + passes, "g_dev": g_dev, "largest tensor": largest, "passes": passes}


# ---------------------------------------------------------------- the command

def machine():
    lines = open("/proc/cpuinfo").readlines() if os.path.exists("/proc/cpuinfo") else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
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
    args.lengths = args.lengths or ("long" if args.size else "toy")
    torch.set_num_threads(args.threads)
    cfg = Config(device="cpu", dtype="fp32")
    with tempfile.TemporaryDirectory() as folder:
        if args.size:                                               # through a folder, the door of every model
            torch.manual_seed(0)
            transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES[args.size])).save_pretrained(folder)
            toy.make_tokenizer().save_pretrained(folder)
        policy = Policy("solver", folder if args.size else args.model, 1e-5, cfg)
    w = make_world(policy, cfg, args.questions, args.answers, LENGTHS[args.lengths])
    model = {"model": args.size or os.path.basename(os.path.normpath(args.model)), "parameters": sum(p.numel() for p in policy.params)}
    report = {"machine": machine(), "settings": {k: x for k, x in (vars(args) | model).items() if k != "json"}, "stages": {}}
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
    parts = ", ".join(f"{name} {n / 2 ** 20:.1f}" for name, n in report["memory"].items())
    print(f"\nmemory while scoring, MB beyond weights and Adam: {parts}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=2)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
