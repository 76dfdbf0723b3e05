"""How fast the expensive stages are, against the plain way of doing the same and against the least that must be done; and how cost grows.

    python bench.py                                     # the toy anchor, and what it answers to the toy world's questions
    python bench.py --size 20m --questions 6 --repeats 3 --json bench.json      # 20 million random weights, answers of 20 to 60 tokens
    python bench.py --size 20m --stages influence --written_by toy/anchor               # ... and what another model answers
    python bench.py --stages update,rollouts            # only these
    python bench.py --stages ranks                      # needs two idle cores: train.py itself on 1 and 2 ranks

There is no equation here: nothing is computed that influence.py and policy.py do not define. The plain ways are in baselines.py.

    stage        what is compared                                                                               target
    influence    influence_scores; the plain way; a bare forward and backward over the same packed rows         plain 5, bare at most 1.10
    random       the same for answers of random tokens, which have nothing in common                            plain 5, bare at most 1.10
    rollouts     sample; model.generate; transformers' continuous batching. Lengths are ragged                  generate 2
    update       one AdamW step: packed rows; padded rows; TRL's GRPOTrainer if trl is installed                -
    iteration    a whole one on the embedded world: ours; padded rows, generate and the plain influence         plain 3
    questions    influence: seconds per question when 8 to --most are scored in one call                        flat within 10 %
    answers      influence: seconds per answer, 2 to 32 answers to a question                                   -
    lengths      influence: seconds per response token, answers of 8 to 64 tokens                               -
    sizes        influence: seconds per question, 1 to 60 million random weights, beside the bare passes        bare at most 1.10
    ranks        iterations 2-5 of train.py, a thread a rank: 1 rank; 2 ranks, in shards; 2, whole copies       2 ranks 1.7
    memory       bytes of scoring beyond weights and AdamW, beside what must be held                            used at most allowed

Variants take turns in one process, a different one first in each round, so that a machine that slows down slows all of them. Times are
medians; a ratio is one of medians. --clock cpu counts the process's CPU time instead, for a machine that others use too (one thread only).
A first round, not timed, compares the results, since only equal computations may be compared in speed: scores, AdamW's first moments after
an update, and the lengths of the rollouts, which are drawn (that greedy ones are the same tokens is shown in tests/test_bench.py). What
moves a model is followed, outside the clock, by putting it back. A way that cannot run here is skipped with one line that says why.

In `influence` and `iteration` documents and questions are those of the embedded world, or of the files given, in the proportions of the toy
preset (12 documents and 160 dev questions to 96 questions, which are a whole iteration), and the model answers them, or the one that
--written_by names. Where neither can answer, with random weights, responses are random tokens of random length, and all advantages random.
Scored are the questions with both right and wrong answers. One model plays both roles.

Elsewhere tokens are random and lengths chosen. Answers to be scored are uniform within LENGTHS. Rollouts are ragged: geometric with mean 24,
so most are short, and cut at 128. generate is told where each of our rows ended and ends it there. Only response tokens count, never padding.

Memory is what torch's profiler counts: the most bytes in use at one time beyond those before, for the question with the most tokens. How it
grows with length and vocabulary is in bench_memory.py.

Not measured: GPUs, bf16, start-up; nor whether scores or texts are any good (tests/, evaluate.py).
"""
import argparse
import copy
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from itertools import accumulate
from statistics import median

import torch
import transformers

import generator
import solver
import toy
from baselines import (Skipped, World, bare_passes, centred, continuous, first_moments, generate, keeper, make_world, padded_dev_gradient,
                       padded_update, plain_scores, random_groups, trl_trainer, trl_update, with_own_logps)
from config import TOY, Config
from data import InputError, load_documents, load_questions, run_script
from dugrpo import center
from influence import dev_gradient, has_gradient, influence_scores
from policy import Policy, sample, update

