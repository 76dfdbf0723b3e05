"""Memory of a loss, forward and backward, as sequences and the vocabulary grow.

    python -m tools.memory           # a tiny model, 4,096 + 8,192 tokens, 151,936 words:
                                     # about 10 minutes of one core, 8 GB
    python -m tools.memory --prompts 256 --responses 256,512 --vocabularies 1024     # seconds

There is no equation here; the loss is policy.pass_loss on one group of rollouts of random tokens,
the model has two layers of 64. Compared is what keeps memory bounded, and that it changes no
number:

    line        what is compared                                    columns
    lengths     one answer: log-probs in chunks, and all at once    MB of logits, peak MB of both,
                                                                    difference of gradients
    packing     four answers packed into a tree, and a row each     peak MB, passes, MB of a mask
    budget      four rows in one pass, and one by one               peak MB, passes

Peaks are bytes beyond weights and gradients, as torch's profiler counts them (bench.peak_bytes).
Differences of gradients are relative to the largest gradient. A pass of which four times the
logits would exceed --limit is not run, and says so: logits of 8,192 tokens over 151,936 words, all
at once, would take some 15 GB. What costs how much: docs/results/memory.md.

Not measured: GPUs, where torch picks among other kernels; whole models, whose activations plan
computes.
"""
import itertools
import json
import random
import tempfile
import time
from dataclasses import replace

import torch
import transformers

from toy import make
from tools.baselines import random_groups
from tools.bench import machine, peak_bytes
from config import Config
from engine.arguments import MANY, Parser
from policy import Policy, pass_loss
from engine.packing import passes
from engine.speech import run_script

GB = 2 ** 30
MB = 2 ** 20
SHAPE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16)


def lengths(prompt, answer):
    return {"prompt": (prompt, prompt), "answer": (answer, answer)}


def tiny_policy(V, cfg, longest):
    """Random weights: two layers of 64, V words, head and embedding one tensor."""
    torch.manual_seed(0)
    # a model is tried at the lengths of its Config
    half = longest // 2
    cfg = replace(cfg, max_prompt_tokens=half, max_response_tokens=longest - half)
    shape = transformers.Qwen3Config(
        **SHAPE, vocab_size=V, max_position_embeddings=longest, tie_word_embeddings=True)

    with tempfile.TemporaryDirectory() as folder:
        transformers.Qwen3ForCausalLM(shape).save_pretrained(folder)
        make.make_tokenizer().save_pretrained(folder)
        return Policy("solver", folder, 1e-5, cfg)


def loss_and_gradients(policy, groups, A, cfg):
    """Forward and backward in as many passes as it takes -> (loss, number of passes).

    Gradients stay in .grad.
    """
    trees_of_passes = passes(policy, list(enumerate(groups)), cfg)
    total = 0.0
    for trees in trees_of_passes:
        loss, _ = pass_loss(policy, trees, A, 1000.0, cfg)
        loss.backward()
        total += float(loss.detach())
    return total, len(trees_of_passes)


def measured(policy, groups, A, cfg):
    """-> {"peak", "seconds", "loss", "passes"} and the gradients.

    .grad holds zeros before, so that gradients are not counted.
    """
    for p in policy.params:
        p.grad = torch.zeros_like(p)

    found = {}

    def run():
        found["loss"], found["passes"] = loss_and_gradients(policy, groups, A, cfg)

    start = time.perf_counter()
    found["peak"] = peak_bytes(run)
    gradients = [p.grad for p in policy.params]
    policy.optimizer.zero_grad(set_to_none=True)
    found["seconds"] = time.perf_counter() - start
    return found, gradients


def distance(a, b):
    """Largest difference of two lists of gradients, relative to the largest gradient."""
    apart = max(float((x - y).abs().max()) for x, y in zip(a, b))
    return apart / max(float(y.abs().max()) for y in b)


def compare(policy, groups, A, usual, other, allowed=True):
    """One loss at two settings of the config -> {"usual", "other", and how far they differ}.

    other is None where not allowed.
    """
    ours, g_ours = measured(policy, groups, A, usual)
    if not allowed:
        return {"usual": ours, "other": None}

    theirs, g_theirs = measured(policy, groups, A, other)
    return {"usual": ours, "other": theirs,
            "gradients differ by": distance(g_ours, g_theirs),
            "losses differ by": abs(ours["loss"] - theirs["loss"])}


# ---------------------------------------------------------------- the tables

def by_length_and_vocabulary(args, cfg):
    """One answer to one prompt, for every length and vocabulary: log-probs in chunks, and not."""
    table = []
    for V, prompt, response in itertools.product(args.vocabularies, args.prompts, args.responses):
        policy = tiny_policy(V, cfg, prompt + response)
        size = lengths(prompt, response)
        groups, A = random_groups(policy, cfg, 1, 1, size, random.Random(0))

        logits = 4 * response * V
        fits = 4 * logits < args.limit * GB
        unchunked = replace(cfg, logp_chunk=response)

        # one answer alone has A = 0
        result = compare(policy, groups, A + 1, cfg, unchunked, fits)
        row = {"vocabulary": V, "prompt": prompt, "response": response, "logits": logits} | result
        table.append(row)
        print(line_of(row), flush=True)
    return table


