"""Memory of a loss, forward and backward, as sequences and the vocabulary grow: what keeps it bounded, and that it changes no number.

    python bench_memory.py                          # a tiny model, 4,096 + 8,192 tokens, 151,936 words: about 10 minutes of one core, 8 GB
    python bench_memory.py --prompts 256 --responses 256,512 --vocabularies 1024                                        # seconds

There is no equation here; the loss is policy.batch_loss on one group of rollouts of random tokens, the model has two layers of 64. What is
bounded, with L tokens in a row, T of them responses, V words:

    logits      4 T V bytes, about three times over; cfg.logp_chunk positions at a time and once more in backward: 4 chunk V instead
    mask        4 L L bytes: in every layer where attention is given booleans, once where it is given numbers, never where it is causal
    scores      4 L L bytes per head: never made, since torch's CPU kernel is the flash one, with a mask too (`kernels` lists what ran)
    rows        cfg.tokens_at_once: rows that do not fit into a pass go through one after the other

    line        what is compared                                            columns
    lengths     one answer: log-probs in chunks, and all at once            MB of logits, peak MB of both, largest difference of gradients
    packing     four answers packed into one row, and a row for each        peak MB, passes, MB of one mask
    budget      four rows in one pass, and one by one                       peak MB, passes

Peaks are bytes beyond weights and gradients, as torch's profiler counts them (bench.peak_bytes). Differences of gradients are relative to
the largest gradient. Logits of 8,192 tokens over 151,936 words, all at once, would take some 15 GB: a pass of which four times the logits
would exceed --limit is not run, and says so.

Not measured: GPUs, where torch picks among other kernels; whole models, whose activations plan.py computes.
"""
import argparse
import itertools
import json
import random
import tempfile
import time
from dataclasses import replace

import torch
import transformers

import toy
from baselines import random_groups
from bench import machine, peak_bytes
from config import Config
from data import run_script
from policy import Policy, batch_loss, micro_batches

GB, MB = 2 ** 30, 2 ** 20
SHAPE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16)


def lengths(prompt, answer):
    return {"prompt": (prompt, prompt), "answer": (answer, answer)}


def tiny_policy(V, cfg, longest):
    """Random weights: two layers of 64, V words, head and embedding one tensor."""
    torch.manual_seed(0)
    shape = transformers.Qwen3Config(**SHAPE, vocab_size=V, max_position_embeddings=longest, tie_word_embeddings=True)
    with tempfile.TemporaryDirectory() as folder:
        transformers.Qwen3ForCausalLM(shape).save_pretrained(folder)
        toy.make_tokenizer().save_pretrained(folder)
        return Policy("solver", folder, 1e-5, cfg)


def loss_and_gradients(policy, groups, A, cfg):
    """One forward and backward over all micro-batches -> (loss, number of micro-batches); gradients stay in .grad."""
    passes = micro_batches(policy, list(enumerate(groups)), cfg)
    total = 0.0
    for rows in passes:
        loss, _ = batch_loss(policy, rows, A, 1000.0, cfg)
        loss.backward()
        total += float(loss.detach())
    return total, len(passes)


def one_pass(policy, groups, A, cfg):
    """-> {"peak", "seconds", "loss", "passes"} and the gradients; .grad holds zeros before, so that gradients are not counted."""
    for p in policy.params:
        p.grad = torch.zeros_like(p)
    found, start = {}, time.perf_counter()
    found["peak"] = peak_bytes(lambda: found.update(zip(("loss", "passes"), loss_and_gradients(policy, groups, A, cfg))))
    gradients = [p.grad for p in policy.params]
    policy.optimizer.zero_grad(set_to_none=True)
    return found | {"seconds": time.perf_counter() - start}, gradients