ROOT = os.path.dirname(os.path.abspath(__file__))
LENGTHS = {"toy": dict(prompt=(24, 28), answer=(5, 7)), "long": dict(prompt=(100, 140), answer=(20, 60))}           # tokens, from and to
SHAPE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
SIZES = {"1m": (256, 128, 512, 4, 4, 4, 32),                # the anchor's, nearly
         "5m": (4096, 256, 768, 6, 4, 2, 64),
         "20m": (16384, 384, 1024, 8, 6, 3, 64),
         "60m": (16384, 640, 1728, 10, 10, 5, 64)}


def random_policy(size, cfg):
    """One of SIZES -> a policy with random weights, through a folder as every model comes."""
    torch.manual_seed(0)
    shape = transformers.Qwen3Config(**dict(zip(SHAPE, SIZES[size])), max_position_embeddings=1024, tie_word_embeddings=True)
    with tempfile.TemporaryDirectory() as folder:
        transformers.Qwen3ForCausalLM(shape).save_pretrained(folder)
        toy.make_tokenizer().save_pretrained(folder)
        return Policy("solver", folder, 1e-5, cfg)


# ---------------------------------------------------------------- a stage and its measurement

@dataclass
class Stage:
    """Variants, each a function of nothing, and how much work each does, counted in `unit`."""
    name: str
    unit: str
    work: dict                  # variant: number of units
    variants: dict              # variant: function -> its result, or its own seconds where `own_clock`
    targets: list = field(default_factory=list)         # (numerator, denominator, "at least" or "at most", number): of seconds per unit
    difference: object = None   # {variant: result} -> how far apart the results are: 0, or rounding
    reset: object = lambda: None                        # after every run, outside the clock
    skipped: dict = field(default_factory=dict)         # variant: why it does not run here
    own_clock: bool = False


def measure(stage, repeats, clock=time.perf_counter):
    """Stage -> {"unit", "work", "difference", "seconds": {variant: list}, "ratios": list, "skipped"}."""
    results, skipped = {}, dict(stage.skipped)
    for name, run in stage.variants.items():
        try:
            results[name] = run() if stage.difference else None
        except Skipped as why:
            skipped[name] = str(why)
        stage.reset()
    names = [name for name in stage.variants if name not in skipped]
    seconds = {name: [] for name in names}
    for i in range(repeats):
        for name in names[i % len(names):] + names[:i % len(names)]:
            start = clock()
            result = stage.variants[name]()
            seconds[name].append(result if stage.own_clock else clock() - start)
            stage.reset()
    difference = float(stage.difference(results)) if stage.difference else None
    return {"unit": stage.unit, "work": stage.work, "difference": difference, "seconds": seconds, "ratios": ratios(stage, seconds),
            "skipped": skipped}


def ratios(stage, seconds):
    """{variant: list of seconds} -> [{"ratio", "value", "target", "met"}]. dearest and cheapest stand for whichever variant is."""
    cost = {name: median(times) / stage.work[name] for name, times in seconds.items()}                              # seconds per unit
    order = sorted(cost, key=cost.get)
    cost |= {"cheapest": cost[order[0]], "dearest": cost[order[-1]]}
    found = []
    for a, b, word, number in stage.targets:
        if a in cost and b in cost:
            value = cost[a] / cost[b]
            met = None if number is None else value >= number if word == "at least" else value <= number
            found.append({"ratio": f"{a} / {b}", "value": value, "target": "" if number is None else f"{word} {number}", "met": met})
    return found


def show(stage, result):
    """Print a stage's table: seconds, units per second, ratios beside their targets."""
    said = "" if result["difference"] is None else f", results differ by {result['difference']:.1e}"
    print(f"\n{stage.name}{said}", flush=True)
    for name, seconds in result["seconds"].items():
        ms, work = 1000 * median(seconds), stage.work[name]
        print(f"  {name:22}{ms:10.0f} ms{1000 * work / ms:12.1f} {stage.unit}s/s{ms / work:12.3f} ms per {stage.unit}")
    for name, why in result["skipped"].items():
        print(f"  {name:22}skipped: {why}")
    for ratio in result["ratios"]:
        met = "" if ratio["met"] is None else f"     target {ratio['target']}: {'met' if ratio['met'] else 'missed'}"
        print(f"  {ratio['ratio']:22}{ratio['value']:10.2f}{met}", flush=True)