def in_mb(n):
    return f"{n / MB:9,.0f}"


def line_of(row):
    usual = row["usual"]
    other = "   (not run)"
    if row["other"] is not None:
        other = f"{in_mb(row['other']['peak'])}   {row['gradients differ by']:.0e}"
    numbers = f"{row['vocabulary']:9,}{row['prompt']:8,}{row['response']:10,}"
    measured = f"{in_mb(row['logits'])}{in_mb(usual['peak'])}{usual['seconds']:8.1f}"
    return numbers + measured + other


def by_packing(args, cfg, m=4):
    """m answers to one prompt in rows of one answer, and packed into a tree: what a mask costs."""
    prompt = max(args.prompts)
    answer = max(args.responses) // (4 * m)
    policy = tiny_policy(min(args.vocabularies), cfg, prompt + m * answer)
    groups, A = random_groups(policy, cfg, 1, m, lengths(prompt, answer), random.Random(0))

    # too few tokens for two answers in a tree
    packed = replace(cfg, tokens_at_once=prompt + m * answer)
    apart = replace(cfg, tokens_at_once=prompt + answer)

    result = compare(policy, groups, A, packed, apart)
    mask = 4 * (prompt + m * (answer - 1)) ** 2
    return result | {"prompt": prompt, "answer": answer, "answers": m, "float mask": mask}


def by_budget(args, cfg, m=4):
    """m rows of one answer each, at a token budget of all of them and of one row.

    Same numbers, fewer bytes.
    """
    prompt = min(args.prompts)
    answer = max(args.responses) // 4
    policy = tiny_policy(min(args.vocabularies), cfg, prompt + answer)

    groups = []
    for i in range(m):
        one, _ = random_groups(policy, cfg, 1, 1, lengths(prompt, answer), random.Random(i))
        groups += one
    A = torch.tensor([[1.0], [-1.0]] * m)[:m]                           # (m, 1)

    together = replace(cfg, tokens_at_once=m * (prompt + answer))
    one_by_one = replace(cfg, tokens_at_once=prompt + answer)
    result = compare(policy, groups, A, together, one_by_one)
    return result | {"prompt": prompt, "answer": answer, "answers": m}


def kernels(args, cfg):
    """Names of the attention kernels that run in one pass over a tree, and how often each does."""
    policy = tiny_policy(min(args.vocabularies), cfg, 1024)
    groups, A = random_groups(policy, cfg, 1, 4, lengths(64, 8), random.Random(0))

    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu]) as profile:
        loss_and_gradients(policy, groups, A, cfg)

    counts = {event.key: event.count for event in profile.key_averages()}
    return {name: n for name, n in counts.items() if "attention" in name and "aten::_" in name}


# ---------------------------------------------------------------- the command

def sentence(name, x, usual, other):
    def cost(side):
        return f"{x[side]['peak'] / MB:,.0f} MB in {x[side]['passes']} passes"

    sizes = f"{x['answers']} answers of {x['answer']:,} tokens, prompts of {x['prompt']:,}"
    costs = f"{usual} {cost('usual')}, {other} {cost('other')}"
    return f"\n{name}: {sizes}: {costs}; gradients differ by {x['gradients differ by']:.0e}"


def whole_numbers(text):
    """Text of a list with commas -> its numbers; ValueError unless each is 1 or more."""
    found = [int(x) for x in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def read_args(argv):
    parser = Parser("python -m tools.memory", __doc__, limit=(0, MANY))
    parser.add_argument("--prompts", type=whole_numbers, default=[4096])
    parser.add_argument("--responses", type=whole_numbers, default=[2048, 8192])
    parser.add_argument("--vocabularies", type=whole_numbers, default=[1024, 32768, 151936],
                        help="151,936: Qwen3's")
    parser.add_argument("--limit", type=float, default=8.0,
                        help="GB that an unchunked pass may take, at about four times its logits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(argv)


def main(argv=None):
    args = read_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = Config(device="cpu", dtype="fp32")
    settings = {"logp_chunk": cfg.logp_chunk, "tokens_at_once": cfg.tokens_at_once} | SHAPE
    report = {"machine": machine(), "settings": settings}
    print(report["machine"], report["settings"], sep="\n")

    print("\nvocabulary  prompt  response   logits  chunked  seconds  unchunked   "
          "gradients differ by        (MB)")
    report["lengths"] = by_length_and_vocabulary(args, cfg)

    packing = by_packing(args, cfg)
    budget = by_budget(args, cfg)
    report["packing"] = packing
    report["budget"] = budget
    mask = f"one mask {packing['float mask'] / MB:,.0f} MB"
    print(f"{sentence('packing', packing, 'packed', 'a row for each')}; {mask}")
    print(sentence("budget", budget, "together", "one by one"))

    report["kernels"] = kernels(args, cfg)
    print(f"\nkernels: {report['kernels']}")

    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    run_script(main)