def distance(a, b):
    """Largest difference of two lists of gradients, relative to the largest gradient."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b)) / max(float(y.abs().max()) for y in b)


def compare(policy, groups, A, usual, other, allowed=True):
    """One loss at two settings of the config -> {"usual", "other", and how far they differ}; other is None where not allowed."""
    ours, g_ours = one_pass(policy, groups, A, usual)
    if not allowed:
        return {"usual": ours, "other": None}
    theirs, g_theirs = one_pass(policy, groups, A, other)
    return {"usual": ours, "other": theirs, "gradients differ by": distance(g_ours, g_theirs),
            "losses differ by": abs(ours["loss"] - theirs["loss"])}


# ---------------------------------------------------------------- the tables

def by_length_and_vocabulary(args, cfg):
    """One answer to one prompt: chunked log-probs against unchunked, for every length and vocabulary."""
    table = []
    for V, prompt, response in itertools.product(args.vocabularies, args.prompts, args.responses):
        policy, logits = tiny_policy(V, cfg, prompt + response), 4 * response * V
        groups, A = random_groups(policy, cfg, 1, 1, lengths(prompt, response), random.Random(0))
        unchunked, fits = replace(cfg, logp_chunk=response), 4 * logits < args.limit * GB
        result = compare(policy, groups, A + 1, cfg, unchunked, fits)       # A + 1: one answer alone has A = 0
        table.append({"vocabulary": V, "prompt": prompt, "response": response, "logits": logits} | result)
        print(line_of(table[-1]), flush=True)
    return table


def line_of(row):
    mb = lambda n: f"{n / MB:9,.0f}"
    other = "   (not run)" if row["other"] is None else f"{mb(row['other']['peak'])}   {row['gradients differ by']:.0e}"
    numbers = f"{row['vocabulary']:9,}{row['prompt']:8,}{row['response']:10,}"
    return f"{numbers}{mb(row['logits'])}{mb(row['usual']['peak'])}{row['usual']['seconds']:8.1f}{other}"


def by_packing(args, cfg, m=4):
    """m answers to one prompt in rows of one answer, and packed into one row: what a mask costs."""
    prompt, answer = max(args.prompts), max(args.responses) // (4 * m)
    policy = tiny_policy(min(args.vocabularies), cfg, prompt + m * answer)
    groups, A = random_groups(policy, cfg, 1, m, lengths(prompt, answer), random.Random(0))
    packed = replace(cfg, tokens_at_once=prompt + m * answer)
    apart = replace(cfg, tokens_at_once=prompt + answer)                    # too few for two answers in a row
    result = compare(policy, groups, A, packed, apart)
    return result | {"prompt": prompt, "answer": answer, "answers": m, "float mask": 4 * (prompt + m * (answer - 1)) ** 2}


def by_budget(args, cfg, m=4):
    """m rows of one answer each, at a token budget of all of them and of one row: same numbers, fewer bytes."""
    prompt, answer = min(args.prompts), max(args.responses) // 4
    policy = tiny_policy(min(args.vocabularies), cfg, prompt + answer)
    groups = [random_groups(policy, cfg, 1, 1, lengths(prompt, answer), random.Random(i))[0][0] for i in range(m)]
    result = compare(policy, groups, torch.tensor([[1.0], [-1.0]] * m)[:m], replace(cfg, tokens_at_once=m * (prompt + answer)),
                     replace(cfg, tokens_at_once=prompt + answer))
    return result | {"prompt": prompt, "answer": answer, "answers": m}


def kernels(args, cfg):
    """Names of the attention kernels that run in one pass of packed rows, and the number of times."""
    policy = tiny_policy(min(args.vocabularies), cfg, 1024)
    groups, A = random_groups(policy, cfg, 1, 4, lengths(64, 8), random.Random(0))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss_and_gradients(policy, groups, A, cfg)
    return {event.key: event.count for event in profile.key_averages() if "attention" in event.key and "aten::_" in event.key}


# ---------------------------------------------------------------- the command

def sentence(name, x, usual, other):
    mb = lambda side: f"{x[side]['peak'] / MB:,.0f} MB in {x[side]['passes']} passes"
    return (f"\n{name}: {x['answers']} answers of {x['answer']:,} tokens, prompts of {x['prompt']:,}: {usual} {mb('usual')}, "
            f"{other} {mb('other')}; gradients differ by {x['gradients differ by']:.0e}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(x) for x in text.split(",")]
    parser.add_argument("--prompts", type=numbers, default=[4096])
    parser.add_argument("--responses", type=numbers, default=[2048, 8192])
    parser.add_argument("--vocabularies", type=numbers, default=[1024, 32768, 151936], help="151,936: Qwen3's")
    parser.add_argument("--limit", type=float, default=8.0, help="GB that an unchunked pass may take, at about four times its logits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cfg = Config(device="cpu", dtype="fp32")
    report = {"machine": machine(), "settings": {"logp_chunk": cfg.logp_chunk, "tokens_at_once": cfg.tokens_at_once} | SHAPE}
    print(report["machine"], report["settings"], sep="\n")
    print("\nvocabulary  prompt  response   logits  chunked  seconds  unchunked   gradients differ by        (MB)")
    report["lengths"] = by_length_and_vocabulary(args, cfg)
    report["packing"] = by_packing(args, cfg)
    report["budget"] = by_budget(args, cfg)
    print(sentence("packing", report["packing"], "packed", "a row for each") + f"; one mask {report['packing']['float mask'] / MB:,.0f} MB")
    print(sentence("budget", report["budget"], "together", "one by one"))
    report["kernels"] = kernels(args, cfg)
    print(f"\nkernels: {report['kernels']}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    run_script(main)