# ---------------------------------------------------------------- ours against other ways

def count(groups):
    return sum(len(x.response) for group in groups for x in group)


def influence_stage(w, args):
    """On what was answered to the questions, where answers differ in reward."""
    kept = has_gradient(w.asked.A[2]).nonzero()[:, 0].tolist()
    stage = random_stage(replace(w, answers=[w.asked.groups[2][q] for q in kept], A=w.asked.A[2][kept]), args)
    return replace(stage, name=f"influence, {len(kept)} of {args.questions} questions")


def random_stage(w, args):
    names = ("ours", "plain", "bare")
    return Stage("random", "token", dict.fromkeys(names, count(w.answers)),
                 {"ours": lambda: influence_scores(w.policy, w.answers, w.A, w.g_dev, w.cfg)[0],
                  "plain": lambda: plain_scores(w),
                  "bare": lambda: bare_passes(w)},
                 [("plain", "ours", "at least", 5.0), ("ours", "bare", "at most", 1.10)],
                 lambda results: (results["ours"] - results["plain"]).abs().max())


def rollouts_stage(w, args, temperature=1000.0, mean=24, limit=128):
    """At temperature 1000 all tokens are equally likely, whatever the weights."""
    policy, prompts, m = copy.copy(w.policy), [group[0].prompt for group in w.answers], len(w.answers[0])
    policy.stop_ids = list(range(policy.model.config.vocab_size // mean))
    cfg = replace(w.cfg, rows_at_once=args.rows, max_response_tokens=limit)
    ours = lambda: [x.response for group in sample(policy, prompts, m, ("bench",), cfg, temperature, top_p=1.0, top_k=0) for x in group]
    ends = [len(response) for response in ours()]                                           # the same in every run
    each = [p for p in prompts for _ in range(m)]
    variants = {"ours": ours, "generate": lambda: generate(policy, each, ends, args.rows, temperature),
                "continuous": lambda: continuous(policy, each, ends, args.rows, temperature)}
    return Stage("rollouts", "token", dict.fromkeys(variants, sum(ends)), variants,
                 [("generate", "ours", "at least", 2.0), ("continuous", "ours", "", None)],
                 lambda results: sum(abs(len(row) - n) for rows in results.values() for row, n in zip(rows, ends)))


def update_stage(w, args):
    """One AdamW step over all rows. Results are first moments, which are linear in the gradients."""
    policy, cfg = w.policy, replace(w.cfg, minibatch_rows=len(w.answers) * len(w.answers[0]))

    def moments_after(step, params, optimizer):
        def run():
            step()
            return first_moments(params, optimizer)
        return run

    variants = {"ours": moments_after(lambda: update(policy, w.answers, w.A, cfg), policy.params, policy.optimizer),
                "padded": moments_after(lambda: padded_update(policy, w.answers, w.A, cfg), policy.params, policy.optimizer)}
    resets, skipped = [keeper(policy.params, policy.optimizer)], {}
    try:
        trainer = trl_trainer(policy, cfg, cfg.minibatch_rows, max(len(x.response) for group in w.answers for x in group))
        params = list(trainer.model.parameters())
        resets.append(keeper(params, trainer.optimizer))
        variants["trl"] = moments_after(lambda: trl_update(trainer, w.answers, w.A, cfg), params, trainer.optimizer)
    except Skipped as why:
        skipped["trl"] = str(why)
    return Stage("update", "token", dict.fromkeys(variants, count(w.answers)), variants,
                 [("padded", "ours", "", None), ("trl", "ours", "", None)],
                 lambda results: max((x - results["ours"]).norm() / results["ours"].norm() for x in results.values()),
                 lambda: [reset() for reset in resets], skipped)


@dataclass
class Asked:
    """What an iteration asks and gets: rollouts to dev questions, documents and questions, always the same ones, and their advantages."""
    prompts: list       # three lists of prompts
    groups: list        # three tables of rollouts
    A: list             # three tables of advantages


def draws_of(policy, args, cfg):
    """-> (policy as it samples, what sample is told): with random weights every token is equally likely, and every 24th on average the last."""
    policy = copy.copy(policy)
    if not args.size:
        return policy, dict(temperature=cfg.temperature)
    policy.stop_ids = list(range(policy.model.config.vocab_size // 24))
    return policy, dict(temperature=1000.0, top_p=1.0, top_k=0)


def ask(policy, args, cfg, writer=None):
    """Documents and questions in the proportions of the toy preset, 160 dev questions and 12 documents to 96 questions, answered by the writer."""
    Q, m, rng = args.questions, args.answers, random.Random(0)
    dev, questions = load_questions(args.dev)[:max(1, Q * 160 // 96)], load_questions(args.test)[:Q]
    documents = load_documents(args.documents)[:max(1, Q // 8)]
    texts = [list(map(solver.prompt_text, dev)), list(map(generator.prompt_text, documents)), list(map(solver.prompt_text, questions))]
    who, draws = (writer, {}) if writer else draws_of(policy, args, cfg)
    groups = [sample(who, [who.prompt_ids(text) for text in part], m, ("bench", i), cfg, **draws) for i, part in enumerate(texts)]
    for rollout in (x for part in groups for group in part for x in group):                 # the writer may know more words than the model
        rollout.prompt, rollout.response = ([token % policy.model.config.vocab_size for token in tokens] for tokens in (rollout.prompt, rollout.response))
    groups, prompts = [with_own_logps(policy, part, cfg) for part in groups], [[group[0].prompt for group in part] for part in groups]
    A = [center(solver.rewards(dev, groups[0], None)), centred(len(prompts[1]), m, rng), center(solver.rewards(questions, groups[2], None))]
    return Asked(prompts, groups, [a if has_gradient(a).any() else centred(*a.shape, rng) for a in A])


def iteration_stage(w, args):
    """Sampling for both roles, g_dev, influence, two updates. Verification and logs are left out of both ways."""
    x, m = w.asked, args.answers
    cfg = replace(w.cfg, rows_at_once=args.rows, minibatch_rows=12 * m)
    policy, draws = draws_of(w.policy, args, cfg)
    ends = [[len(rollout.response) for group in part for rollout in group] for part in x.groups]
    kept = has_gradient(x.A[2]).nonzero()[:, 0].tolist()

    def ours():
        for i, prompts in enumerate(x.prompts):
            sample(policy, prompts, m, ("bench", i), cfg, **draws)
        g_dev = dev_gradient(policy, x.groups[0], x.A[0], cfg)
        s_hat = influence_scores(policy, x.groups[2], x.A[2], g_dev, cfg)[0][kept]
        for i in (1, 2):
            update(policy, x.groups[i], x.A[i], cfg)
        return torch.cat([s_hat, first_moments(policy.params, policy.optimizer)])

    def plain():
        for prompts, end in zip(x.prompts, ends):
            generate(policy, [p for p in prompts for _ in range(m)], end, args.rows, draws["temperature"])
        g_dev = padded_dev_gradient(policy, x.groups[0], x.A[0], cfg)
        s_hat = plain_scores(World(policy, cfg, [x.groups[2][q] for q in kept], x.A[2][kept], g_dev))
        for i in (1, 2):
            padded_update(policy, x.groups[i], x.A[i], cfg)
        return torch.cat([s_hat, first_moments(policy.params, policy.optimizer)])

    return Stage("iteration", "token", dict.fromkeys(("ours", "plain"), sum(map(sum, ends))), {"ours": ours, "plain": plain},
                 [("plain", "ours", "at least", 3.0)], lambda results: (results["ours"] - results["plain"]).abs().max(),
                 keeper(policy.params, policy.optimizer))


# ---------------------------------------------------------------- how the cost of influence grows

def scoring(w, answers, A, calls=1):
    def run():
        for _ in range(calls):
            influence_scores(w.policy, answers, A, w.g_dev, w.cfg)
    return run


def questions_stage(w, args):
    """The same 8 questions over and over, in calls of 8, 16, ...; each variant makes so many calls that it scores 64 or more in all."""
    few, A, work, variants = (w.answers * 8)[:8], w.A.repeat(8, 1)[:8], {}, {}
    for Q in [8 * 2 ** i for i in range(20) if 8 * 2 ** i <= args.most]:
        calls = max(1, 64 // Q)
        variants[str(Q)], work[str(Q)] = scoring(w, few * (Q // 8), A.repeat(Q // 8, 1), calls), calls * Q
    return Stage("questions", "question", work, variants, [("dearest", "cheapest", "at most", 1.10)])


def answers_stage(w, args, Q=8):
    work, variants, rng = {}, {}, random.Random(0)
    for m in (2, 4, 8, 16, 32):
        variants[str(m)], work[str(m)] = scoring(w, *random_groups(w.policy, w.cfg, Q, m, LENGTHS[args.lengths], rng)), Q * m
    return Stage("answers", "answer", work, variants)


def lengths_stage(w, args, Q=4):
    work, variants, rng = {}, {}, random.Random(0)
    for T in (8, 16, 32, 64):
        groups, A = random_groups(w.policy, w.cfg, Q, args.answers, LENGTHS[args.lengths] | {"answer": (T, T)}, rng)
        variants[str(T)], work[str(T)] = scoring(w, groups, A), Q * args.answers * T
    return Stage("lengths", "token", work, variants)


def sizes_stage(w, args, Q=2):
    variants = {}
    for size in SIZES:
        at = make_world(random_policy(size, w.cfg), w.cfg, Q, args.answers, LENGTHS["long"])
        variants |= {f"{size} ours": scoring(at, at.answers, at.A), f"{size} bare": lambda at=at: bare_passes(at)}
    return Stage("sizes", "question", dict.fromkeys(variants, Q), variants,
                 [(f"{size} ours", f"{size} bare", "at most", 1.10) for size in SIZES])


# ---------------------------------------------------------------- 1 rank against 2

def seconds_of_training(ranks, flags):
    """train.py in processes of its own, one thread each -> mean seconds of an iteration but the first, without evaluation and checkpoint.

    torchrun looks after its processes ten times a second unless told otherwise, which takes a tenth of a core.
    """
    launch = ["-m", "torch.distributed.run", "--standalone", "--monitor_interval", "2", "--nproc_per_node", str(ranks), "--"] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launch, os.path.join(ROOT, "train.py"), "--run", os.path.join(folder, "run"),
                   "--iterations", "5", "--eval_every", "5", "--threads", "1", "--device", "cpu", "--dtype", "fp32", *flags]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise InputError(f"{' '.join(command[1:])}: exit code {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
        with open(os.path.join(folder, "run", "metrics.jsonl")) as lines:
            seconds = [json.loads(line)["seconds"] for line in lines][1:]
    return sum(x for each in seconds for name, x in each.items() if name not in ("evaluate", "checkpoint")) / len(seconds)


def ranks_stage(w, args):
    flags = args.train.split()
    variants = {"1 rank": lambda: seconds_of_training(1, flags),
                "2 ranks, in shards": lambda: seconds_of_training(2, flags + ["--shard", "true"]),
                "2 ranks, whole copies": lambda: seconds_of_training(2, flags + ["--shard", "false"])}
    return Stage("ranks", "iteration", dict.fromkeys(variants, 1), variants,
                 [("1 rank", name, "at least", 1.7) for name in list(variants)[1:]], own_clock=True)


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

STAGES = {"influence": influence_stage, "random": random_stage, "rollouts": rollouts_stage, "update": update_stage, "iteration": iteration_stage,
          "questions": questions_stage, "answers": answers_stage, "lengths": lengths_stage, "sizes": sizes_stage, "ranks": ranks_stage,
          "memory": None}                                   # of one question, no matter of time
DEFAULT = "influence,random,rollouts,update,iteration,questions,answers,lengths,memory"


def machine():
    lines = open("/proc/cpuinfo").readlines() if os.path.exists("/proc/cpuinfo") else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
            "torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}


def read_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=DEFAULT, help=f"names separated by commas, of {', '.join(STAGES)}")
    parser.add_argument("--model", default=TOY["model"], help="model folder or hub id")
    parser.add_argument("--size", choices=SIZES, help="random weights of this size instead")
    parser.add_argument("--written_by", metavar="MODEL", help="answers of another model; its tokens modulo the vocabulary")
    for name in ("documents", "dev", "test"):
        parser.add_argument(f"--{name}", default=TOY[name], metavar="FILE", help="the embedded world's unless given")
    parser.add_argument("--max_response_tokens", type=int, default=128, help="limit of answers and drafts; 128 unless given")
    parser.add_argument("--lengths", choices=LENGTHS, help="toy, and long with --size, unless given")
    parser.add_argument("--questions", type=int, help="96, and 32 with --size, unless given")
    for name, default in [("answers", 8), ("repeats", 5), ("threads", 1), ("rows", 64)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--most", type=int, help="questions of the stage `questions`; 512, and 32 with --size, unless given")
    parser.add_argument("--train", default="", metavar="FLAGS", help="further flags of train.py, for the stage `ranks`")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    args.stages = args.stages.split(",")
    unknown = set(args.stages) - set(STAGES)
    if unknown:
        raise InputError(f"--stages {','.join(unknown)}: expected some of {', '.join(STAGES)}")
    if args.written_by and "iteration" in args.stages:
        raise InputError("--written_by: an iteration samples its own answers; leave one of the two out")
    args.questions = args.questions or (32 if args.size else 96)
    args.lengths, args.most = args.lengths or ("long" if args.size else "toy"), args.most or (32 if args.size else 512)
    return args


def main(argv=None):
    args = read_args(argv)
    torch.set_num_threads(args.threads)
    cfg = Config(device="cpu", dtype="fp32", tokens_at_once=4096, max_response_tokens=args.max_response_tokens)
    policy = random_policy(args.size, cfg) if args.size else Policy("solver", args.model, 1e-5, cfg)
    w = make_world(policy, cfg, args.questions, args.answers, LENGTHS[args.lengths])
    if {"influence", "iteration"} & set(args.stages):
        writer = Policy("solver", args.written_by, 1e-5, cfg) if args.written_by else None
        w.asked = ask(policy, args, replace(cfg, rows_at_once=args.rows), writer)
    model = {"model": args.size or os.path.basename(os.path.normpath(args.model)), "parameters": sum(p.numel() for p in policy.params)}
    report = {"machine": machine(), "settings": {k: x for k, x in (vars(args) | model).items() if k != "json"}, "stages": {}}
    print(report["machine"], report["settings"], sep="\n")
    for name in [name for name in args.stages if name != "memory"]:
        stage = STAGES[name](w, args)
        report["stages"][name] = measure(stage, args.repeats, time.process_time if args.clock == "cpu" else time.perf_counter)
        show(stage, report["stages"][name])
    if "memory" in args.stages:
        report["memory"] = memory(w)
        parts = ", ".join(f"{name} {n / 2 ** 20:.1f}" for name, n in report["memory"].items())
        print(f"\nmemory while scoring, MB beyond weights and Adam: {parts}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=2)


if __name__ == "__main__":
    run_script(main)
